/* SPDX-License-Identifier: Apache-2.0 */
/* From a kernel's instructions to C: what the parts of the translator share. */
#ifndef SIM_PTX_TRANSLATE_H
#define SIM_PTX_TRANSLATE_H

#include <stdio.h>

#include "ptx_internal.h"

#define PTX_OPERANDS_MAX 40u
#define PTX_TEXT 160u        /* of an expression */

enum place {             /* where a slot lies */
    P_UNUSED,
    P_SCALAR,            /* within one loop over the lanes: a variable of it */
    P_ARRAY,             /* within one basic block: an array of 32 lanes */
    P_FRAME,             /* the warp's registers */
};
enum how {               /* what an instruction becomes */
    H_LANES,             /* part of a loop over the lanes */
    H_MEMORY,            /* a load or store, by the helpers of ptx_native.h */
    H_COPY,              /* an argument or result of a call */
    H_EXEC,              /* the interpreter's handler */
    H_BRANCH, H_CALL, H_RETURN, H_NOTHING,
    H_CONTROL,           /* interpreted by the run loop */
    H_WARP,              /* the interpreter's handler where all lanes are there, else H_CONTROL */
};
struct slot_info {
    uint8_t place, width;
    const struct ptx_constant *constant;
    int32_t block;       /* the only one that uses it */
    int32_t segment;     /* the only one */
    uint32_t at;         /* in the frame */
    bool defined;        /* before it is used, in its block */
    bool launch;         /* the same for all lanes and for ever */
    unsigned shape;      /* + 1, in the warp's; 0: it addresses nothing */
};
struct translator {
    const struct ptx_kernel *k;
    const struct ptx_module *m;
    uint8_t *leader, *reached;   /* for each instruction of the module */
    uint32_t *order;             /* the instruction that is written at a place; within a block */
    struct slot_info *slots;
    unsigned nr_slots, nr_r32, nr_r64;
    unsigned sites, nr_shapes;
    FILE *out;
    uint32_t pc;                 /* being written */
};

/* ---- ptx_operands.c ---- */
unsigned ptx_uses(const struct translator *t, const struct ptx_insn *i, int32_t *out);
unsigned ptx_defs(const struct translator *t, const struct ptx_insn *i, int32_t *out);
enum how ptx_how(const struct translator *t, const struct ptx_insn *i);
bool ptx_ends_block(const struct ptx_insn *i, enum how how);
bool ptx_is_register(const struct translator *t, int32_t slot); /* not a constant that stays */

/* ---- ptx_lanes.c: one instruction as an assignment in a loop over the lanes ---- */
bool ptx_lane_supported(const struct translator *t, const struct ptx_insn *i);
void ptx_lane_write(struct translator *t, const struct ptx_insn *i);
/* The name of a slot in a loop, or the text of its constant; `text` has 64 bytes. */
const char *ptx_lane_name(const struct translator *t, int32_t slot, char *text);

/* ---- ptx_order.c ---- */
bool ptx_order(struct translator *t); /* false: out of memory */

/* ---- ptx_shapes.c ---- */
void ptx_shapes_find(struct translator *t);
/* A value that is the same for all lanes of the launch, for ever, as an expression; `text` has PTX_TEXT bytes. */
bool ptx_one_for_all(const struct translator *t, int32_t slot, char *text);
/* After an instruction: what is known of the addresses in the registers that it defines. */
void ptx_shapes_follow(struct translator *t, const struct ptx_insn *i);
/* The shape of a register's addresses and the addresses, as arguments; `text` has PTX_TEXT bytes. */
const char *ptx_shape(struct translator *t, int32_t slot, char *text);

/* ---- ptx_translate.c ---- */
/* The array of 32 lanes that a register of the frame or block is; `text` has 64 bytes. */
const char *ptx_array(const struct translator *t, int32_t slot, char *text);
/* C for a kernel and what it calls, to be freed; NULL: it must be interpreted, `why` says why. */
char *ptx_translate(const struct ptx_kernel *k, struct translator *t, const char **why);
void ptx_translate_end(struct translator *t);

#endif
