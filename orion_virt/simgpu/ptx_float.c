/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point instructions; half precision is computed in double and rounded once. */
#include <fenv.h>
#include <math.h>

#include "ptx_internal.h"

#define OPERANDS \
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b < 0 ? i->a : i->b), *c = REG(i->c < 0 ? i->a : i->c)

float ptx_from_half(uint16_t h)
{
    unsigned e = h >> 10 & 31, f = h & 1023;
    float v = e == 31 ? (f ? NAN : INFINITY) : e ? ldexpf((float)(f + 1024), (int)e - 25) : ldexpf((float)f, -24);

    return h & 0x8000 ? -v : v;
}

uint16_t ptx_to_half(double v, enum ptx_round round)
{
    uint16_t sign = signbit(v) ? 0x8000 : 0;
    double x = fabs(v), scaled, r;
    int e;

    if (isnan(v))
        return 0x7fff;
    if (isinf(v))
        return sign | 0x7c00;
    frexp(x, &e);
    if (e < -13)
        e = -13;
    scaled = ldexp(x, 11 - e); /* an integer of 11 bits when exact */
    r = round == R_RZ || (round == R_RM && !sign) || (round == R_RP && sign) ? floor(scaled)
        : round == R_RM || round == R_RP ? ceil(scaled) : rint(scaled);
    x = ldexp(r, e - 11);
    if (x > 65504)
        return sign | (round == R_RZ ? 0x7bff : 0x7c00);
    if (x == 0)
        return sign;
    frexp(x, &e);
    if (e < -13)
        return sign | (uint16_t)ldexp(x, 24);
    return sign | (uint16_t)((e + 14) << 10) | ((uint16_t)ldexp(x, 11 - e) & 1023);
}

static float flush(float v, const struct ptx_insn *i)
{
    return i->flags & F_FTZ && fabsf(v) < 0x1p-126f ? copysignf(0, v) : v;
}

static double saturate(double v, const struct ptx_insn *i)
{
    if (!(i->flags & F_SAT))
        return v;
    return v > 0 ? (v < 1 ? v : 1) : 0; /* NaN gives 0 */
}

static uint64_t put32(float v, const struct ptx_insn *i)
{
    v = (float)saturate(flush(v, i), i);
    return isnan(v) ? 0x7fffffff : ptx_u32(v);
}

static uint16_t to_bf16(float v)
{
    uint64_t u = ptx_u32(v);

    return isnan(v) ? 0x7fff : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static double half_in(uint64_t v, bool bf16)
{
    return bf16 ? ptx_f32((v & 0xffff) << 16) : ptx_from_half((uint16_t)v);
}

static uint64_t half_out(double v, bool bf16, const struct ptx_insn *i)
{
    v = saturate(v, i);
    return bf16 ? to_bf16((float)v) : ptx_to_half(v, R_RN);
}

typedef double combine(double x, double y, double z);
static void halves(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, combine *f)
{
    OPERANDS;
    bool bf16 = i->type == T_BF16;

    EACH {
        uint64_t r = half_out(f(half_in(a[l], bf16), half_in(b[l], bf16), half_in(c[l], bf16)), bf16, i);
        if (i->type == T_F16X2)
            r |= half_out(f(half_in(a[l] >> 16, 0), half_in(b[l] >> 16, 0), half_in(c[l] >> 16, 0)), 0, i) << 16;
        d[l] = r;
    }
}

static int set_rounding(const struct ptx_insn *i)
{
    static const int modes[] = { [R_RZ] = FE_TOWARDZERO, [R_RM] = FE_DOWNWARD, [R_RP] = FE_UPWARD };

    return i->round == R_RZ || i->round == R_RM || i->round == R_RP ? fesetround(modes[i->round]), 1 : 0;
}

/* volatile keeps the operation between the two changes of the rounding mode */
#define ROUNDED(name, single, whole, half) \
    static double half_##name(double x, double y, double z) { (void)y; (void)z; return half; } \
    void ptx_##name(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m) \
    { \
        OPERANDS; \
        if (i->type != T_F32 && i->type != T_F64) \
            return halves(w, i, m, half_##name); \
        int changed = set_rounding(i); \
        if (i->type == T_F32) { \
            EACH { \
                volatile float x = flush(ptx_f32(a[l]), i), y = flush(ptx_f32(b[l]), i), z = flush(ptx_f32(c[l]), i); \
                volatile float r = single; \
                (void)y; (void)z; \
                d[l] = put32(r, i); \
            } \
        } else { \
            EACH { \
                volatile double x = ptx_f64(a[l]), y = ptx_f64(b[l]), z = ptx_f64(c[l]); \
                volatile double r = whole; \
                (void)y; (void)z; \
                d[l] = ptx_u64(r); \
            } \
        } \
        if (changed) \
            fesetround(FE_TONEAREST); \
    }
ROUNDED(fadd, x + y, x + y, x + y)
ROUNDED(fsub, x - y, x - y, x - y)
ROUNDED(fmul, x * y, x * y, x * y)
ROUNDED(fdiv, x / y, x / y, x / y)
ROUNDED(fma, fmaf(x, y, z), fma(x, y, z), x * y + z)
ROUNDED(rcp, 1 / x, 1 / x, 1 / x)
ROUNDED(sqrt, sqrtf(x), sqrt(x), sqrt(x))
ROUNDED(rsqrt, (float)(1 / sqrt((double)x)), 1 / sqrt(x), 1 / sqrt(x))
ROUNDED(sin, sinf(x), sin(x), sin(x))
ROUNDED(cos, cosf(x), cos(x), cos(x))
ROUNDED(lg2, log2f(x), log2(x), log2(x))
ROUNDED(ex2, exp2f(x), exp2(x), exp2(x))
ROUNDED(tanh, tanhf(x), tanh(x), tanh(x))
/* The sign is the first operand's, the magnitude the second's. */
ROUNDED(copysign, copysignf(y, x), copysign(y, x), copysign(y, x))

/* A NaN loses against a number unless .NaN is given; -0 is below +0. */
static double lesser(double x, double y, bool nan)
{
    if (isnan(x) || isnan(y))
        return nan || (isnan(x) && isnan(y)) ? NAN : isnan(x) ? y : x;
    return x < y || (x == y && signbit(x)) ? x : y;
}

static void extreme(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, bool max)
{
    OPERANDS;
    bool nan = i->flags & F_NAN;
    double s = max ? -1 : 1; /* max(x, y) = -min(-x, -y) */

    (void)c;
    EACH {
        if (i->type == T_F32)
            d[l] = put32((float)(s * lesser(s * flush(ptx_f32(a[l]), i), s * flush(ptx_f32(b[l]), i), nan)), i);
        else if (i->type == T_F64)
            d[l] = ptx_u64(s * lesser(s * ptx_f64(a[l]), s * ptx_f64(b[l]), nan));
        else {
            bool bf = i->type == T_BF16;
            uint64_t r = half_out(s * lesser(s * half_in(a[l], bf), s * half_in(b[l], bf), nan), bf, i);
            if (i->type == T_F16X2)
                r |= half_out(s * lesser(s * half_in(a[l] >> 16, 0), s * half_in(b[l] >> 16, 0), nan), 0, i) << 16;
            d[l] = r;
        }
    }
}

void ptx_fmin(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    extreme(w, i, m, false);
}

void ptx_fmax(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    extreme(w, i, m, true);
}

static uint64_t sign_bits(unsigned type)
{
    return type == T_F64 ? 1ull << 63 : type == T_F32 ? 1ull << 31 : type == T_F16X2 ? 0x80008000u : 0x8000;
}

static void signs(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, bool negate)
{
    OPERANDS;
    uint64_t bits = sign_bits(i->type);

    (void)b;
    (void)c;
    EACH {
        uint64_t v = i->type == T_F32 ? ptx_u32(flush(ptx_f32(a[l]), i)) : a[l];
        d[l] = negate ? v ^ bits : v & ~bits;
    }
}

void ptx_fneg(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    signs(w, i, m, true);
}

void ptx_fabs(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    signs(w, i, m, false);
}

void ptx_testp(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    (void)b;
    (void)c;
    EACH {
        double v = i->type == T_F32 ? ptx_f32(a[l]) : ptx_f64(a[l]);
        d[l] = i->cmp == C_NAN ? isnan(v) : !isnan(v);
    }
}
