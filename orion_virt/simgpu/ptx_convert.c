/* SPDX-License-Identifier: Apache-2.0 */
/* Moves, selections, comparisons and conversions. */
#include <math.h>
#include <time.h>

#include "ptx_internal.h"

static bool is_float(unsigned t)
{
    return t == T_F32 || t == T_F64 || t == T_F16 || t == T_BF16 || t == T_TF32;
}

static bool is_signed(unsigned t)
{
    return t == T_S8 || t == T_S16 || t == T_S32 || t == T_S64;
}

void ptx_mov(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);

    EACH d[l] = a[l];
}

static uint64_t low(uint64_t v, unsigned bits)
{
    return bits >= 64 ? v : v & ((1ull << bits) - 1);
}

void ptx_pack(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    const int32_t *list = w->kernel->module->lists + i->list;
    unsigned bits = ptx_bytes(i->type) * 8 / i->nr;
    uint64_t *d = REG(i->d);

    EACH {
        uint64_t v = 0;
        for (unsigned k = 0; k < i->nr; k++)
            v |= low(REG(list[k])[l], bits) << (k * bits);
        d[l] = v;
    }
}

void ptx_unpack(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    const int32_t *list = w->kernel->module->lists + i->list;
    unsigned bits = ptx_bytes(i->type) * 8 / i->nr;
    uint64_t *a = REG(i->a);

    EACH {
        uint64_t v = a[l]; /* one of the destinations may be the source */
        for (unsigned k = 0; k < i->nr; k++)
            REG(list[k])[l] = low(v >> (k * bits), bits);
    }
}

void ptx_selp(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b), *c = REG(i->c);
    bool negated = i->flags & F_NEG_C;

    EACH d[l] = (c[l] != 0) != negated ? a[l] : b[l];
}


static bool ordered(unsigned cmp, int order)
{
    switch (cmp) {
    case C_EQ: case C_EQU: return order == 0;
    case C_NE: case C_NEU: return order != 0;
    case C_LT: case C_LTU: return order < 0;
    case C_LE: case C_LEU: return order <= 0;
    case C_GT: case C_GTU: return order > 0;
    case C_GE: case C_GEU: return order >= 0;
    default: return cmp == C_NUM;
    }
}

static int compare_int(uint64_t a, uint64_t b, unsigned type)
{
    int64_t x, y;

    switch (type) {
    case T_S16: x = (int16_t)a; y = (int16_t)b; return (x > y) - (x < y);
    case T_S32: x = (int32_t)a; y = (int32_t)b; return (x > y) - (x < y);
    case T_S64: x = (int64_t)a; y = (int64_t)b; return (x > y) - (x < y);
    case T_U16: case T_B16: a = (uint16_t)a; b = (uint16_t)b; break;
    case T_U32: case T_B32: a = (uint32_t)a; b = (uint32_t)b; break;
    default: break;
    }
    return (a > b) - (a < b);
}

static double number(uint64_t v, unsigned type, uint32_t flags)
{
    float f;

    switch (type) {
    case T_F64: return ptx_f64(v);
    case T_F16: case T_BF16: case T_F16X2: case T_BF16X2:
        return ptx_from_small(v, type);
    default:
        f = ptx_f32(v);
        return flags & F_FTZ && fabsf(f) < 0x1p-126f ? copysignf(0, f) : f;
    }
}

void ptx_slct(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b), *c = REG(i->c);

    EACH d[l] = (i->type2 == T_F32 ? number(c[l], T_F32, i->flags) >= 0 : (int32_t)c[l] >= 0) ? a[l] : b[l];
}

static bool compare(const struct ptx_insn *i, unsigned type, uint64_t a, uint64_t b)
{
    double x, y;

    if (!is_float(type) && type != T_F16X2 && type != T_BF16X2)
        return ordered(i->cmp, compare_int(a, b, type));
    x = number(a, type, i->flags);
    y = number(b, type, i->flags);
    if (isnan(x) || isnan(y))
        return i->cmp >= C_EQU && i->cmp != C_NUM; /* the unordered comparisons and .nan */
    return ordered(i->cmp, (x > y) - (x < y));
}

static bool combine(const struct ptx_insn *i, bool r, bool c)
{
    if (i->flags & F_NEG_C)
        c = !c;
    return i->mode == M_AND ? r && c : i->mode == M_OR ? r || c : i->mode == M_XOR ? r != c : r;
}

void ptx_setp(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b);
    bool packed = i->type == T_F16X2 || i->type == T_BF16X2;

    EACH {
        bool r = compare(i, i->type, a[l], b[l]), c = i->c >= 0 && REG(i->c)[l];
        bool second = packed ? compare(i, i->type, a[l] >> 16, b[l] >> 16) : !r;
        if (i->d2 >= 0)
            REG(i->d2)[l] = combine(i, second, c);
        d[l] = combine(i, r, c);
    }
}

/* What set writes for true, by its first type, in as many bits. */
static uint64_t truth(unsigned type)
{
    switch (type) {
    case T_F32: return ptx_u32(1);
    case T_F16: return 0x3c00;
    case T_BF16: return 0x3f80;
    case T_F16X2: return 0x3c00;
    case T_BF16X2: return 0x3f80;
    case T_U16: case T_S16: return 0xffff;
    default: return 0xffffffffu;
    }
}

/* Of a packed type each half is compared for itself; with a packed or 32-bit integer result. */
static uint64_t set_packed(const struct ptx_insn *i, uint64_t a, uint64_t b, bool c)
{
    uint64_t yes = truth(i->type) & 0xffff, r = combine(i, compare(i, i->type2, a, b), c) ? yes : 0;

    return r | (combine(i, compare(i, i->type2, a >> 16, b >> 16), c) ? yes << 16 : 0);
}

void ptx_set(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b);
    bool packed = i->type2 == T_F16X2 || i->type2 == T_BF16X2;

    EACH {
        bool c = i->c >= 0 && REG(i->c)[l];
        d[l] = packed ? set_packed(i, a[l], b[l], c) : combine(i, compare(i, i->type2, a[l], b[l]), c) ? truth(i->type) : 0;
    }
}

/* ---- cvt ---- */

static int64_t widen(uint64_t v, unsigned type)
{
    switch (type) {
    case T_S8: return (int8_t)v;
    case T_U8: case T_B8: return (uint8_t)v;
    case T_S16: return (int16_t)v;
    case T_U16: case T_B16: return (uint16_t)v;
    case T_S32: return (int32_t)v;
    case T_U32: case T_B32: return (uint32_t)v;
    default: return (int64_t)v;
    }
}

static double round_to_integer(double v, unsigned round)
{
    switch (round) {
    case R_RZI: case R_RZ: return trunc(v);
    case R_RMI: case R_RM: return floor(v);
    case R_RPI: case R_RP: return ceil(v);
    default: return rint(v);
    }
}

/* Out of range clamps; NaN is 0, but the top bit where source or destination has 64 bits. */
static uint64_t float_to_int(double v, unsigned source, unsigned type)
{
    unsigned bits = ptx_bytes(type) * 8;
    double top = ldexp(1, (int)bits - (is_signed(type) ? 1 : 0)), bottom = is_signed(type) ? -top : 0;

    if (isnan(v))
        return source == T_F64 || bits == 64 ? 1ull << (bits - 1) : 0;
    if (v >= top)
        return low(is_signed(type) ? (1ull << (bits - 1)) - 1 : ~0ull, bits);
    if (v <= bottom)
        return is_signed(type) ? low(1ull << (bits - 1), bits) : 0;
    return is_signed(type) ? low((uint64_t)(int64_t)v, bits) : (uint64_t)v;
}

static int64_t clamp_int(int64_t v, bool was_unsigned64, unsigned type)
{
    unsigned bits = ptx_bytes(type) * 8;
    int64_t top = is_signed(type) ? (int64_t)((1ull << (bits - 1)) - 1) : bits == 64 ? INT64_MAX : (int64_t)low(~0ull, bits);

    if (was_unsigned64 && v < 0)
        return is_signed(type) || bits < 64 ? top : v;
    if (v < (is_signed(type) ? -top - 1 : 0))
        return is_signed(type) ? -top - 1 : 0;
    return v > top ? top : v;
}

/* A double to f32 in the asked direction. */
static float to_single(double v, unsigned round)
{
    float f = (float)v;

    if (isnan(v) || (double)f == v)
        return f;
    if (round == R_RZ)
        round = v > 0 ? R_RM : R_RP;
    if (round == R_RM && (double)f > v)
        return nextafterf(f, -INFINITY);
    return round == R_RP && (double)f < v ? nextafterf(f, INFINITY) : f;
}

static uint64_t put_float(double v, const struct ptx_insn *i)
{
    float f;

    if (i->flags & F_SAT)
        v = v > 0 ? (v < 1 ? v : 1) : 0;
    if (i->flags & F_RELU && v <= 0)
        v = 0;
    if (i->type == T_F64)
        return isnan(v) ? 0x7fffffffffffffffull : ptx_u64(v);
    if (i->type == T_F16 || i->type == T_BF16 || i->type == T_TF32)
        return ptx_cvt_small(v, i);
    f = to_single(v, i->round);
    if (i->flags & F_FTZ && fabsf(f) < 0x1p-126f)
        f = copysignf(0, f);
    return isnan(f) ? 0x7fffffff : ptx_u32(f);
}

/* A 64-bit integer straight to f32, so that it is rounded once. */
static uint64_t int_to_float(int64_t v, const struct ptx_insn *i)
{
    bool u = i->type2 == T_U64 || i->type2 == T_B64;
    long double exact = u ? (long double)(uint64_t)v : (long double)v;

    if (i->type == T_F32) {
        float f = (float)exact;
        if (f != exact) {
            unsigned r = i->round == R_RZ ? (exact > 0 ? R_RM : R_RP) : i->round;
            if (r == R_RM && f > exact)
                f = nextafterf(f, -INFINITY);
            else if (r == R_RP && f < exact)
                f = nextafterf(f, INFINITY);
        }
        return ptx_u32(f);
    }
    if (i->type == T_F64) {
        double x = (double)exact;
        unsigned r = i->round == R_RZ ? (exact > 0 ? R_RM : R_RP) : i->round;
        if (r == R_RM && x > exact)
            x = nextafter(x, -INFINITY);
        else if (r == R_RP && x < exact)
            x = nextafter(x, INFINITY);
        return ptx_u64(x);
    }
    double near = (double)exact;
    if (near != exact && !(ptx_u64(near) & 1)) /* a sticky last bit, so that the second rounding is right */
        near = nextafter(near, near < exact ? INFINITY : -INFINITY);
    return put_float(near, i);
}

static uint64_t convert(const struct ptx_insn *i, uint64_t a)
{
    bool from = is_float(i->type2), to = is_float(i->type);
    double v;
    int64_t n;

    if (!from) {
        n = widen(a, i->type2);
        if (to)
            return int_to_float(n, i);
        if (i->flags & F_SAT)
            n = clamp_int(n, i->type2 == T_U64, i->type);
        /* The destination register may be wider than the type: sign-extend into it. */
        return (uint64_t)widen((uint64_t)n, i->type);
    }
    v = number(a, i->type2, i->flags);
    if (isnan(v) && i->type == T_TF32 && i->round == R_RNA)
        return (uint32_t)a & 0xffffe000u; /* only cut off, as on the card: infinity where the low bits alone made it NaN */
    if (i->flags & F_ABS)
        v = fabs(v);
    if (!to)
        return (uint64_t)widen(float_to_int(round_to_integer(v, i->round), i->type2, i->type), i->type);
    if (i->round >= R_RNI && i->round <= R_RPI)
        v = round_to_integer(v, i->round);
    else if (i->type == i->type2 && i->round != R_NONE)
        v = round_to_integer(v, i->round);
    return put_float(v, i);
}

void ptx_cvt(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);

    EACH d[l] = convert(i, a[l]);
}

void ptx_cvta(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);
    uint64_t window = i->space == S_SHARED ? PTX_SHARED_WINDOW : i->space == S_LOCAL ? PTX_LOCAL_WINDOW
                      : i->space == S_PARAM ? PTX_PARAM_WINDOW : 0;

    EACH d[l] = i->flags & F_TO ? a[l] - window : a[l] + window;
}

static bool in_constants(const struct ptx_module *m, uint64_t address)
{
    for (unsigned k = 0; k < m->nr_variables; k++)
        if (m->variables[k].space == S_CONST && address - m->variables[k].address < m->variables[k].bytes)
            return true;
    return false;
}

void ptx_isspacep(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);

    EACH {
        uint64_t top = a[l] >> 56, offset = a[l];
        bool own = i->flags & F_CLUSTER || (top == 1 && ptx_shared_owner(w->block, &offset) == w->block);
        bool constant = top == 0 && (i->space == S_GLOBAL || i->space == S_CONST) && in_constants(w->kernel->module, a[l]);
        d[l] = i->space == S_SHARED ? top == 1 && own : i->space == S_LOCAL ? top == 2 : i->space == S_PARAM ? top == 3
               : i->space == S_CONST ? constant : top == 0 && !constant;
    }
}

void ptx_clock(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d);
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    EACH d[l] = ((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec) >> (i->mode == M_MAX ? 32 : 0);
}

void ptx_activemask(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d);

    EACH d[l] = m;
}
