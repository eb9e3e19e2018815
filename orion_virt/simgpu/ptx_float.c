/* SPDX-License-Identifier: Apache-2.0 */
/* Floating point instructions. */
#include <fenv.h>
#include <math.h>

#include "ptx_internal.h"

#define OPERANDS \
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b < 0 ? i->a : i->b), *c = REG(i->c < 0 ? i->a : i->c)

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

static int set_rounding(const struct ptx_insn *i)
{
    static const int modes[] = { [R_RZ] = FE_TOWARDZERO, [R_RM] = FE_DOWNWARD, [R_RP] = FE_UPWARD };

    return i->round == R_RZ || i->round == R_RM || i->round == R_RP ? fesetround(modes[i->round]), 1 : 0;
}

/* volatile keeps the operation between the two changes of the rounding mode */
#define ROUNDED(name, single, whole, half) \
    static double half_##name(double x, double y, double z, const struct ptx_insn *i) { (void)y; (void)z; (void)i; return half; } \
    void ptx_##name(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m) \
    { \
        OPERANDS; \
        if (i->type != T_F32 && i->type != T_F64) \
            return ptx_small(w, i, m, half_##name); \
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
                d[l] = isnan(r) ? PTX_NAN64 : ptx_u64(r); \
            } \
        } \
        if (changed) \
            fesetround(FE_TONEAREST); \
    }
ROUNDED(fadd, x + y, x + y, ptx_add_odd(x, y))
ROUNDED(fsub, x - y, x - y, ptx_add_odd(x, -y))
ROUNDED(fmul, x * y, x * y, x * y)
ROUNDED(fdiv, x / y, x / y, x / y)
ROUNDED(fma, fmaf(x, y, z), fma(x, y, z), ptx_add_odd(x * y, z))
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

/* A NaN loses against a number unless .NaN is given; -0 is below +0. max(x, y) = -min(-x, -y). */
static double lesser(double x, double y, const struct ptx_insn *i)
{
    bool negative = signbit(x) != signbit(y);
    double s = i->mode == M_MAX ? -1 : 1, r;

    if (i->flags & F_XORSIGN)
        x = fabs(x), y = fabs(y);
    x *= s;
    y *= s;
    if (isnan(x) || isnan(y))
        r = i->flags & F_NAN || (isnan(x) && isnan(y)) ? NAN : isnan(x) ? y : x;
    else
        r = x < y || (x == y && signbit(x)) ? x : y;
    r *= s;
    return i->flags & F_XORSIGN && !isnan(r) ? copysign(r, negative ? -1 : 1) : r;
}

static double small_lesser(double x, double y, double z, const struct ptx_insn *i)
{
    (void)z;
    return lesser(x, y, i);
}

/* min and max: i->mode says which */
void ptx_fextreme(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;

    (void)c;
    if (i->type != T_F32 && i->type != T_F64)
        return ptx_small(w, i, m, small_lesser);
    EACH {
        if (i->type == T_F32)
            d[l] = put32((float)lesser(flush(ptx_f32(a[l]), i), flush(ptx_f32(b[l]), i), i), i);
        else
            d[l] = ptx_u64(lesser(ptx_f64(a[l]), ptx_f64(b[l]), i));
    }
}

static uint64_t sign_bits(unsigned type)
{
    return type == T_F64 ? 1ull << 63 : type == T_F32 ? 1ull << 31 : type == T_F16X2 || type == T_BF16X2 ? 0x80008000u : 0x8000;
}

/* A subnormal half becomes zero of its sign. */
static uint64_t flush_half(uint64_t v, const struct ptx_insn *i)
{
    if (!(i->flags & F_FTZ))
        return v;
    for (unsigned k = 0; k < (i->type == T_F16X2 ? 2u : 1u); k++)
        if (!(v >> (16 * k) & 0x7c00))
            v &= ~(0x3ffull << (16 * k));
    return v;
}

static void signs(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, bool negate)
{
    OPERANDS;
    uint64_t bits = sign_bits(i->type);

    (void)b;
    (void)c;
    EACH {
        uint64_t v = i->type == T_F32 ? ptx_u32(flush(ptx_f32(a[l]), i)) : i->type == T_F64 ? a[l] : flush_half(a[l], i);
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
        int kind = i->type == T_F32 ? fpclassify(ptx_f32(a[l])) : fpclassify(ptx_f64(a[l]));
        switch (i->mode) {
        case M_FINITE: d[l] = kind != FP_NAN && kind != FP_INFINITE; break;
        case M_INFINITE: d[l] = kind == FP_INFINITE; break;
        case M_NUMBER: d[l] = kind != FP_NAN; break;
        case M_NOTANUMBER: d[l] = kind == FP_NAN; break;
        case M_NORMAL: d[l] = kind == FP_NORMAL || kind == FP_ZERO; break; /* PTX takes zeros for normal */
        default: d[l] = kind == FP_SUBNORMAL;
        }
    }
}
