/* SPDX-License-Identifier: Apache-2.0 */
/* The interpreter's own view of a module: instructions over numbered slots, warps of 32 lanes. */
#ifndef SIM_PTX_INTERNAL_H
#define SIM_PTX_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "ptx.h"

#define PTX_HIDDEN __attribute__((visibility("hidden")))
#define PTX_LANES 32u
#define PTX_NAN64 0x7fffffffffffffffull  /* what a double operation gives for NaN, as the card does for float */
/* Generic addresses of the memories that are not the host's: beyond what a host address can be. */
#define PTX_SHARED_WINDOW (1ull << 56)
#define PTX_LOCAL_WINDOW (2ull << 56)
#define PTX_PARAM_WINDOW (3ull << 56)
#define PTX_CODE_WINDOW (4ull << 56)  /* + 16 * (index of a function + 1) */
#define PTX_ANY_FUNCTION (~0u)
#define PTX_STACK_BYTES 32768u        /* of a lane, where functions need frames */

enum ptx_type {
    T_NONE, T_U8, T_U16, T_U32, T_U64, T_S8, T_S16, T_S32, T_S64, T_B8, T_B16, T_B32, T_B64, T_B128,
    T_F16, T_BF16, T_F16X2, T_BF16X2, T_F32, T_F64, T_PRED, T_U16X2, T_S16X2, T_TF32, T_E4M3X2, T_E5M2X2,
};
enum ptx_space { S_GENERIC, S_GLOBAL, S_SHARED, S_LOCAL, S_PARAM, S_CONST };
enum ptx_round { R_NONE, R_RN, R_RZ, R_RM, R_RP, R_RNI, R_RZI, R_RMI, R_RPI, R_RNA };
enum ptx_cmp {
    C_NONE, C_EQ, C_NE, C_LT, C_LE, C_GT, C_GE, C_EQU, C_NEU, C_LTU, C_LEU, C_GTU, C_GEU, C_NUM, C_NAN,
};
/* Also the operations of atom, red, redux; modes of shfl, vote, match. */
enum ptx_mode {
    M_NONE, M_AND, M_OR, M_XOR, M_ADD, M_MIN, M_MAX, M_INC, M_DEC, M_CAS, M_EXCH, M_POPC,
    M_UP, M_DOWN, M_BFLY, M_IDX, M_ALL, M_ANY, M_UNI, M_BALLOT,
    M_ABSDIFF, M_AVERAGE, M_FINITE, M_INFINITE, M_NUMBER, M_NOTANUMBER, M_NORMAL, M_SUBNORMAL, /* video, testp */
    M_F4E, M_B4E, M_RC8, M_ECL, M_ECR, M_RC16, /* prmt */
    M_INIT, M_INVAL, M_ARRIVE, M_ARRIVE_DROP, M_PENDING, M_TEST, M_EXPECT_TX, M_COMPLETE_TX, /* mbarrier */
};
enum ptx_flag {
    F_FTZ = 1, F_SAT = 2, F_HI = 4, F_WIDE = 8, F_CC = 16, F_NEG_C = 32, F_TO = 64, F_NAN = 128, F_SYNC = 256,
    F_CLAMP = 512, F_SHIFTAMT = 1024, F_ARRIVE = 2048, F_RED = 4096, F_WARP = 8192, F_LEFT = 16384, F_CARRY = 32768,
    F_ABS = 1 << 16, F_NORETURN = 1 << 17, F_ZERO = 1 << 18, F_REFERENCE = 1 << 19,
    F_RELU = 1 << 20, F_XORSIGN = 1 << 21, F_PACK = 1 << 22, F_SUM = 1 << 23, F_PARITY = 1 << 24,
    F_EXPECT_TX = 1 << 25, F_CLUSTER = 1 << 26, F_FINITE = 1 << 27,
};
enum ptx_geometry { G_NONE, G_1D, G_2D, G_3D, G_A1D, G_A2D, G_CUBE, G_ACUBE }; /* of textures and surfaces */
union ptx_value {
    uint32_t u;
    float f;
};
enum ptx_op { /* what the run loop does itself; all others are OP_EXEC */
    OP_EXEC, OP_BRA, OP_BRX, OP_CALL, OP_RET, OP_EXIT, OP_BAR, OP_TRAP, OP_NOP, OP_WARPSYNC,
    OP_CLUSTER, /* barrier.cluster: arrives with M_ARRIVE, else waits */
    OP_YIELD, /* executes, then lets others run: what it asked for may be theirs to do */
};

struct ptx_warp;
struct ptx_insn;
typedef void ptx_exec(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m);

/* Every operand is a slot: a register, or a slot that holds a constant or special register. */
struct ptx_insn {
    ptx_exec *exec;
    uint8_t op, type, type2, round, cmp, mode, space, nr; /* nr: vector elements, branch targets */
    uint8_t geometry;                /* of tex, suld, sust, whose list has data and coordinates; mode: surface data */
    bool pred_neg;
    uint32_t flags, line;
    int32_t pred, d, d2, a, b, c, e; /* slots, -1: none */
    int32_t list;                    /* in module->lists, -1: none */
    int64_t off;
    uint32_t target;
};

enum ptx_fill { /* what a constant slot is filled with when a warp starts */
    FILL_VALUE, FILL_LOCAL, FILL_SHARED, FILL_DYNAMIC, FILL_TID, FILL_NTID, FILL_CTAID, FILL_NCTAID, FILL_LANE,
    FILL_WARP, FILL_NWARP, FILL_MASK_EQ, FILL_MASK_LT, FILL_MASK_LE, FILL_MASK_GT, FILL_MASK_GE, FILL_DYNAMIC_BYTES,
    FILL_WORKSPACE, FILL_FRAME, FILL_CLUSTER_CTAID, FILL_CLUSTER_NCTAID, FILL_CLUSTER_RANK, FILL_CLUSTER_BLOCKS, FILL_CLUSTERID,
    FILL_NCLUSTERID, FILL_CLUSTERED,
};
struct ptx_constant {
    int32_t slot;
    uint32_t fill;
    uint64_t value;                  /* constant, offset, or dimension */
};
struct ptx_variable {                /* of a parameter list or of memory */
    char *name;
    uint64_t address, bytes;
    uint32_t space;
    bool dynamic;                    /* extern .shared array */
    bool reference;                  /* .texref */
    bool managed;                    /* .attribute(.managed) */
    bool visible;                    /* to other units */
    unsigned align, unit, element;   /* element: bytes of one, of an array */
};
struct ptx_kernel {                  /* an entry or a function */
    struct ptx_module *module;
    char *name;
    bool entry, defined, visible, address_taken;
    bool framed;                     /* each activation has its own registers and memory: it may call itself */
    unsigned unit, target;
    uint32_t first, end;             /* instructions */
    unsigned first_slot;             /* of a function; its parameters and results, and its body's variables up to local_bytes: */
    unsigned first_local, end_local, first_body;
    uint8_t *widths;                 /* of slots from first_slot on: 0 predicate, 32 or 64 bits */
    struct ptx_variable *params, *results;
    unsigned nr_params, nr_results;
    size_t params_bytes;
    unsigned slots, local_bytes, shared_bytes, max_threads;
    unsigned cluster[3];             /* blocks of one; 0: it does not say */
    bool clustered;                  /* for clusters only */
    int32_t return_slot;
    struct ptx_constant *constants;
    unsigned nr_constants;
    struct ptx_translation *translation;
    int32_t first_list, end_list;
    unsigned *calls, nr_calls;       /* indexes of functions, PTX_ANY_FUNCTION: through a pointer */
    struct ptx_kernel *alias;        /* runs instead */
};
struct ptx_module {
    struct ptx_insn *code;
    unsigned nr_code, room_code;
    int32_t *lists;
    int32_t nr_lists;
    struct ptx_kernel **functions;
    unsigned nr_functions;
    struct ptx_variable *variables;
    unsigned nr_variables;
    /* What .func bodies and module scope use; kernels' own slots and offsets follow after it. */
    unsigned slots, local_bytes, shared_bytes;
    unsigned shared_used;            /* shared_bytes before it was aligned for what kernels add */
    bool needs_stack;
    struct ptx_heap *heap;           /* of the device's malloc */
    struct ptx_memory memory;
};

/* ---- ptx_lex.c ---- */
enum ptx_token { K_END, K_NAME, K_NUMBER, K_FLOAT, K_STRING, K_PUNCT };
struct ptx_lexer {
    const char *p, *end;
    uint32_t line;
    enum ptx_token kind;
    const char *text;
    size_t len;
    uint64_t value;                  /* of a number; bits of a double for K_FLOAT */
    bool single;                     /* K_FLOAT written as 0f...: value holds 32 bits */
};
PTX_HIDDEN void ptx_next(struct ptx_lexer *l);
PTX_HIDDEN bool ptx_is(const struct ptx_lexer *l, const char *text);
PTX_HIDDEN void ptx_split_word(struct ptx_lexer *l); /* ".reg.b32" is two words */

/* ---- ptx_parse.c, ptx_body.c, ptx_decode.c ---- */
struct ptx_symbol {
    const char *name;
    size_t len;
    int32_t slot;                    /* of a register, else -1 */
    unsigned count;                  /* name<count>, 0: one register */
    struct ptx_variable variable;
};
struct ptx_label {
    const char *name;
    size_t len;
    uint32_t pc;
    int32_t list;                    /* .branchtargets, else -1 */
    uint8_t nr;
    bool known;
};
enum { LINK_EXTERN = 1, LINK_VISIBLE = 2, LINK_WEAK = 4 };
struct ptx_deferred {                /* read when all names of all units are known */
    struct ptx_lexer lex;            /* stands at an initialiser's first word or a body's brace */
    unsigned unit, variable;
    enum ptx_type type;
    struct ptx_kernel *f;            /* NULL: a variable's initialiser */
};
struct ptx_parser {
    struct ptx_lexer lex;
    unsigned unit;                   /* a text that begins with .version; several may be linked */
    unsigned target;                 /* its .target: 75 for sm_75 */
    struct ptx_deferred *deferred;
    unsigned nr_deferred;
    struct ptx_module *module;
    struct ptx_kernel *f;            /* being parsed */
    struct ptx_symbol *symbols;
    unsigned nr_symbols;
    struct ptx_label *labels;
    unsigned nr_labels;
    const char *insn_text;           /* of the instruction being decoded, for errors */
    size_t insn_len;
    uint32_t insn_line;              /* 0: not in an instruction */
    char *error;
    size_t error_bytes;
    bool failed;
    unsigned depth;       /* of scopes in scopes */
};
enum ptx_operand_kind { O_SLOT, O_VECTOR, O_ADDRESS, O_NAME };
struct ptx_operand {
    enum ptx_operand_kind kind;
    int32_t slot, slot2;             /* slot2: after '|' */
    int32_t list;
    uint8_t nr;
    int64_t off;
    uint64_t value;                  /* of an immediate operand */
    bool negated;
    int space;                       /* of a named variable in an address, -1: unknown */
    unsigned element;                /* of a named variable: bytes */
    const char *name;                /* O_NAME: label or function */
    size_t len;
    int32_t at_list;                 /* of an address with coordinates, else -1 */
    uint8_t at_nr;
};
PTX_HIDDEN void ptx_fail(struct ptx_parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
PTX_HIDDEN bool ptx_accept(struct ptx_parser *p, const char *text);
PTX_HIDDEN void ptx_expect(struct ptx_parser *p, const char *text);
PTX_HIDDEN void *ptx_grow(struct ptx_parser *p, void *array, unsigned nr, size_t element);
PTX_HIDDEN struct ptx_insn *ptx_emit(struct ptx_parser *p);
PTX_HIDDEN int32_t ptx_new_slot(struct ptx_parser *p, unsigned width); /* bits, 0: predicate */
PTX_HIDDEN int32_t ptx_constant_slot(struct ptx_parser *p, enum ptx_fill fill, uint64_t value);
PTX_HIDDEN int32_t ptx_add_list(struct ptx_parser *p, int32_t value);
PTX_HIDDEN struct ptx_label *ptx_label(struct ptx_parser *p, const char *name, size_t len);
PTX_HIDDEN struct ptx_symbol *ptx_symbol(struct ptx_parser *p, const char *name, size_t len, int32_t *slot);
PTX_HIDDEN void ptx_operand(struct ptx_parser *p, struct ptx_operand *o, enum ptx_type type);
PTX_HIDDEN void ptx_body(struct ptx_parser *p);
PTX_HIDDEN void ptx_instruction(struct ptx_parser *p);
PTX_HIDDEN bool ptx_type_of(const char *name, size_t len, enum ptx_type *type); /* without the dot */
PTX_HIDDEN unsigned ptx_bytes(enum ptx_type type);
PTX_HIDDEN void ptx_variable(struct ptx_parser *p, enum ptx_space space, uint32_t linkage);
PTX_HIDDEN struct ptx_variable *ptx_global(struct ptx_parser *p, const char *name, size_t len);
PTX_HIDDEN void ptx_initialise(struct ptx_parser *p, struct ptx_variable *v, enum ptx_type type);
PTX_HIDDEN unsigned ptx_place(unsigned *used, const struct ptx_variable *v); /* its offset, aligned */
PTX_HIDDEN void ptx_defer(struct ptx_parser *p, struct ptx_deferred what);
PTX_HIDDEN uint64_t ptx_code_address(struct ptx_module *m, unsigned index);
PTX_HIDDEN void ptx_declaration(struct ptx_parser *p, struct ptx_variable *v, enum ptx_type *type);
PTX_HIDDEN struct ptx_kernel *ptx_function(struct ptx_parser *p, const char *name, size_t len, unsigned *index);
PTX_HIDDEN void ptx_call(struct ptx_parser *p, int32_t pred, bool pred_neg);

/* ---- ptx_run.c ---- */
enum ptx_lane { L_RUN, L_BARRIER, L_SYNC, L_CLUSTER, L_EXIT };
struct ptx_block;
struct ptx_warp {
    struct ptx_block *block;
    const struct ptx_kernel *kernel;
    uint64_t *regs;                  /* slots of 32 lanes */
    uint8_t *local;                  /* local_bytes for each lane */
    uint32_t pc[PTX_LANES];
    uint8_t state[PTX_LANES], barrier[PTX_LANES];
    uint32_t arrivals[PTX_LANES];    /* at its cluster's barrier */
    uint32_t at;                     /* instruction being executed */
    uint32_t cc;                     /* carry flags of the lanes */
    uint32_t active;                 /* lanes of the group that runs */
    uint32_t alive;
    unsigned index, local_bytes;
    bool filled;                     /* its constants */
    bool yielded;                    /* asked for others to run */
    bool stuck;                      /* all lanes wait for others: the first instruction of a warp goes on without */
    bool rotate;                     /* next time run another group, lest one spins for ever */
    uint32_t last;                   /* where the group was that ran until then */
    struct n_warp *native;           /* where translated code runs */
    uint32_t sp[PTX_LANES], fp[PTX_LANES]; /* in local memory: end of the stack, start of the newest frame */
};
struct ptx_block {
    const struct ptx_launch *launch;
    const struct ptx_memory *memory;
    const struct ptx_kernel *kernel;
    struct ptx_block *cluster;       /* its cluster's blocks, nr_cluster, by rank: one thread of the host runs them in turns */
    unsigned nr_cluster, rank, cluster_ctaid[3], clusterid[3];
    unsigned ctaid[3], nr_warps, threads;
    struct ptx_warp *warps;
    uint8_t *shared;
    size_t shared_bytes;
    unsigned dynamic_off, arrived[16];
    uint64_t workspace;              /* of a cooperative grid: u32 bytes, u32 barrier */
    uint64_t deadline;               /* second of the host's clock, 0: none */
    struct { uint64_t start, bytes; } seen[4]; /* memory that was found accessible */
    unsigned seen_next;
    const struct ptx_native *native; /* NULL: interpreted */
    uint64_t executed;               /* instructions of warps since it was last told */
    enum ptx_status status;
    char *error;
    size_t error_bytes;
    bool done;
};
PTX_HIDDEN void ptx_fault(struct ptx_warp *w, unsigned lane, enum ptx_status s, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
PTX_HIDDEN bool ptx_run_warp(struct ptx_warp *w); /* false: every lane waits or has ended */
PTX_HIDDEN void ptx_release_barriers(struct ptx_block *b);

PTX_HIDDEN uint32_t ptx_lanes_in(const struct ptx_warp *w, enum ptx_lane state);
PTX_HIDDEN uint32_t ptx_next_meeting(const struct ptx_warp *w, uint32_t m, uint32_t pc);

/* ---- ptx_native.c ---- */
PTX_HIDDEN void ptx_native_begin(struct ptx_kernel *k);
PTX_HIDDEN void ptx_native_end(struct ptx_kernel *k);
PTX_HIDDEN void ptx_native_consider(struct ptx_kernel *k, enum ptx_translate how, uint64_t instructions);
PTX_HIDDEN void ptx_native_adopt(struct ptx_block *b, bool fresh); /* fresh: its warps are at their start */
PTX_HIDDEN void ptx_native_release(struct ptx_warp *w);
PTX_HIDDEN void ptx_native_results(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m);
/* Runs a group of lanes until they part or wait. True: an instruction must be interpreted first, for the lanes in *mask. */
PTX_HIDDEN bool ptx_native_run(struct ptx_warp *w, uint32_t m, uint32_t pc, unsigned *budget, uint32_t *at, uint32_t *mask);

/* ---- ptx_cluster.c ---- */
PTX_HIDDEN void ptx_meet_cluster(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m);
PTX_HIDDEN void ptx_release_cluster(struct ptx_block *blocks, unsigned nr);
/* Whose shared memory an address in it names, which becomes an offset there; NULL: that of no block of the cluster. */
PTX_HIDDEN struct ptx_block *ptx_shared_owner(struct ptx_block *b, uint64_t *address);
/* The same place in the shared memory of the block of that rank. */
PTX_HIDDEN uint64_t ptx_shared_of(const struct ptx_block *b, uint32_t rank, uint64_t address);

/* ---- ptx_call.c ---- */
PTX_HIDDEN void ptx_enter(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, uint32_t pc);
PTX_HIDDEN void ptx_leave(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m);

/* ---- ptx_heap.c ---- */
PTX_HIDDEN void ptx_heap_drop(struct ptx_module *m);

/* ---- ptx_forms.c ---- */
struct ptx_decoded {
    enum ptx_type types[4];
    unsigned nr_types;
    uint8_t round, cmp, mode, vector, geometry;
    int space;
    uint32_t flags;
};
/* Instructions that the table cannot say; false: an ordinary one. */
PTX_HIDDEN bool ptx_irregular(struct ptx_parser *p, struct ptx_insn *i, size_t len, const struct ptx_decoded *d,
                              struct ptx_operand *o, unsigned nr);
PTX_HIDDEN bool ptx_is_float(enum ptx_type t);
PTX_HIDDEN void ptx_unsupported(struct ptx_parser *p);
PTX_HIDDEN bool ptx_is_predicate(const struct ptx_parser *p, int32_t slot);

/* ---- ptx_matrix_forms.c: their list has `mode` results, then the registers that they read ---- */
PTX_HIDDEN bool ptx_matrix_word(const char *text, size_t len);
PTX_HIDDEN void ptx_matrix(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o, unsigned nr);
PTX_HIDDEN bool ptx_is_matrix(const struct ptx_insn *i);

/* ---- ptx_memory.c ---- */
PTX_HIDDEN void *ptx_at(struct ptx_warp *w, unsigned lane, enum ptx_space space, uint64_t address, unsigned bytes);

/* ---- ptx_texture.c ---- */
PTX_HIDDEN unsigned ptx_coordinates(enum ptx_geometry g); /* registers that say where, layer included */

/* Instructions, by file. */
#define PTX_EXEC(name) PTX_HIDDEN void ptx_##name(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
PTX_EXEC(add); PTX_EXEC(sub); PTX_EXEC(mul); PTX_EXEC(mad); PTX_EXEC(div); PTX_EXEC(rem); PTX_EXEC(min); PTX_EXEC(max);
PTX_EXEC(neg); PTX_EXEC(abs); PTX_EXEC(and); PTX_EXEC(or); PTX_EXEC(xor); PTX_EXEC(not); PTX_EXEC(cnot); PTX_EXEC(shl);
PTX_EXEC(shr); PTX_EXEC(popc); PTX_EXEC(clz); PTX_EXEC(bfind); PTX_EXEC(brev); PTX_EXEC(bfe); PTX_EXEC(bfi);
PTX_EXEC(prmt); PTX_EXEC(lop3); PTX_EXEC(shf); PTX_EXEC(sad); PTX_EXEC(mul24); PTX_EXEC(mad24); PTX_EXEC(dp4a);
PTX_EXEC(carry); PTX_EXEC(madc); PTX_EXEC(video); PTX_EXEC(packed); PTX_EXEC(dp2a); PTX_EXEC(szext); PTX_EXEC(bmsk);
PTX_EXEC(fns); PTX_EXEC(cvt2); PTX_EXEC(cvt8); PTX_EXEC(cvt2of2); PTX_EXEC(cvtpack);
PTX_EXEC(fadd); PTX_EXEC(fsub); PTX_EXEC(fmul); PTX_EXEC(fdiv); PTX_EXEC(fma); PTX_EXEC(fextreme);
PTX_EXEC(fneg); PTX_EXEC(fabs); PTX_EXEC(rcp); PTX_EXEC(sqrt); PTX_EXEC(rsqrt); PTX_EXEC(sin); PTX_EXEC(cos);
PTX_EXEC(lg2); PTX_EXEC(ex2); PTX_EXEC(tanh); PTX_EXEC(copysign); PTX_EXEC(testp);
PTX_EXEC(mov); PTX_EXEC(pack); PTX_EXEC(unpack); PTX_EXEC(selp); PTX_EXEC(slct); PTX_EXEC(setp); PTX_EXEC(set);
PTX_EXEC(mapa); PTX_EXEC(getctarank); PTX_EXEC(cvt); PTX_EXEC(cvta); PTX_EXEC(isspacep); PTX_EXEC(clock); PTX_EXEC(activemask);
PTX_EXEC(ld); PTX_EXEC(st); PTX_EXEC(atom); PTX_EXEC(pcopy); PTX_EXEC(presult); PTX_EXEC(vprintf);
PTX_EXEC(alloca); PTX_EXEC(stacksave); PTX_EXEC(stackrestore); PTX_EXEC(malloc); PTX_EXEC(free);
PTX_EXEC(cpasync); PTX_EXEC(cpbulk); PTX_EXEC(mbarrier); PTX_EXEC(stasync); PTX_EXEC(redasync);
PTX_EXEC(ldmatrix); PTX_EXEC(stmatrix); PTX_EXEC(movmatrix); PTX_EXEC(mma); PTX_EXEC(wmmaload); PTX_EXEC(wmmastore);
PTX_EXEC(tex); PTX_EXEC(suld); PTX_EXEC(sust);
PTX_EXEC(assertfail); PTX_EXEC(setcondition); PTX_EXEC(shfl); PTX_EXEC(vote); PTX_EXEC(match); PTX_EXEC(redux); PTX_EXEC(elect);

#define EACH for (unsigned l = 0; l < PTX_LANES; l++) if (m >> l & 1)
#define REG(slot) (w->regs + (size_t)(slot) * PTX_LANES)

/* Which slot says what lanes an instruction of the warp waits for; -1: none. */
static inline int32_t ptx_mask_slot(const struct ptx_insn *i)
{
    return i->exec == ptx_shfl || i->e >= 0 ? i->e : i->exec == ptx_elect || !i->exec ? i->a : i->b;
}

/* .relu of a whole number. */
static inline int64_t ptx_relu(const struct ptx_insn *i, int64_t v) { return i->flags & F_RELU && v < 0 ? 0 : v; }
static inline float ptx_f32(uint64_t v) { uint32_t u = (uint32_t)v; float f; memcpy(&f, &u, 4); return f; }
static inline uint64_t ptx_u32(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
static inline double ptx_f64(uint64_t v) { double f; memcpy(&f, &v, 8); return f; }
static inline uint64_t ptx_u64(double f) { uint64_t u; memcpy(&u, &f, 8); return u; }

/* ---- ptx_small.c ---- */
typedef double ptx_combine(double x, double y, double z, const struct ptx_insn *i);
PTX_HIDDEN float ptx_from_half(uint16_t h);
PTX_HIDDEN uint16_t ptx_to_half(double v, enum ptx_round round);
PTX_HIDDEN bool ptx_is_small(unsigned type);
PTX_HIDDEN double ptx_from_small(uint64_t v, unsigned type); /* its low element */
PTX_HIDDEN uint32_t ptx_to_small(double v, unsigned type, unsigned round);
PTX_HIDDEN uint32_t ptx_cvt_small(double v, const struct ptx_insn *i); /* as cvt says: rounded, and with .satfinite finite */
PTX_HIDDEN double ptx_add_odd(double x, double y);
PTX_HIDDEN void ptx_small(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, ptx_combine *f);

#endif
