/* SPDX-License-Identifier: Apache-2.0 */
/* From the words of one instruction to its handler, modifiers and operands. */
#include "ptx_internal.h"

/* How operands map to fields: D dest, d optional second dest, A B C E sources, P third source that may be negated. */
struct mnemonic {
    const char *name, *form;
    ptx_exec *exec, *fexec;          /* fexec: for floating point types */
    uint32_t flags;
    uint8_t op, mode;
};
static const struct mnemonic mnemonics[] = {
    { "add", "DAB", ptx_add, ptx_fadd, 0, 0, 0 }, { "sub", "DAB", ptx_sub, ptx_fsub, 0, 0, 0 },
    { "mul", "DAB", ptx_mul, ptx_fmul, 0, 0, 0 }, { "mad", "DABC", ptx_mad, ptx_fma, 0, 0, 0 },
    { "fma", "DABC", NULL, ptx_fma, 0, 0, 0 }, { "div", "DAB", ptx_div, ptx_fdiv, 0, 0, 0 },
    { "rem", "DAB", ptx_rem, NULL, 0, 0, 0 }, { "min", "DAB", ptx_min, ptx_fextreme, 0, 0, M_MIN },
    { "max", "DAB", ptx_max, ptx_fextreme, 0, 0, M_MAX }, { "neg", "DA", ptx_neg, ptx_fneg, 0, 0, 0 },
    { "abs", "DA", ptx_abs, ptx_fabs, 0, 0, 0 }, { "addc", "DAB", ptx_carry, NULL, F_CARRY, 0, M_ADD },
    { "subc", "DAB", ptx_carry, NULL, F_CARRY, 0, M_DEC }, { "madc", "DABC", ptx_madc, NULL, F_CARRY, 0, 0 },
    { "mul24", "DAB", ptx_mul24, NULL, 0, 0, 0 }, { "mad24", "DABC", ptx_mad24, NULL, 0, 0, 0 },
    { "sad", "DABC", ptx_sad, NULL, 0, 0, 0 }, { "and", "DAB", ptx_and, NULL, 0, 0, 0 },
    { "or", "DAB", ptx_or, NULL, 0, 0, 0 }, { "xor", "DAB", ptx_xor, NULL, 0, 0, 0 },
    { "not", "DA", ptx_not, NULL, 0, 0, 0 }, { "cnot", "DA", ptx_cnot, NULL, 0, 0, 0 },
    { "shl", "DAB", ptx_shl, NULL, 0, 0, 0 }, { "shr", "DAB", ptx_shr, NULL, 0, 0, 0 },
    { "shf", "DABC", ptx_shf, NULL, 0, 0, 0 }, { "popc", "DA", ptx_popc, NULL, 0, 0, 0 },
    { "clz", "DA", ptx_clz, NULL, 0, 0, 0 }, { "bfind", "DA", ptx_bfind, NULL, 0, 0, 0 },
    { "brev", "DA", ptx_brev, NULL, 0, 0, 0 }, { "bfe", "DABC", ptx_bfe, NULL, 0, 0, 0 },
    { "bfi", "DABCE", ptx_bfi, NULL, 0, 0, 0 }, { "prmt", "DABC", ptx_prmt, NULL, 0, 0, 0 },
    { "lop3", "DABCE", ptx_lop3, NULL, 0, 0, 0 }, { "dp4a", "DABC", ptx_dp4a, NULL, 0, 0, 0 },
    { "dp2a", "DABC", ptx_dp2a, NULL, 0, 0, 0 }, { "szext", "DAB", ptx_szext, NULL, 0, 0, 0 },
    { "bmsk", "DAB", ptx_bmsk, NULL, 0, 0, 0 }, { "fns", "DABC", ptx_fns, NULL, 0, 0, 0 },
    { "rcp", "DA", NULL, ptx_rcp, 0, 0, 0 }, { "sqrt", "DA", NULL, ptx_sqrt, 0, 0, 0 },
    { "rsqrt", "DA", NULL, ptx_rsqrt, 0, 0, 0 }, { "sin", "DA", NULL, ptx_sin, 0, 0, 0 },
    { "cos", "DA", NULL, ptx_cos, 0, 0, 0 }, { "lg2", "DA", NULL, ptx_lg2, 0, 0, 0 },
    { "ex2", "DA", NULL, ptx_ex2, 0, 0, 0 }, { "tanh", "DA", NULL, ptx_tanh, 0, 0, 0 },
    { "copysign", "DAB", NULL, ptx_copysign, 0, 0, 0 }, { "testp", "DA", NULL, ptx_testp, 0, 0, 0 },
    { "mov", "DA", ptx_mov, ptx_mov, 0, 0, 0 }, { "selp", "DABC", ptx_selp, ptx_selp, 0, 0, 0 },
    { "slct", "DABC", ptx_slct, ptx_slct, 0, 0, 0 }, { "setp", "DdABP", ptx_setp, ptx_setp, 0, 0, 0 },
    { "set", "DABP", ptx_set, ptx_set, 0, 0, 0 }, { "cvt", "DACE", ptx_cvt, ptx_cvt, 0, 0, 0 },
    { "cvta", "DA", ptx_cvta, NULL, 0, 0, 0 }, { "isspacep", "DA", ptx_isspacep, NULL, 0, 0, 0 },
    { "activemask", "D", ptx_activemask, NULL, 0, 0, 0 }, { "shfl", "DdABCE", ptx_shfl, NULL, 0, OP_WARPSYNC, 0 },
    { "vote", "DAB", ptx_vote, NULL, 0, OP_WARPSYNC, 0 }, { "match", "DdAB", ptx_match, NULL, 0, OP_WARPSYNC, 0 },
    { "redux", "DAB", ptx_redux, NULL, 0, OP_WARPSYNC, 0 }, { "elect", "DdA", ptx_elect, NULL, 0, OP_WARPSYNC, 0 },
    { "ret", "", NULL, NULL, 0, OP_RET, 0 }, { "exit", "", NULL, NULL, 0, OP_EXIT, 0 },
    { "trap", "", NULL, NULL, 0, OP_TRAP, 0 }, { "brkpt", "", NULL, NULL, 0, OP_TRAP, 0 },
    { "membar", "", NULL, NULL, 0, OP_NOP, 0 }, { "fence", "", NULL, NULL, 0, OP_NOP, 0 },
    { "alloca", "DAB", ptx_alloca, NULL, 0, 0, 0 }, { "stacksave", "D", ptx_stacksave, NULL, 0, 0, 0 },
    { "stackrestore", "A", ptx_stackrestore, NULL, 0, 0, 0 }, { "mapa", "DAB", ptx_mapa, NULL, 0, 0, 0 },
    { "getctarank", "DA", ptx_getctarank, NULL, 0, 0, 0 }, { "prefetch", "A", NULL, NULL, 0, OP_NOP, 0 },
    { "prefetchu", "A", NULL, NULL, 0, OP_NOP, 0 }, { "pmevent", "A", NULL, NULL, 0, OP_NOP, 0 },
    { "griddepcontrol", "", NULL, NULL, 0, OP_NOP, 0 }, { "setmaxnreg", "A", NULL, NULL, 0, OP_NOP, 0 },
    { "applypriority", "AB", NULL, NULL, 0, OP_NOP, 0 }, { "discard", "AB", NULL, NULL, 0, OP_NOP, 0 },
};

static const struct { const char *name; uint8_t value; } rounds[] = {
    { "rn", R_RN }, { "rz", R_RZ }, { "rm", R_RM }, { "rp", R_RP }, { "rni", R_RNI }, { "rzi", R_RZI },
    { "rmi", R_RMI }, { "rpi", R_RPI }, { "rna", R_RNA },
}, comparisons[] = {
    { "eq", C_EQ }, { "ne", C_NE }, { "lt", C_LT }, { "le", C_LE }, { "gt", C_GT }, { "ge", C_GE }, { "ls", C_LE },
    { "hs", C_GE }, { "equ", C_EQU }, { "neu", C_NEU }, { "ltu", C_LTU }, { "leu", C_LEU }, { "gtu", C_GTU },
    { "geu", C_GEU }, { "num", C_NUM }, { "nan", C_NAN },
}, modes[] = {
    { "and", M_AND }, { "or", M_OR }, { "xor", M_XOR }, { "add", M_ADD }, { "min", M_MIN }, { "max", M_MAX },
    { "inc", M_INC }, { "dec", M_DEC }, { "cas", M_CAS }, { "exch", M_EXCH }, { "popc", M_POPC }, { "up", M_UP },
    { "down", M_DOWN }, { "bfly", M_BFLY }, { "idx", M_IDX }, { "all", M_ALL }, { "any", M_ANY }, { "uni", M_UNI },
    { "ballot", M_BALLOT }, { "finite", M_FINITE }, { "infinite", M_INFINITE }, { "number", M_NUMBER },
    { "notanumber", M_NOTANUMBER }, { "normal", M_NORMAL }, { "subnormal", M_SUBNORMAL }, { "f4e", M_F4E },
    { "b4e", M_B4E }, { "rc8", M_RC8 }, { "ecl", M_ECL }, { "ecr", M_ECR }, { "rc16", M_RC16 },
}, shapes[] = {
    { "1d", G_1D }, { "2d", G_2D }, { "3d", G_3D }, { "a1d", G_A1D }, { "a2d", G_A2D }, { "cube", G_CUBE },
    { "acube", G_ACUBE },
}, spaces[] = {
    { "global", S_GLOBAL }, { "shared", S_SHARED }, { "shared::cta", S_SHARED }, { "shared::cluster", S_SHARED }, { "local", S_LOCAL },
    { "param", S_PARAM }, { "param::entry", S_PARAM }, { "param::func", S_PARAM }, { "const", S_CONST },
};
static const struct { const char *name; uint32_t flag; } flags[] = {
    { "ftz", F_FTZ }, { "sat", F_SAT }, { "hi", F_HI }, { "wide", F_WIDE }, { "cc", F_CC }, { "to", F_TO },
    { "NaN", F_NAN }, { "sync", F_SYNC }, { "clamp", F_CLAMP }, { "shiftamt", F_SHIFTAMT }, { "arrive", F_ARRIVE },
    { "red", F_RED }, { "warp", F_WARP }, { "l", F_LEFT }, { "abs", F_ABS }, { "zero", F_ZERO },
    { "relu", F_RELU }, { "xorsign", F_XORSIGN }, { "pack", F_PACK }, { "satfinite", F_FINITE },
};
/* Accuracy, memory order, scope and cache words that change nothing where everything is exact and coherent. */
static const char *const harmless[] = {
    "approx", "full", "lo", "r", "wrap", "volatile", "relaxed", "acquire", "release", "acq_rel", "sc", "weak", "gpu",
    "cta", "sys", "cluster", "nc", "ca", "cg", "cs", "cv", "lu", "wb", "wt", "aligned", "gl", "proxy", "async",
    "L1", "L2", "mmio", "alias", "b32x2", "launch_dependents", "wait", "global_cta", "one", "noftz", "unified",
    "base", "level", "b", "trap", "mbarrier_init", "mbarrier::complete_tx::bytes",
};
#define FIND(table, field, out) \
    for (size_t k = 0; k < sizeof(table) / sizeof(table[0]); k++) \
        if (strlen(table[k].name) == len && !memcmp(table[k].name, word, len)) { \
            out table[k].field; \
            return true; \
        }

static bool modifier(const char *word, size_t len, struct ptx_decoded *d)
{
    enum ptx_type type;

    if (d->nr_types < 4 && ptx_type_of(word, len, &type)) {
        d->types[d->nr_types++] = type;
        return true;
    }
    if (len == 2 && word[0] == 'v' && (word[1] == '2' || word[1] == '4' || word[1] == '8')) {
        d->vector = (uint8_t)(word[1] - '0');
        return true;
    }
    if (len == 15 && !memcmp(word, "shared::cluster", len))
        d->flags |= F_CLUSTER;
    FIND(rounds, value, d->round =)
    FIND(comparisons, value, d->cmp =)
    FIND(spaces, value, d->space =)
    FIND(modes, value, d->mode =)
    FIND(shapes, value, d->geometry =)
    FIND(flags, flag, d->flags |=)
    if (len > 4 && (!memcmp(word, "L1::", 4) || !memcmp(word, "L2::", 4) || !memcmp(word, "prox", 4)))
        return true;
    for (size_t k = 0; k < sizeof(harmless) / sizeof(harmless[0]); k++)
        if (strlen(harmless[k]) == len && !memcmp(harmless[k], word, len))
            return true;
    return false;
}

/* Splits "setp.lt.s32"; the name's length, 0 when a modifier is not known. */
static size_t split(struct ptx_parser *p, struct ptx_decoded *d)
{
    const char *text = p->insn_text, *end = text + p->insn_len, *dot = memchr(text, '.', p->insn_len);
    size_t name = dot ? (size_t)(dot - text) : p->insn_len;
    bool own = (name == 2 && !memcmp(text, "cp", 2)) || (name == 8 && !memcmp(text, "mbarrier", 8)) ||
               ptx_matrix_word(text, name);
    bool compares = name >= 3 && !memcmp(text, "set", 3);

    memset(d, 0, sizeof(*d));
    d->space = -1;
    while (dot && dot < end) {
        const char *next = memchr(dot + 1, '.', (size_t)(end - dot - 1));
        size_t len = (size_t)((next ? next : end) - dot - 1);
        if (compares && len == 2 && (!memcmp(dot + 1, "lo", 2) || !memcmp(dot + 1, "hi", 2))) {
            d->cmp = dot[1] == 'l' ? C_LT : C_GT; /* of unsigned numbers; elsewhere they are halves of a product */
        } else if (own) {
            modifier(dot + 1, len, d); /* words of their own: ptx_forms.c and ptx_matrix_forms.c know them */
        } else if (!modifier(dot + 1, len, d)) {
            ptx_fail(p, "instruction '%.*s' is not supported by the simulated GPU (modifier .%.*s)", (int)p->insn_len,
                     text, (int)len, dot + 1);
            return 0;
        }
        dot = next;
    }
    return name;
}

static bool name_is(struct ptx_parser *p, size_t len, const char *name)
{
    return strlen(name) == len && !memcmp(p->insn_text, name, len);
}

static void fill(struct ptx_insn *i, const struct ptx_decoded *d)
{
    i->type = (uint8_t)d->types[0];
    i->type2 = (uint8_t)(d->nr_types > 1 ? d->types[1] : d->types[0]);
    i->round = d->round;
    i->cmp = d->cmp;
    i->mode = d->mode;
    i->flags |= d->flags;
    i->space = (uint8_t)(d->space < 0 ? S_GENERIC : d->space);
}

static unsigned operands(struct ptx_parser *p, struct ptx_operand *o, unsigned most, enum ptx_type type)
{
    unsigned nr = 0;

    while (!p->failed && !ptx_accept(p, ";")) {
        if (nr == most) {
            ptx_fail(p, "too many operands for '%.*s'", (int)p->insn_len, p->insn_text);
            break;
        }
        ptx_operand(p, &o[nr++], type);
        if (!ptx_is(&p->lex, ";"))
            ptx_expect(p, ",");
    }
    return nr;
}

static void by_form(struct ptx_parser *p, struct ptx_insn *i, const char *form, const struct ptx_operand *o, unsigned nr)
{
    unsigned at = 0;

    for (; *form && at <= nr; form++) {
        const struct ptx_operand *x = &o[at];
        if (*form == 'd') {
            i->d2 = o[at - 1].slot2;
            continue;
        }
        if (at == nr)
            break;
        at++;
        if (x->kind == O_NAME)
            return ptx_fail(p, "'%.*s' in '%.*s' is defined in no module that was linked", (int)x->len, x->name, (int)p->insn_len,
                            p->insn_text);
        switch (*form) {
        case 'D': i->d = x->slot; break;
        case 'A': i->a = x->slot; break;
        case 'B': i->b = x->slot; break;
        case 'E': i->e = x->slot; break;
        default: i->c = x->slot; break;
        }
        if (x->negated)
            i->flags |= F_NEG_C;
    }
    if (at < nr)
        ptx_fail(p, "too many operands for '%.*s'", (int)p->insn_len, p->insn_text);
    else if (*form && *form != 'P' && *form != 'd' && i->op != OP_NOP && !(form[0] == 'B' && i->exec == ptx_vote) &&
             !(form[0] == 'E' && i->exec == ptx_shfl) && !(i->exec == ptx_cvt || i->exec == ptx_cvt2 || i->exec == ptx_cvt8 || i->exec == ptx_cvt2of2 ||
                                                           i->exec == ptx_cvtpack))
        ptx_fail(p, "'%.*s' lacks operands", (int)p->insn_len, p->insn_text);
}

static bool clock_read(struct ptx_parser *p, struct ptx_insn *i)
{
    struct ptx_lexer saved = p->lex;
    struct ptx_operand d;

    ptx_operand(p, &d, T_U64);
    if (!p->failed && ptx_accept(p, ",") &&
        (ptx_is(&p->lex, "%clock") || ptx_is(&p->lex, "%clock64") || ptx_is(&p->lex, "%clock_hi") ||
         ptx_is(&p->lex, "%globaltimer") || ptx_is(&p->lex, "%globaltimer_lo") || ptx_is(&p->lex, "%globaltimer_hi"))) {
        i->exec = ptx_clock;
        i->d = d.slot;
        i->mode = p->lex.text[p->lex.len - 1] == 'i' ? M_MAX : M_MIN; /* the high word, or as much as fits */
        ptx_next(&p->lex);
        ptx_expect(p, ";");
        return true;
    }
    p->lex = saved;
    return false;
}

/* Conversions of two or more sources, or of packed ones. */
static bool is_pair(unsigned type)
{
    return type == T_F16X2 || type == T_BF16X2 || type == T_E4M3X2 || type == T_E5M2X2 || type == T_U16X2 || type == T_S16X2;
}

/* NULL: no conversion that we know. */
static ptx_exec *conversion(const struct ptx_insn *i, unsigned nr)
{
    bool eighths = i->type == T_E4M3X2 || i->type == T_E5M2X2, from_eighths = i->type2 == T_E4M3X2 || i->type2 == T_E5M2X2;

    if (i->flags & F_PACK)
        return ptx_cvtpack;
    if (from_eighths)
        return i->type == T_F16X2 && nr == 2 ? ptx_cvt8 : NULL;
    if (eighths && i->type2 == T_F16X2)
        return nr == 2 ? ptx_cvt2of2 : NULL;
    if (is_pair(i->type))
        return nr == 3 && i->type2 == T_F32 ? ptx_cvt2 : NULL;
    return nr == 2 && !is_pair(i->type2) ? ptx_cvt : NULL;
}

static void ordinary(struct ptx_parser *p, struct ptx_insn *i, size_t len, const struct ptx_decoded *d,
                     const struct ptx_operand *o, unsigned nr)
{
    for (size_t k = 0; k < sizeof(mnemonics) / sizeof(mnemonics[0]); k++) {
        const struct mnemonic *n = &mnemonics[k];
        if (!name_is(p, len, n->name))
            continue;
        i->exec = ptx_is_float(d->types[0]) && n->fexec ? n->fexec : n->exec;
        i->op = n->op;
        i->flags |= n->flags;
        if (n->mode)
            i->mode = n->mode;
        if ((i->flags & F_CC) && (i->exec == ptx_add || i->exec == ptx_sub)) {
            i->mode = i->exec == ptx_add ? M_ADD : M_DEC;
            i->exec = ptx_carry;
        }
        if ((i->flags & F_CC) && i->exec == ptx_mad)
            i->exec = ptx_madc;
        if (d->types[0] == T_U16X2 || d->types[0] == T_S16X2)
            i->exec = i->exec == ptx_min || i->exec == ptx_max || (i->exec == ptx_add && (i->mode = M_ADD)) ? ptx_packed : NULL;
        if (i->exec == ptx_cvt && !(i->exec = conversion(i, nr)))
            break;
        if (i->exec == ptx_alloca) { /* gives its memory back when the function returns */
            p->module->needs_stack = true;
            p->f->framed = !p->f->entry;
        }
        if (ptx_is_float(d->types[0]) && !n->fexec && n->exec)
            break;
        if (!i->exec && (i->op == OP_EXEC || i->op == OP_WARPSYNC))
            break;
        return by_form(p, i, n->form, o, nr);
    }
    ptx_unsupported(p);
}

static void guard(struct ptx_parser *p, int32_t *pred, bool *negated)
{
    struct ptx_operand o;

    *pred = -1;
    *negated = false;
    if (!ptx_accept(p, "@"))
        return;
    ptx_operand(p, &o, T_PRED);
    *pred = o.slot;
    *negated = o.negated;
}

/* mov of a variable's address plus an offset */
static void offset_move(struct ptx_parser *p, struct ptx_insn *i, const struct ptx_operand *o)
{
    i->exec = ptx_add;
    i->type = T_U64;
    i->d = o[0].slot;
    i->a = o[1].slot;
    i->b = ptx_constant_slot(p, FILL_VALUE, (uint64_t)o[1].off);
    *ptx_emit(p) = *i;
    p->insn_line = 0;
}

void ptx_instruction(struct ptx_parser *p)
{
    struct ptx_operand o[6];
    struct ptx_insn insn = { .line = p->lex.line, .pred = -1, .d = -1, .d2 = -1, .a = -1, .b = -1, .c = -1, .e = -1,
                             .list = -1 };
    struct ptx_decoded d;
    size_t len;

    guard(p, &insn.pred, &insn.pred_neg);
    insn.line = p->insn_line = p->lex.line;
    p->insn_text = p->lex.text;
    p->insn_len = p->lex.len;
    if (p->failed)
        return;
    if (p->lex.kind != K_NAME || p->lex.text[0] == '.')
        return ptx_fail(p, "unexpected '%.*s'", (int)p->lex.len, p->lex.text);
    len = split(p, &d);
    if (!len)
        return;
    ptx_next(&p->lex);
    if (name_is(p, len, "call"))
        return (void)(p->insn_line = 0), ptx_call(p, insn.pred, insn.pred_neg);
    fill(&insn, &d);
    if (!(name_is(p, len, "mov") && clock_read(p, &insn))) {
        unsigned nr = operands(p, o, 6, name_is(p, len, "slct") || name_is(p, len, "set") ? d.types[0]
                                        : name_is(p, len, "cvt") ? insn.type2 : d.types[0]);
        if (!p->failed && nr == 2 && o[1].kind == O_SLOT && o[1].off)
            return offset_move(p, &insn, o);
        if (!p->failed && !ptx_irregular(p, &insn, len, &d, o, nr))
            ordinary(p, &insn, len, &d, o, nr);
    }
    if (!p->failed)
        *ptx_emit(p) = insn;
    p->insn_line = 0;
}
