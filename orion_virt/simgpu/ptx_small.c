/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point of 16 and 8 bits: computed in double with a sticky last bit, so that rounding once more is exact. */
#include <math.h>

#include "ptx_internal.h"

struct format {
    unsigned fraction;
    int least;                       /* exponent of the smallest normal number */
    uint32_t infinity, sign;
};
static const struct format f16 = { 10, -14, 0x7c00, 0x8000 }, bf16 = { 7, -126, 0x7f80, 0x8000 },
                           e4m3 = { 3, -6, 0x7f, 0x80 }, e5m2 = { 2, -14, 0x7c, 0x80 }, tf32 = { 10, -126, 0x3fc00, 0x80000000 };

static const struct format *format_of(unsigned type)
{
    return type == T_BF16 || type == T_BF16X2 ? &bf16 : type == T_E4M3X2 ? &e4m3 : type == T_E5M2X2 ? &e5m2
           : type == T_TF32 ? &tf32 : &f16;
}

static double round_whole(double x, bool negative, unsigned round)
{
    switch (round) {
    case R_RZ: return floor(x);
    case R_RM: return negative ? ceil(x) : floor(x);
    case R_RP: return negative ? floor(x) : ceil(x);
    case R_RNA: return floor(x + 0.5);
    default: return rint(x);
    }
}

/* The magnitude's bits; more than `infinity` where it does not fit. */
static uint64_t magnitude(double v, const struct format *f, unsigned round)
{
    int e;

    if (v == 0)
        return 0;
    e = ilogb(v);
    e = e < f->least ? f->least : e;
    return ((uint64_t)(e - f->least) << f->fraction) +
           (uint64_t)round_whole(ldexp(fabs(v), (int)f->fraction - e), signbit(v), round);
}

/* `finite`: the greatest number instead of infinity. */
static uint32_t to_small(double v, unsigned type, unsigned round, bool finite)
{
    const struct format *f = format_of(type);
    uint64_t bits;
    bool toward_zero = round == R_RZ || (round == R_RM && !signbit(v)) || (round == R_RP && signbit(v));

    if (isnan(v))
        return f == &tf32 ? 0x7fffffff : f->sign == 0x80 ? 0x7f : 0x7fff;
    bits = isinf(v) ? f->infinity : magnitude(v, f, round);
    if (bits >= f->infinity)
        bits = finite || (toward_zero && !isinf(v)) ? f->infinity - 1u : f->infinity;
    return (uint32_t)(f == &tf32 ? bits << 13 : bits) | (signbit(v) ? f->sign : 0);
}

uint32_t ptx_to_small(double v, unsigned type, unsigned round)
{
    return to_small(v, type, round, format_of(type)->sign == 0x80); /* 8 bits have no infinity */
}

uint32_t ptx_cvt_small(double v, const struct ptx_insn *i)
{
    return to_small(v, i->type, i->round, i->flags & F_FINITE);
}

double ptx_from_small(uint64_t v, unsigned type)
{
    const struct format *f = format_of(type);
    unsigned bits = (unsigned)v & (f->sign - 1u), e = bits >> f->fraction, part = bits & ((1u << f->fraction) - 1);
    double x;

    if (f == &e4m3 ? bits == 0x7f : bits > f->infinity)
        return NAN;
    if (f != &e4m3 && bits == f->infinity)
        x = INFINITY;
    else
        x = ldexp(part + (e ? (double)(1u << f->fraction) : 0), (int)(e ? e - 1 : 0) + f->least - (int)f->fraction);
    return v & f->sign ? -x : x;
}

uint16_t ptx_to_half(double v, enum ptx_round round)
{
    return (uint16_t)ptx_to_small(v, T_F16, round);
}

float ptx_from_half(uint16_t h)
{
    return (float)ptx_from_small(h, T_F16);
}

bool ptx_is_small(unsigned type)
{
    return type == T_F16 || type == T_BF16 || type == T_F16X2 || type == T_BF16X2;
}

/* x + y, inexact results made odd: what follows rounds as if it saw the exact sum. */
double ptx_add_odd(double x, double y)
{
    double s = x + y, t = s - x, lost = (x - (s - t)) + (y - t);
    uint64_t bits = ptx_u64(s);

    if (lost == 0 || !isfinite(s) || bits & 1)
        return s;
    return nextafter(s, lost > 0 ? INFINITY : -INFINITY);
}

static double flushed(double v, const struct ptx_insn *i)
{
    return i->flags & F_FTZ && fabs(v) < ldexp(1, format_of(i->type)->least) ? copysign(0, v) : v;
}

static uint64_t one(uint64_t x, uint64_t y, uint64_t z, ptx_combine *f, const struct ptx_insn *i)
{
    double v = f(flushed(ptx_from_small(x, i->type), i), flushed(ptx_from_small(y, i->type), i),
                 flushed(ptx_from_small(z, i->type), i), i);

    if (i->flags & F_SAT)
        v = v > 0 ? (v < 1 ? v : 1) : 0;
    if (i->flags & F_RELU && v <= 0)
        v = 0;
    if (i->flags & F_FTZ) /* what rounds to a normal number stays */
        v = flushed(ptx_from_small(ptx_to_small(v, i->type, R_RN), i->type), i);
    return ptx_to_small(v, i->type, R_RN);
}

void ptx_small(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, ptx_combine *f)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b < 0 ? i->a : i->b), *c = REG(i->c < 0 ? i->a : i->c);
    bool two = i->type == T_F16X2 || i->type == T_BF16X2;

    EACH {
        uint64_t r = one(a[l], b[l], c[l], f, i);
        if (two)
            r |= one(a[l] >> 16, b[l] >> 16, c[l] >> 16, f, i) << 16;
        d[l] = r;
    }
}

/* ---- packed conversions: two elements, the first operand on top ---- */

static double relu(double v, const struct ptx_insn *i)
{
    return i->flags & F_RELU && v <= 0 ? 0 : v;
}

void ptx_cvt2(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->c);
    unsigned bits = i->type == T_E4M3X2 || i->type == T_E5M2X2 ? 8 : 16;

    EACH d[l] = (uint64_t)ptx_cvt_small(relu(ptx_f32(a[l]), i), i) << bits | ptx_cvt_small(relu(ptx_f32(b[l]), i), i);
}

/* Two halves to two 8-bit numbers. */
void ptx_cvt2of2(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);

    EACH d[l] = (uint64_t)ptx_to_small(relu(ptx_from_small(a[l] >> 16, i->type2), i), i->type, i->round) << 8 |
                ptx_to_small(relu(ptx_from_small(a[l], i->type2), i), i->type, i->round);
}

/* Two 8-bit numbers to two halves. */
void ptx_cvt8(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);

    EACH d[l] = (uint64_t)ptx_to_half(relu(ptx_from_small(a[l] >> 8, i->type2), i), R_RN) << 16 |
                ptx_to_half(relu(ptx_from_small(a[l], i->type2), i), R_RN);
}

/* cvt.pack: two saturated integers; of 8 bits above 16 bits of the third operand. */
void ptx_cvtpack(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->c);
    unsigned bits = ptx_bytes(i->type) * 8;
    bool sign = i->type == T_S16 || i->type == T_S8;
    int32_t top = (1 << (bits - sign)) - 1, bottom = sign ? -top - 1 : 0;

    EACH {
        uint64_t r = 0;
        for (unsigned k = 0; k < 2; k++) {
            int32_t v = (int32_t)(k ? a : b)[l];
            v = v > top ? top : v < bottom ? bottom : v;
            r |= (uint64_t)((uint32_t)v & ((1u << bits) - 1)) << (k * bits);
        }
        d[l] = bits == 8 ? r | (REG(i->e)[l] & 0xffff) << 16 : r;
    }
}
