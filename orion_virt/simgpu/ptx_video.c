/* SPDX-License-Identifier: Apache-2.0 */
/* Integer instructions on parts of a register: video instructions, packed 16 bits, bit masks. */
#include "ptx_internal.h"

static int64_t part(uint64_t v, unsigned k, unsigned bits, bool sign)
{
    uint32_t x = (uint32_t)(v >> (k * bits)) & (bits == 32 ? ~0u : (1u << bits) - 1);

    if (!sign)
        return x;
    return bits == 32 ? (int32_t)x : bits == 16 ? (int16_t)x : (int8_t)x;
}

static int64_t operate(const struct ptx_insn *i, int64_t x, int64_t y)
{
    switch (i->mode) {
    case M_ADD: return x + y;
    case M_DEC: return x - y;
    case M_MIN: return x < y ? x : y;
    case M_MAX: return x > y ? x : y;
    case M_ABSDIFF: return x > y ? x - y : y - x;
    case M_AVERAGE: return (x + y + (x + y >= 0)) >> 1; /* halves away from zero */
    default:
        return i->cmp == C_EQ ? x == y : i->cmp == C_NE ? x != y : i->cmp == C_LT ? x < y : i->cmp == C_LE ? x <= y
               : i->cmp == C_GT ? x > y : x >= y;
    }
}

static int64_t saturate(int64_t v, unsigned bits, bool sign)
{
    int64_t top = (1ll << (bits - sign)) - 1, bottom = sign ? -top - 1 : 0;

    return v > top ? top : v < bottom ? bottom : v;
}

/* vadd, vadd2, vadd4 and the like; nr: how many parts. */
void ptx_video(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b), *c = REG(i->c < 0 ? i->a : i->c);
    unsigned bits = 32 / i->nr;
    bool sign_a = i->type2 == T_S32, sign_b = i->geometry == T_S32, sign = i->type == T_S32;

    EACH {
        uint64_t r = 0, sum = (uint32_t)c[l];
        for (unsigned k = 0; k < i->nr; k++) {
            int64_t v = operate(i, part(a[l], k, bits, sign_a), part(b[l], k, bits, sign_b));
            if (i->flags & F_SAT)
                v = saturate(v, bits, sign);
            sum += (uint64_t)v;
            r |= ((uint64_t)v & (bits == 32 ? 0xffffffffu : (1u << bits) - 1)) << (k * bits);
        }
        d[l] = (uint32_t)(i->flags & F_SUM ? sum : r);
    }
}

/* min, max, add of .u16x2 and .s16x2 */
void ptx_packed(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b);
    bool sign = i->type == T_S16X2;

    EACH {
        uint64_t r = 0;
        for (unsigned k = 0; k < 2; k++)
            r |= ((uint64_t)ptx_relu(i, operate(i, part(a[l], k, 16, sign), part(b[l], k, 16, sign))) & 0xffff) << (16 * k);
        d[l] = r;
    }
}

/* Two 16-bit factors with two bytes each of the second operand: its low or high half. */
void ptx_dp2a(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b), *c = REG(i->c);
    unsigned first = i->flags & F_HI ? 2 : 0;

    EACH {
        uint32_t sum = (uint32_t)c[l];
        for (unsigned k = 0; k < 2; k++)
            sum += (uint32_t)(part(a[l], k, 16, i->type == T_S32) * part(b[l], first + k, 8, i->type2 == T_S32));
        d[l] = sum;
    }
}

/* The low bits of the first operand, as many as the second says, extended with their sign or zeros. */
void ptx_szext(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b);

    EACH {
        uint32_t n = i->flags & F_CLAMP ? ((uint32_t)b[l] > 32 ? 32 : (uint32_t)b[l]) : (uint32_t)b[l] & 31;
        uint32_t v = (uint32_t)a[l], mask = n >= 32 ? ~0u : (1u << n) - 1;
        d[l] = !n ? 0 : i->type == T_S32 && v >> (n - 1) & 1 ? v | ~mask : v & mask;
    }
}

void ptx_bmsk(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b);

    EACH {
        uint32_t at = (uint32_t)a[l], n = (uint32_t)b[l];
        if (!(i->flags & F_CLAMP))
            at &= 31, n &= 31;
        uint32_t mask = n >= 32 ? ~0u : (1u << n) - 1;
        d[l] = at >= 32 ? 0 : mask << at;
    }
}

/* The position of the n-th set bit from `base` on, upwards for n > 0, downwards for n < 0. */
static uint32_t nth_set(uint32_t mask, uint32_t base, int32_t n)
{
    int32_t step = n < 0 ? -1 : 1, left = n < 0 ? -n : n;

    if (n == 0)
        return base < 32 && mask >> base & 1 ? base : ~0u;
    for (int32_t at = (int32_t)base; at >= 0 && at < 32; at += step)
        if (mask >> at & 1 && --left == 0)
            return (uint32_t)at;
    return ~0u;
}

void ptx_fns(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b), *c = REG(i->c);

    EACH d[l] = nth_set((uint32_t)a[l], (uint32_t)b[l], (int32_t)c[l]);
}
