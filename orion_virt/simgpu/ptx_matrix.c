/* SPDX-License-Identifier: Apache-2.0 */
/* Matrices between memory and the registers of a warp: ldmatrix, stmatrix, movmatrix, wmma.load, wmma.store. */
#include "ptx_matrix.h"

#define LINE_BYTES 16u               /* a row of an 8 x 8 matrix of 16-bit elements */

bool ptx_whole_warp(struct ptx_warp *w, const struct matrix *x, uint32_t m)
{
    if (m == ~0u)
        return true;
    ptx_fault(w, (unsigned)__builtin_ctz(m), PTX_ILLEGAL_INSTRUCTION,
              "%s needs all 32 threads of a warp, and %d are here: the others have ended, were never started, or went another way",
              ptx_matrix_name(x->kind), __builtin_popcount(m));
    return false;
}

static const int32_t *registers(const struct ptx_warp *w, const struct ptx_insn *i)
{
    return w->kernel->module->lists + i->list;
}

/* ---- 8 x 8 matrices of 16-bit elements ---- */

/* The row whose address a lane gives; NULL after a fault. */
static uint16_t *line(struct ptx_warp *w, const struct ptx_insn *i, unsigned lane)
{
    uint64_t address = REG(i->a)[lane] + (uint64_t)i->off;

    if (i->space == S_GENERIC && address >> 56 != PTX_SHARED_WINDOW >> 56) {
        ptx_fault(w, lane, PTX_ILLEGAL_ADDRESS, "address 0x%llx of %s is not one of shared memory", (unsigned long long)address,
                  ptx_matrix_name(ptx_matrix_of(w, i).kind));
        return NULL;
    }
    return ptx_at(w, lane, i->space, address, LINE_BYTES);
}

/* Element `e` of the two that lane `l` holds: its place among the 64. */
static unsigned place(unsigned l, unsigned e, bool trans)
{
    unsigned row = l / 4, col = l % 4 * 2 + e;

    return trans ? col * 8 + row : row * 8 + col;
}

/* Lanes 8k to 8k + 7 name the rows of matrix k, whose elements go to register k. */
void ptx_ldmatrix(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    struct matrix x = ptx_matrix_of(w, i);
    uint16_t all[4][64];
    bool trans = x.flags & MATRIX_TRANS;

    if (!ptx_whole_warp(w, &x, m))
        return;
    for (unsigned row = 0; row < 8u * i->nr; row++) {
        const uint16_t *from = line(w, i, row);
        if (!from)
            return;
        memcpy(&all[row / 8][row % 8 * 8], from, LINE_BYTES);
    }
    for (unsigned k = 0; k < i->nr; k++)
        EACH REG(registers(w, i)[k])[l] = all[k][place(l, 0, trans)] | (uint32_t)all[k][place(l, 1, trans)] << 16;
}

void ptx_stmatrix(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    struct matrix x = ptx_matrix_of(w, i);
    uint16_t all[4][64];
    bool trans = x.flags & MATRIX_TRANS;

    if (!ptx_whole_warp(w, &x, m))
        return;
    for (unsigned k = 0; k < i->nr; k++)
        EACH for (unsigned e = 0; e < 2; e++)
            all[k][place(l, e, trans)] = (uint16_t)(REG(registers(w, i)[k])[l] >> (16 * e));
    for (unsigned row = 0; row < 8u * i->nr; row++) {
        uint16_t *to = line(w, i, row);
        if (!to)
            return;
        memcpy(to, &all[row / 8][row % 8 * 8], LINE_BYTES);
    }
}

void ptx_movmatrix(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    struct matrix x = ptx_matrix_of(w, i);
    const int32_t *r = registers(w, i);
    uint16_t all[64];

    if (!ptx_whole_warp(w, &x, m))
        return;
    EACH for (unsigned e = 0; e < 2; e++)
        all[place(l, e, false)] = (uint16_t)(REG(r[1])[l] >> (16 * e));
    EACH REG(r[0])[l] = all[place(l, 0, true)] | (uint32_t)all[place(l, 1, true)] << 16;
}

/* ---- wmma: matrices in rows or columns that lie `stride` elements apart ---- */

struct stored {
    struct matrix x;
    enum matrix_role role;
    unsigned bits, each;             /* of an element; elements of a register */
    uint64_t base, stride;
    bool together;                   /* a register's elements are neighbours in memory */
};

/* How far apart rows or columns lie where the instruction does not say it. */
static uint64_t leading(const struct matrix *x, enum matrix_role role)
{
    bool col = x->flags & MATRIX_COL;

    return (uint64_t)(role == X_A ? (col ? x->m : x->k) : role == X_B ? (col ? x->k : x->n) : col ? x->m : x->n);
}

/* All lanes name the same matrix; false after a fault. */
static bool lanes_agree(struct ptx_warp *w, const struct ptx_insn *i, const struct stored *s)
{
    for (unsigned l = 1; l < PTX_LANES; l++)
        if (REG(i->a)[l] != REG(i->a)[0] || (i->b >= 0 && (uint32_t)REG(i->b)[l] != (uint32_t)REG(i->b)[0])) {
            ptx_fault(w, l, PTX_ILLEGAL_INSTRUCTION, "%s whose address or stride is another than that of the warp's first thread",
                      ptx_matrix_name(s->x.kind));
            return false;
        }
    return true;
}

static bool begin(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, struct stored *s)
{
    s->x = ptx_matrix_of(w, i);
    s->role = (enum matrix_role)s->x.role;
    if (!ptx_whole_warp(w, &s->x, m) || !lanes_agree(w, i, s))
        return false;
    s->bits = ptx_element_bits(s->x.type[s->role]);
    s->each = ptx_elements(s->x.type[s->role]);
    s->base = REG(i->a)[0] + (uint64_t)i->off;
    s->stride = i->b < 0 ? leading(&s->x, s->role) : (uint32_t)REG(i->b)[0];
    s->together = s->each > 1 && !(s->x.flags & MATRIX_COL) == (s->role != X_B);
    return true;
}

/* The memory of an element, or of a whole register; NULL after a fault. */
static void *memory(struct ptx_warp *w, const struct ptx_insn *i, const struct stored *s, unsigned lane, unsigned reg, unsigned element)
{
    struct matrix_spot at = ptx_matrix_spot(&s->x, s->role, lane, reg, element);
    uint64_t index = s->x.flags & MATRIX_COL ? at.col * s->stride + at.row : at.row * s->stride + at.col;

    return ptx_at(w, lane, i->space, s->base + index * s->bits / 8, s->together ? 4 : s->bits / 8);
}

void ptx_wmmaload(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    struct stored s;

    if (!begin(w, i, m, &s))
        return;
    for (unsigned r = 0; r < i->nr; r++)
        EACH {
            uint64_t v = 0, part = 0;
            for (unsigned e = 0; e < (s.together ? 1 : s.each); e++) {
                const void *from = memory(w, i, &s, l, r, e);
                if (!from)
                    return;
                memcpy(&part, from, s.together ? 4 : s.bits / 8);
                v |= part << (e * s.bits);
            }
            REG(registers(w, i)[r])[l] = v;
        }
}

void ptx_wmmastore(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    struct stored s;

    if (!begin(w, i, m, &s))
        return;
    for (unsigned r = 0; r < i->nr; r++)
        EACH for (unsigned e = 0; e < (s.together ? 1 : s.each); e++) {
            uint64_t v = REG(registers(w, i)[r])[l] >> (e * s.bits);
            void *to = memory(w, i, &s, l, r, e);
            if (!to)
                return;
            memcpy(to, &v, s.together ? 4 : s.bits / 8);
        }
}
