/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix instructions of a whole warp: what their words say, and where the elements of a fragment lie. */
#ifndef SIM_PTX_MATRIX_H
#define SIM_PTX_MATRIX_H

#include "ptx_internal.h"

enum matrix_kind { X_LDMATRIX, X_STMATRIX, X_MOVMATRIX, X_MMA, X_WMMA_LOAD, X_WMMA_STORE, X_WMMA_MMA };
enum element { E_NONE, E_F16, E_BF16, E_TF32, E_F32, E_F64, E_S8, E_U8, E_S4, E_U4, E_B1, E_E4M3, E_E5M2, E_S32 };
enum matrix_role { X_D, X_A, X_B, X_C, X_ROLES };
enum { MATRIX_TRANS = 1, MATRIX_SATFINITE = 2, MATRIX_XOR = 4, MATRIX_AND = 8, MATRIX_POPC = 16, MATRIX_COL = 32 };

/* Of one instruction; it lies in the module's lists behind the instruction's registers, so all members are int32_t. */
struct matrix {
    int32_t kind, flags;
    int32_t m, n, k;
    int32_t type[X_ROLES];               /* enum element; of a load or store only that of `role` */
    int32_t nr[X_ROLES];                 /* registers of each lane */
    int32_t role;                        /* of a load or store */
};
#define MATRIX_WORDS (sizeof(struct matrix) / sizeof(int32_t))

struct matrix_spot {
    unsigned row, col;
};

static inline struct matrix ptx_matrix_of(const struct ptx_warp *w, const struct ptx_insn *i)
{
    struct matrix x;

    memcpy(&x, w->kernel->module->lists + i->list + i->nr, sizeof(x));
    return x;
}

/* ---- ptx_matrix_forms.c ---- */
PTX_HIDDEN const char *ptx_matrix_name(int32_t kind);
/* How many registers of a lane hold a matrix of this role. */
PTX_HIDDEN unsigned ptx_matrix_registers(const struct matrix *x, enum matrix_role role);

/* ---- ptx_mma.c ---- */
PTX_HIDDEN unsigned ptx_element_bits(int32_t type);
/* Of one register. */
PTX_HIDDEN unsigned ptx_elements(int32_t type);
/* Where an element of a lane's register lies in the matrix. */
PTX_HIDDEN struct matrix_spot ptx_matrix_spot(const struct matrix *x, enum matrix_role role, unsigned lane, unsigned reg,
                                              unsigned element);

/* ---- ptx_matrix.c ---- */
/* False, and the fault is reported: not all lanes of the warp are there. */
PTX_HIDDEN bool ptx_whole_warp(struct ptx_warp *w, const struct matrix *x, uint32_t m);

#endif
