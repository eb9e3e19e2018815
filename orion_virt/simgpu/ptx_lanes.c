/* SPDX-License-Identifier: Apache-2.0 */
/* One instruction as C for one lane; a compiler makes vector code of the loop around. What has no entry is interpreted. */
#include <inttypes.h>
#include <stdlib.h>

#include "ptx_translate.h"

static bool is_32(unsigned type)
{
    return type == T_U32 || type == T_S32 || type == T_B32 || type == T_U16 || type == T_S16 || type == T_B16;
}

static bool is_whole(unsigned type)
{
    return is_32(type) || type == T_U64 || type == T_S64 || type == T_B64;
}

static bool is_sign(unsigned type)
{
    return type == T_S8 || type == T_S16 || type == T_S32 || type == T_S64;
}

static bool nearest(const struct ptx_insn *i)
{
    return i->round == R_NONE || i->round == R_RN;
}

static bool single_or_double(const struct ptx_insn *i)
{
    return (i->type == T_F32 || i->type == T_F64) && nearest(i);
}

static bool converts(const struct ptx_insn *i)
{
    bool from = is_whole(i->type2) || (i->type2 >= T_U8 && i->type2 <= T_B64);

    if (i->flags & (F_SAT | F_RELU | F_ABS | F_PACK))
        return false;
    if (from && i->type >= T_U8 && i->type <= T_B64)
        return true;
    if (from) /* exact, or rounded once by the machine's own conversion */
        return (i->type == T_F32 || i->type == T_F64) && nearest(i);
    if (i->type2 == T_F32 && (i->type == T_S32 || i->type == T_U32))
        return i->round == R_RZI;
    return (i->type2 == T_F32 && i->type == T_F64) || (i->type2 == T_F64 && i->type == T_F32 && nearest(i));
}

static bool compares(const struct ptx_insn *i)
{
    return (is_whole(i->type) || i->type == T_F32 || i->type == T_F64) && i->cmp != C_NONE;
}

bool ptx_lane_supported(const struct translator *t, const struct ptx_insn *i)
{
    static ptx_exec *const whole[] = { ptx_add, ptx_sub, ptx_and, ptx_or, ptx_xor, ptx_not, ptx_shl, ptx_shr, ptx_neg, ptx_min,
                                       ptx_max, ptx_abs };

    (void)t;
    for (size_t k = 0; k < sizeof(whole) / sizeof(whole[0]); k++)
        if (i->exec == whole[k])
            return !(i->flags & (F_SAT | F_CC | F_RELU)) && (is_whole(i->type) || i->type == T_PRED);
    if (i->exec == ptx_mov || i->exec == ptx_selp || i->exec == ptx_cvta)
        return i->type != T_B128;
    if (i->exec == ptx_mul || i->exec == ptx_mad)
        return is_whole(i->type) && !(i->flags & (F_SAT | F_CC));
    if (i->exec == ptx_div || i->exec == ptx_rem)
        return i->type == T_U32 || i->type == T_S32 || i->type == T_U64 || i->type == T_S64;
    if (i->exec == ptx_bfe)
        return i->type == T_U32 || i->type == T_U64;
    if (i->exec == ptx_popc || i->exec == ptx_shf || i->exec == ptx_bfi)
        return true;
    if (i->exec == ptx_fadd || i->exec == ptx_fsub || i->exec == ptx_fmul || i->exec == ptx_fma || i->exec == ptx_fdiv ||
        i->exec == ptx_rcp || i->exec == ptx_sqrt)
        return single_or_double(i);
    if (i->exec == ptx_rsqrt)
        return i->type == T_F32;
    if (i->exec == ptx_fextreme)
        return i->type == T_F32 && !(i->flags & (F_NAN | F_XORSIGN));
    if (i->exec == ptx_fneg || i->exec == ptx_fabs)
        return i->type == T_F32 || i->type == T_F64;
    if (i->exec == ptx_setp)
        return compares(i);
    return i->exec == ptx_cvt && converts(i);
}

/* ---- writing ---- */

const char *ptx_lane_name(const struct translator *t, int32_t slot, char *text)
{
    const struct slot_info *s = &t->slots[slot];
    const struct ptx_constant *c = s->constant;

    if (ptx_is_register(t, slot))
        snprintf(text, 64, "x%d", slot);
    else if (c->fill == FILL_VALUE || c->fill == FILL_FRAME)
        snprintf(text, 64, "0x%" PRIx64 "ull", c->value);
    else if (c->fill == FILL_LOCAL)
        snprintf(text, 64, "0x%" PRIx64 "ull", c->value + t->m->local_bytes);
    else if (c->fill == FILL_SHARED)
        snprintf(text, 64, "0x%" PRIx64 "ull", c->value + t->m->shared_bytes);
    else
        snprintf(text, 64, "c%d", slot);
    return text;
}

static const char *c_type(unsigned type)
{
    switch (type) {
    case T_U8: case T_B8: return "n_u8";
    case T_S8: return "n_s8";
    case T_U16: case T_B16: return "n_u16";
    case T_S16: return "n_s16";
    case T_U32: case T_B32: case T_PRED: return "n_u32";
    case T_S32: return "n_s32";
    case T_S64: return "n_s64";
    default: return "n_u64";
    }
}

/* The same width, unsigned: wrapping arithmetic is done in it. */
static unsigned without_sign(unsigned type)
{
    return type == T_S16 ? T_U16 : type == T_S32 ? T_U32 : type == T_S64 ? T_U64 : type;
}

struct names {
    char a[64], b[64], c[64], d[64], e[64];
};

static void names_of(const struct translator *t, const struct ptx_insn *i, struct names *n)
{
    memset(n, 0, sizeof(*n));
    if (i->a >= 0)
        ptx_lane_name(t, i->a, n->a);
    if (i->b >= 0)
        ptx_lane_name(t, i->b, n->b);
    if (i->c >= 0)
        ptx_lane_name(t, i->c, n->c);
    if (i->d >= 0)
        ptx_lane_name(t, i->d, n->d);
    if (i->e >= 0)
        ptx_lane_name(t, i->e, n->e);
}

static void whole(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    bool predicate = i->type == T_PRED;
    const char *u = c_type(without_sign(i->type)), *s = c_type(i->type);
    unsigned width = ptx_bytes(i->type) * 8;
    const char *operator = i->exec == ptx_add ? "+" : i->exec == ptx_sub ? "-" : i->exec == ptx_and ? "&"
                           : i->exec == ptx_or ? "|" : i->exec == ptx_xor ? "^" : NULL;

    if (operator)
        fprintf(o, "(%s)((%s)%s %s (%s)%s)", u, u, n->a, operator, u, n->b);
    else if (i->exec == ptx_not)
        fprintf(o, predicate ? "(%s)!%s" : "(%s)~%s", u, n->a);
    else if (i->exec == ptx_neg)
        fprintf(o, "(%s)(0 - (%s)%s)", u, u, n->a);
    else if (i->exec == ptx_abs)
        fprintf(o, "(%s)((%s)%s < 0 ? 0 - (%s)%s : (%s)%s)", u, s, n->a, u, n->a, u, n->a);
    else if (i->exec == ptx_min || i->exec == ptx_max)
        fprintf(o, "((%s)%s %s (%s)%s ? (%s)%s : (%s)%s)", s, n->a, i->exec == ptx_min ? "<" : ">", s, n->b, s, n->a, s, n->b);
    else if (i->exec == ptx_shl)
        fprintf(o, "((n_u32)%s > %uu ? 0 : (%s)((%s)%s << ((n_u32)%s & %uu)))", n->b, width - 1, u, width == 16 ? "n_u32" : u,
                n->a, n->b, width - 1);
    else if (is_sign(i->type))
        fprintf(o, "(%s)((%s)%s >> ((n_u32)%s > %uu ? %uu : (n_u32)%s))", s, s, n->a, n->b, width - 1, width - 1, n->b);
    else
        fprintf(o, "((n_u32)%s > %uu ? 0 : (%s)%s >> ((n_u32)%s & %uu))", n->b, width - 1, u, n->a, n->b, width - 1);
}

/* The low, high or whole product. */
static void product(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    const char *s = c_type(i->type);
    bool sign = is_sign(i->type);
    unsigned width = ptx_bytes(i->type) * 8;

    if (width == 64 && i->flags & F_HI)
        fprintf(o, "mulhi%s64(%s, %s)", sign ? "s" : "", n->a, n->b);
    else if (width == 64)
        fprintf(o, "((n_u64)%s * (n_u64)%s)", n->a, n->b);
    else if (i->flags & F_WIDE && width == 32)
        fprintf(o, "(n_u64)((%s)(%s)%s * (%s)%s)", sign ? "n_s64" : "n_u64", s, n->a, s, n->b);
    else if (width == 16) /* all of it fits */
        fprintf(o, i->flags & F_HI ? "(%s)(((n_s64)(%s)%s * (%s)%s) >> 16)" : "(n_u32)((n_u32)(%s)%s * (%s)%s)",
                s, i->flags & F_HI ? s : n->a, i->flags & F_HI ? n->a : s, i->flags & F_HI ? s : n->b, n->b);
    else if (i->flags & F_HI)
        fprintf(o, "mulhi%s32((n_u32)%s, (n_u32)%s)", sign ? "s" : "", n->a, n->b);
    else
        fprintf(o, "((n_u32)%s * (n_u32)%s)", n->a, n->b);
}

static void multiply(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    unsigned width = ptx_bytes(i->type) * (i->flags & F_WIDE ? 16 : 8);

    fprintf(o, "(%s)(", width == 64 ? "n_u64" : width == 32 ? "n_u32" : "n_u16");
    product(o, i, n);
    if (i->exec == ptx_mad)
        fprintf(o, " + %s", n->c);
    fprintf(o, ")");
}

static const char *comparison(unsigned cmp)
{
    switch (cmp) {
    case C_EQ: case C_EQU: return "==";
    case C_NE: case C_NEU: return "!=";
    case C_LT: case C_LTU: return "<";
    case C_LE: case C_LEU: return "<=";
    case C_GT: case C_GTU: return ">";
    default: return ">=";
    }
}

/* A floating point operand, flushed where the instruction says so. */
static void real(FILE *o, const struct ptx_insn *i, unsigned type, const char *name)
{
    if (type == T_F64)
        fprintf(o, "D(%s)", name);
    else
        fprintf(o, i->flags & F_FTZ ? "F(Z(%s))" : "F(%s)", name);
}

static void compare(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    const char *op = comparison(i->cmp), *s = c_type(i->type);
    char x[96], y[96];

    if (i->type != T_F32 && i->type != T_F64) {
        fprintf(o, "((%s)%s %s (%s)%s)", s, n->a, op, s, n->b);
        return;
    }
    snprintf(x, sizeof(x), i->type == T_F64 ? "D(%s)" : i->flags & F_FTZ ? "F(Z(%s))" : "F(%s)", n->a);
    snprintf(y, sizeof(y), i->type == T_F64 ? "D(%s)" : i->flags & F_FTZ ? "F(Z(%s))" : "F(%s)", n->b);
    if (i->cmp == C_NUM)
        fprintf(o, "(%s == %s && %s == %s)", x, x, y, y);
    else if (i->cmp == C_NAN)
        fprintf(o, "(%s != %s || %s != %s)", x, x, y, y);
    else if (i->cmp >= C_EQU)
        fprintf(o, "(%s != %s || %s != %s || %s %s %s)", x, x, y, y, x, op, y);
    else if (i->cmp == C_NE) /* ordered and different */
        fprintf(o, "(%s < %s || %s > %s)", x, y, x, y);
    else
        fprintf(o, "(%s %s %s)", x, op, y);
}

static void reals(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    const char *operator = i->exec == ptx_fadd ? "+" : i->exec == ptx_fsub ? "-" : i->exec == ptx_fmul ? "*" : "/";
    bool twice = i->type == T_F64, flush = !twice && i->flags & F_FTZ;

    fprintf(o, twice ? "putd(" : flush ? "put(F(Z(U(" : "put(");
    if (i->flags & F_SAT) /* of the flushed result */
        fprintf(o, flush ? "clip(F(Z(U(" : "clip(");
    if (i->exec == ptx_fma)
        fprintf(o, twice ? "__builtin_fma(" : "__builtin_fmaf(");
    else if (i->exec == ptx_sqrt)
        fprintf(o, twice ? "__builtin_sqrt(" : "__builtin_sqrtf(");
    else if (i->exec == ptx_rsqrt)
        fprintf(o, "(float)(1 / __builtin_sqrt((double)");
    else if (i->exec == ptx_rcp)
        fprintf(o, "(1 / ");
    else
        fprintf(o, "(");
    real(o, i, i->type, n->a);
    if (i->exec == ptx_fma) {
        fprintf(o, ", ");
        real(o, i, i->type, n->b);
        fprintf(o, ", ");
        real(o, i, i->type, n->c);
    } else if (i->exec != ptx_sqrt && i->exec != ptx_rcp && i->exec != ptx_rsqrt) {
        fprintf(o, " %s ", operator);
        real(o, i, i->type, n->b);
    }
    fprintf(o, i->exec == ptx_rsqrt ? "))" : ")");
    if (i->flags & F_SAT)
        fprintf(o, flush ? "))))" : ")");
    fprintf(o, flush ? "))))" : ")");
}

static void signs(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    const char *v = i->type == T_F32 && i->flags & F_FTZ ? "Z" : "";
    const char *top = i->type == T_F64 ? "0x8000000000000000ull" : "0x80000000u";

    fprintf(o, i->exec == ptx_fneg ? "(%s(%s) ^ %s)" : "(%s(%s) & ~%s)", v, n->a, top);
}

static void convert(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    bool to_real = i->type == T_F32 || i->type == T_F64;

    if (i->type2 == T_F32 && i->type == T_F64) {
        fprintf(o, i->flags & F_FTZ ? "putd((double)F(Z(%s)))" : "putd((double)F(%s))", n->a);
    } else if (i->type2 == T_F64 && i->type == T_F32) {
        fprintf(o, i->flags & F_FTZ ? "put(F(Z(U((float)D(%s)))))" : "put((float)D(%s))", n->a);
    } else if (i->type2 == T_F32) {
        fprintf(o, i->flags & F_FTZ ? "(n_u32)to_%s32((double)F(Z(%s)))" : "(n_u32)to_%s32((double)F(%s))",
                i->type == T_S32 ? "s" : "u", n->a);
    } else if (to_real) {
        fprintf(o, i->type == T_F64 ? "V((double)(%s)%s)" : "U((float)(%s)%s)", c_type(i->type2), n->a);
    } else {
        fprintf(o, "(%s)(%s)%s", c_type(i->type), c_type(i->type2), n->a);
    }
}

static void various(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    static const unsigned long long windows[] = { [S_SHARED] = PTX_SHARED_WINDOW, [S_LOCAL] = PTX_LOCAL_WINDOW,
                                                  [S_PARAM] = PTX_PARAM_WINDOW, [S_CONST] = 0 };
    const char *s = c_type(i->type);

    if (i->exec == ptx_mov)
        fprintf(o, "%s", n->a);
    else if (i->exec == ptx_selp)
        fprintf(o, i->flags & F_NEG_C ? "(%s ? %s : %s)" : "(%s ? %s : %s)", n->c, i->flags & F_NEG_C ? n->b : n->a,
                i->flags & F_NEG_C ? n->a : n->b);
    else if (i->exec == ptx_cvta)
        fprintf(o, "((n_u64)%s %s 0x%llxull)", n->a, i->flags & F_TO ? "-" : "+", windows[i->space]);
    else if (i->exec == ptx_div || i->exec == ptx_rem)
        fprintf(o, "%s_%s((%s)%s, (%s)%s)", i->exec == ptx_div ? "div" : "rem", s + 2, s, n->a, s, n->b);
    else if (i->exec == ptx_popc)
        fprintf(o, ptx_bytes(i->type) == 8 ? "(n_u32)__builtin_popcountll(%s)" : "(n_u32)__builtin_popcount((n_u32)%s)", n->a);
    else if (i->exec == ptx_fextreme)
        fprintf(o, i->flags & F_FTZ ? "put(F(Z(U(%s(F(Z(%s)), F(Z(%s)))))))" : "put(%s(F(%s), F(%s)))",
                i->mode == M_MIN ? "lesser" : "greater", n->a, n->b);
}

static void shift_pair(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    char count[200];

    snprintf(count, sizeof(count), i->flags & F_CLAMP ? "((n_u32)%s > 32u ? 32u : (n_u32)%s)" : "((n_u32)%s & 31u)", n->c, n->c);
    fprintf(o, i->flags & F_LEFT ? "(n_u32)(((n_u64)(n_u32)%s << 32 | (n_u32)%s) << %s >> 32)"
                                 : "(n_u32)(((n_u64)(n_u32)%s << 32 | (n_u32)%s) >> %s)", n->b, n->a, count);
}

static void field(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    unsigned width = ptx_bytes(i->type) * 8;
    const char *u = width == 64 ? "n_u64" : "n_u32";

    if (i->exec == ptx_bfi)
        fprintf(o, "(%s)bfi((%s)%s, (%s)%s, (n_u32)%s, (n_u32)%s, %u)", u, u, n->a, u, n->b, n->c, n->e, width);
    else
        fprintf(o, "(%s)bfe((%s)%s, (n_u32)%s, (n_u32)%s, %u)", u, u, n->a, n->b, n->c, width);
}

static void value(FILE *o, const struct ptx_insn *i, const struct names *n)
{
    if (i->exec == ptx_mul || i->exec == ptx_mad)
        multiply(o, i, n);
    else if (i->exec == ptx_shf)
        shift_pair(o, i, n);
    else if (i->exec == ptx_bfi || i->exec == ptx_bfe)
        field(o, i, n);
    else if (i->exec == ptx_setp)
        compare(o, i, n);
    else if (i->exec == ptx_cvt)
        convert(o, i, n);
    else if (i->exec == ptx_fneg || i->exec == ptx_fabs)
        signs(o, i, n);
    else if (i->exec == ptx_fadd || i->exec == ptx_fsub || i->exec == ptx_fmul || i->exec == ptx_fma || i->exec == ptx_fdiv ||
             i->exec == ptx_rcp || i->exec == ptx_sqrt || i->exec == ptx_rsqrt)
        reals(o, i, n);
    else if (i->exec == ptx_mov || i->exec == ptx_selp || i->exec == ptx_cvta || i->exec == ptx_div || i->exec == ptx_rem ||
             i->exec == ptx_popc || i->exec == ptx_fextreme)
        various(o, i, n);
    else
        whole(o, i, n);
}

static void assign(struct translator *t, const struct ptx_insn *i, int32_t slot, const char *text)
{
    char d[64], p[64];

    ptx_lane_name(t, slot, d);
    if (i->pred < 0) {
        fprintf(t->out, "%s = %s; ", d, text);
        return;
    }
    ptx_lane_name(t, i->pred, p);
    fprintf(t->out, i->pred_neg ? "%s = %s ? %s : %s; " : "%s = !%s ? %s : %s; ", d, p, d, text);
}

/* setp's two results, each combined with a third predicate. */
static void write_setp(struct translator *t, const struct ptx_insn *i, const struct names *n)
{
    static const char *const words[] = { [M_AND] = "&", [M_OR] = "|", [M_XOR] = "^" };
    char both[200], guard[64], d[64];

    fprintf(t->out, "{ n_u32 g_ = %s%s, r_ = ", i->pred_neg ? "!" : "", i->pred < 0 ? "1" : ptx_lane_name(t, i->pred, guard));
    compare(t->out, i, n);
    fprintf(t->out, ", c_ = %s%s; ", i->c >= 0 && i->flags & F_NEG_C ? "!" : "", i->c >= 0 ? n->c : "0");
    for (unsigned k = 0; k < 2; k++) {
        int32_t to = k ? i->d2 : i->d;
        if (i->c >= 0 && i->mode >= M_AND && i->mode <= M_XOR)
            snprintf(both, sizeof(both), "(%sr_ %s c_)", k ? "!" : "", words[i->mode]);
        else
            snprintf(both, sizeof(both), "%sr_", k ? "(n_u32)!" : "");
        if (to >= 0) /* the guard may be the first result */
            fprintf(t->out, "%s = g_ ? %s : %s; ", ptx_lane_name(t, to, d), both, d);
    }
    fprintf(t->out, "}\n");
}

void ptx_lane_write(struct translator *t, const struct ptx_insn *i)
{
    struct names n;
    char *text = NULL;
    size_t bytes = 0;
    FILE *o;

    names_of(t, i, &n);
    if (i->exec == ptx_setp)
        return write_setp(t, i, &n);
    o = open_memstream(&text, &bytes);
    if (!o)
        return;
    value(o, i, &n);
    fclose(o);
    assign(t, i, i->d, text);
    fprintf(t->out, "\n");
    free(text);
}
