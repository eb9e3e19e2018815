/* SPDX-License-Identifier: Apache-2.0 */
/* mma and wmma.mma: D = A * B + C of the matrices that a warp holds.
 *
 * Every type but f64 is computed in double. A product of two elements is exact there (at most 11 + 11 bits, or whole numbers),
 * C and the products are added in the order of k, and the sum is rounded to D's type once, to nearest even. So integers are
 * exact, and a floating point result is within half a unit of its last place of the exact one (plus 2^-50 of the largest addend).
 * A card adds in fixed point, aligned to the largest addend, and truncates: what it gives may lie further from the exact result,
 * by (k + 2) times 2^-22 of the largest addend, of 8-bit floating point 2^-12, of an f16 accumulator 2^-10
 * (slack_of_a_card in tests/simgpu/matrices.py). So no more than that is promised of bits being equal.
 * f64 is a fused multiply-add for each k in order. A NaN is the one that the card gives. */
#include <math.h>

#include "ptx_matrix.h"

#define ELEMENTS_MAX 4096u           /* of A: 16 x 256 bits */

unsigned ptx_element_bits(int32_t type)
{
    switch (type) {
    case E_F16: case E_BF16: return 16;
    case E_S8: case E_U8: case E_E4M3: case E_E5M2: return 8;
    case E_S4: case E_U4: return 4;
    case E_B1: return 1;
    case E_F64: return 64;
    default: return 32;
    }
}

unsigned ptx_elements(int32_t type)
{
    return type == E_F64 ? 1 : 32 / ptx_element_bits(type);
}

/* ---- where elements lie ---- */

/* The layouts of mma in the PTX manual: lane l is number l % 4 of group l / 4; a register holds neighbours along k, or of C and D
 * along a row. wmma's, of which the manual says nothing, are those of the mma instructions that make up its product: blocks of 16
 * rows and 8 columns, one after the other; where there are more registers than that, they repeat. */
struct matrix_spot ptx_matrix_spot(const struct matrix *x, enum matrix_role role, unsigned lane, unsigned reg, unsigned element)
{
    unsigned each = ptx_elements(x->type[role]), group = lane / 4, number = lane % 4;
    unsigned halves = x->m > 8 ? 2 : 1, ks = (unsigned)x->k / (4 * each), columns = (unsigned)x->n / 8;

    if (role == X_A) {
        unsigned r = reg % ((unsigned)x->m / 8 * ks), block = r / (halves * ks), q = r % (halves * ks);
        return (struct matrix_spot){ block * 16 + group + 8 * (q % halves), (number + 4 * (q / halves)) * each + element };
    }
    if (role == X_B) {
        unsigned r = reg % (columns * ks);
        return (struct matrix_spot){ (number + 4 * (r % ks)) * each + element, group + 8 * (r / ks) };
    }
    unsigned at = reg * each + element, block = at / (2 * halves), q = at % (2 * halves);
    return (struct matrix_spot){ block / columns * 16 + group + 8 * (q / 2), block % columns * 8 + number * 2 + q % 2 };
}

/* ---- elements ---- */

static double half(uint64_t v)
{
    uint32_t magnitude = (uint32_t)v & 0x7fff;
    float f = ptx_f32((uint64_t)magnitude << 13) * 0x1p112f; /* the exponent's other bias; exact, of subnormal numbers too */

    if (magnitude >= 0x7c00)
        f = ptx_f32((uint64_t)magnitude << 13 | 0x7f800000);
    return v & 0x8000 ? -f : f;
}

static double eighth(uint64_t v)     /* e4m3: an infinity's bits are a number, only the last is NaN */
{
    uint32_t magnitude = (uint32_t)v & 0x7f;
    double f = magnitude == 0x7f ? (double)NAN : half((uint64_t)magnitude << 7) * 256;

    return v & 0x80 ? -f : f;
}

static double nibble(uint64_t v, bool sign)
{
    return (double)(sign && v & 8 ? (int)(v & 15) - 16 : (int)(v & 15));
}

static double from_element(uint64_t v, int32_t type)
{
    switch (type) {
    case E_F16: return half(v);
    case E_BF16: return ptx_f32((v & 0xffff) << 16);
    case E_TF32: return ptx_f32(v & 0xffffe000); /* the other bits are ignored */
    case E_F32: return ptx_f32(v);
    case E_F64: return ptx_f64(v);
    case E_S8: return (int8_t)v;
    case E_U8: return (uint8_t)v;
    case E_S4: case E_U4: return nibble(v, type == E_S4);
    case E_B1: return (double)(v & 1);
    case E_E4M3: return eighth(v);
    case E_E5M2: return half((v & 0xff) << 8);
    default: return (int32_t)v;
    }
}

static uint64_t to_element(double v, int32_t type, int32_t flags)
{
    switch (type) {
    case E_F16: return ptx_to_half(v, R_RN);
    case E_F32: return isnan(v) ? 0x7fffffff : ptx_u32((float)v);
    case E_F64: return isnan(v) ? PTX_NAN64 : ptx_u64(v);
    default: /* E_S32: whole, and below 2^53 */
        if (flags & MATRIX_SATFINITE)
            v = fmin(fmax(v, INT32_MIN), INT32_MAX);
        return (uint32_t)(int64_t)v;
    }
}

/* ---- from and to registers ---- */

struct matrix_walk {                 /* of one element of a register, over the lanes */
    size_t first, group, number;     /* index in the matrix of lane 0, and how much further the next group and lane lie */
    unsigned shift;
};

static struct matrix_walk walk(const struct matrix *x, enum matrix_role role, unsigned reg, unsigned element)
{
    unsigned bits = ptx_element_bits(x->type[role]);
    size_t width = (size_t)(role == X_A ? x->k : x->n);
    struct matrix_spot at[3];

    for (unsigned k = 0; k < 3; k++) /* the layouts are linear in group and number */
        at[k] = ptx_matrix_spot(x, role, k == 0 ? 0 : k == 1 ? 4 : 1, reg, element);
    size_t first = at[0].row * width + at[0].col;
    return (struct matrix_walk){ first, at[1].row * width + at[1].col - first, at[2].row * width + at[2].col - first, element * bits };
}

static void gather(const struct ptx_warp *w, const struct matrix *x, enum matrix_role role, const int32_t *regs, double *out)
{
    for (unsigned r = 0; r < (unsigned)x->nr[role]; r++)
        for (unsigned e = 0; e < ptx_elements(x->type[role]); e++) {
            struct matrix_walk at = walk(x, role, r, e);
            for (unsigned l = 0; l < PTX_LANES; l++)
                out[at.first + l / 4 * at.group + l % 4 * at.number] = from_element(REG(regs[r])[l] >> at.shift, x->type[role]);
        }
}

static void scatter(struct ptx_warp *w, const struct matrix *x, const int32_t *regs, const double *from)
{
    for (unsigned r = 0; r < (unsigned)x->nr[X_D]; r++)
        for (unsigned e = 0; e < ptx_elements(x->type[X_D]); e++) {
            struct matrix_walk at = walk(x, X_D, r, e);
            for (unsigned l = 0; l < PTX_LANES; l++) {
                uint64_t v = to_element(from[at.first + l / 4 * at.group + l % 4 * at.number], x->type[X_D], x->flags);
                REG(regs[r])[l] = (e ? REG(regs[r])[l] : 0) | v << at.shift;
            }
        }
}

/* ---- the product ---- */

static void multiply(const struct matrix *x, const double *a, const double *b, double *c)
{
    unsigned rows = (unsigned)x->m, columns = (unsigned)x->n, ks = (unsigned)x->k;

    for (unsigned row = 0; row < rows; row++)
        for (unsigned k = 0; k < ks; k++) {
            double v = a[row * ks + k], *sum = c + row * columns;
            const double *with = b + k * columns;
            if (x->type[X_A] == E_F64)
                for (unsigned col = 0; col < columns; col++)
                    sum[col] = fma(v, with[col], sum[col]);
            else if (x->flags & MATRIX_XOR) /* of bits */
                for (unsigned col = 0; col < columns; col++)
                    sum[col] += v != with[col];
            else
                for (unsigned col = 0; col < columns; col++)
                    sum[col] += v * with[col];
        }
}

void ptx_mma(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    struct matrix x = ptx_matrix_of(w, i);
    const int32_t *d = w->kernel->module->lists + i->list, *a = d + x.nr[X_D], *b = a + x.nr[X_A], *c = b + x.nr[X_B];
    double as[ELEMENTS_MAX], bs[ELEMENTS_MAX / 2], sums[32 * 8];

    if (!ptx_whole_warp(w, &x, m))
        return;
    gather(w, &x, X_A, a, as);
    gather(w, &x, X_B, b, bs);
    gather(w, &x, X_C, c, sums);
    multiply(&x, as, bs, sums);
    scatter(w, &x, d, sums);
}
