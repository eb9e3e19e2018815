/* SPDX-License-Identifier: Apache-2.0 */
/* Integer, bit and logic instructions. */
#include "ptx_internal.h"

/* Runs `expression` for each lane with x, y, z as operands of the C type. */
#define LANES(T, expression) \
    EACH { \
        T x = (T)a[l], y = (T)b[l], z = (T)c[l]; \
        (void)x; (void)y; (void)z; \
        d[l] = (uint64_t)(T)(expression); \
    } \
    break
#define OPERANDS \
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b < 0 ? i->a : i->b), *c = REG(i->c < 0 ? i->a : i->c)
/* Wrapping arithmetic is done unsigned; narrow results are kept zero-extended. */
#define UNSIGNED(expression) \
    switch (i->type) { \
    case T_U8: case T_S8: case T_B8: LANES(uint8_t, expression); \
    case T_U16: case T_S16: case T_B16: LANES(uint16_t, expression); \
    case T_U32: case T_S32: case T_B32: LANES(uint32_t, expression); \
    default: LANES(uint64_t, expression); \
    }
#define SIGNED(expression) \
    switch (i->type) { \
    case T_S16: LANES(int16_t, expression); \
    case T_S32: LANES(int32_t, expression); \
    case T_S64: LANES(int64_t, expression); \
    case T_U16: LANES(uint16_t, expression); \
    case T_U32: case T_B32: LANES(uint32_t, expression); \
    default: LANES(uint64_t, expression); \
    }
/* Signed values go to slots sign-extended; every reader casts to its own width. */
#define SIMPLE(name, which, expression) \
    void ptx_##name(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m) \
    { \
        OPERANDS; \
        which(expression) \
    }

static int32_t clamp32(int64_t v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : (int32_t)v;
}

static void saturated(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, bool minus)
{
    OPERANDS;
    (void)c;
    EACH {
        int64_t x = (int32_t)a[l], y = (int32_t)b[l];
        d[l] = (uint32_t)clamp32(minus ? x - y : x + y);
    }
}

void ptx_add(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    if (i->flags & F_SAT)
        return saturated(w, i, m, false);
    UNSIGNED(x + y)
}

void ptx_sub(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    if (i->flags & F_SAT)
        return saturated(w, i, m, true);
    UNSIGNED(x - y)
}

/* The product of `type`: low, high or whole, as the flags say. */
static uint64_t product(uint64_t a, uint64_t b, unsigned type, uint32_t flags)
{
    unsigned shift = flags & F_HI ? 1 : 0;

    switch (type) {
    case T_U16: return shift ? ((uint32_t)(uint16_t)a * (uint16_t)b) >> 16 : (uint64_t)(uint16_t)a * (uint16_t)b;
    case T_S16: return (uint64_t)(shift ? ((int32_t)(int16_t)a * (int16_t)b) >> 16 : (int32_t)(int16_t)a * (int16_t)b);
    case T_U32: case T_B32: return shift ? ((uint64_t)(uint32_t)a * (uint32_t)b) >> 32 : (uint64_t)(uint32_t)a * (uint32_t)b;
    case T_S32: return (uint64_t)(shift ? ((int64_t)(int32_t)a * (int32_t)b) >> 32 : (int64_t)(int32_t)a * (int32_t)b);
    case T_S64: return shift ? (uint64_t)(((__int128)(int64_t)a * (int64_t)b) >> 64) : a * b;
    default: return shift ? (uint64_t)(((unsigned __int128)a * b) >> 64) : a * b;
    }
}

/* Without .wide a result is as wide as its operands. */
static uint64_t narrow(uint64_t v, unsigned type, uint32_t flags)
{
    if (flags & F_WIDE)
        return type == T_U16 || type == T_S16 ? (uint32_t)v : v;
    return type == T_U16 || type == T_S16 ? (uint16_t)v : type == T_U64 || type == T_S64 ? v : (uint32_t)v;
}

void ptx_mul(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    (void)c;
    EACH d[l] = narrow(product(a[l], b[l], i->type, i->flags), i->type, i->flags);
}

void ptx_mad(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    if (i->flags & F_SAT) {
        EACH d[l] = (uint32_t)clamp32((int64_t)(int32_t)product(a[l], b[l], i->type, i->flags) + (int32_t)c[l]);
        return;
    }
    EACH d[l] = narrow(product(a[l], b[l], i->type, i->flags) + c[l], i->type, i->flags);
}

/* 24-bit factors; .lo are the low 32 bits, .hi bits 16 to 47 of the product. */
static uint64_t product24(uint64_t a, uint64_t b, const struct ptx_insn *i)
{
    int64_t x = i->type == T_S32 ? (int32_t)((uint32_t)a << 8) >> 8 : (int64_t)(a & 0xffffff);
    int64_t y = i->type == T_S32 ? (int32_t)((uint32_t)b << 8) >> 8 : (int64_t)(b & 0xffffff);

    return (uint32_t)((uint64_t)(x * y) >> (i->flags & F_HI ? 16 : 0));
}

SIMPLE(mul24, UNSIGNED, product24(x, y, i))

void ptx_mad24(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    if (i->flags & F_SAT) {
        EACH d[l] = (uint32_t)clamp32((int64_t)(int32_t)product24((uint32_t)a[l], (uint32_t)b[l], i) + (int32_t)c[l]);
        return;
    }
    UNSIGNED(product24(x, y, i) + z)
}

static bool is_signed(unsigned type)
{
    return type == T_S8 || type == T_S16 || type == T_S32 || type == T_S64;
}

/* An operand as its type says, extended to 64 bits. */
static uint64_t extend(uint64_t v, unsigned type)
{
    switch (type) {
    case T_S8: return (uint64_t)(int8_t)v;
    case T_S16: return (uint64_t)(int16_t)v;
    case T_S32: return (uint64_t)(int32_t)v;
    case T_U8: case T_B8: return (uint8_t)v;
    case T_U16: case T_B16: return (uint16_t)v;
    case T_U32: case T_B32: return (uint32_t)v;
    default: return v;
    }
}

/* Of division by zero PTX says nothing: quotient and remainder are all ones, as on the card; INT_MIN / -1 wraps. */
static void divide(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, bool remainder)
{
    OPERANDS;
    bool sign = is_signed(i->type);

    (void)c;
    EACH {
        uint64_t x = extend(a[l], i->type), y = extend(b[l], i->type), q;
        if (!y)
            q = ~0ull;
        else if (sign && y == ~0ull)
            q = remainder ? 0 : 0 - x;
        else if (sign)
            q = (uint64_t)(remainder ? (int64_t)x % (int64_t)y : (int64_t)x / (int64_t)y);
        else
            q = remainder ? x % y : x / y;
        d[l] = extend(q, i->type);
    }
}

void ptx_div(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    divide(w, i, m, false);
}

void ptx_rem(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    divide(w, i, m, true);
}

void ptx_abs(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    (void)b;
    (void)c;
    EACH {
        uint64_t x = extend(a[l], i->type);
        d[l] = extend((int64_t)x < 0 ? 0 - x : x, i->type);
    }
}

SIMPLE(min, SIGNED, ptx_relu(i, (int64_t)(x < y ? x : y)))
SIMPLE(max, SIGNED, ptx_relu(i, (int64_t)(x > y ? x : y)))
SIMPLE(sad, SIGNED, (uint64_t)z + (x > y ? (uint64_t)x - (uint64_t)y : (uint64_t)y - (uint64_t)x))
SIMPLE(neg, UNSIGNED, 0 - x)
SIMPLE(cnot, UNSIGNED, x == 0)
SIMPLE(popc, UNSIGNED, __builtin_popcountll(x))

void ptx_and(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    (void)c;
    EACH d[l] = a[l] & b[l];
}

void ptx_or(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    (void)c;
    EACH d[l] = a[l] | b[l];
}

void ptx_xor(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    (void)c;
    EACH d[l] = a[l] ^ b[l];
}

void ptx_not(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    if (i->type == T_PRED) {
        EACH d[l] = !a[l];
        return;
    }
    UNSIGNED(~x)
}

static unsigned width(unsigned type)
{
    return ptx_bytes(type) * 8;
}

/* Shift counts are clamped, not wrapped. */
SIMPLE(shl, UNSIGNED, (uint32_t)b[l] >= width(i->type) ? 0 : (uint64_t)x << (uint32_t)b[l])

void ptx_shr(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    unsigned most = width(i->type);

    (void)c;
    EACH {
        uint64_t x = extend(a[l], i->type);
        uint32_t n = (uint32_t)b[l];
        if (is_signed(i->type))
            d[l] = extend((uint64_t)((int64_t)x >> (n >= most ? most - 1 : n)), i->type);
        else
            d[l] = n >= most ? 0 : x >> n;
    }
}

void ptx_shf(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    EACH {
        uint64_t both = (uint64_t)(uint32_t)b[l] << 32 | (uint32_t)a[l];
        uint32_t n = (uint32_t)c[l];
        n = i->flags & F_CLAMP ? (n > 32 ? 32 : n) : n & 31;
        d[l] = (uint32_t)(i->flags & F_LEFT ? both << n >> 32 : both >> n);
    }
}

void ptx_clz(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    (void)b;
    (void)c;
    EACH {
        uint64_t v = i->type == T_B64 ? a[l] : (uint32_t)a[l];
        unsigned bits = i->type == T_B64 ? 64 : 32;
        d[l] = v ? (unsigned)__builtin_clzll(v) - (64 - bits) : bits;
    }
}

void ptx_bfind(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    unsigned bits = width(i->type);

    (void)b;
    (void)c;
    EACH {
        uint64_t v = a[l];
        if (i->type == T_S32 || i->type == T_S64) {
            int64_t s = bits == 64 ? (int64_t)v : (int32_t)v;
            v = s < 0 ? ~(uint64_t)s : (uint64_t)s;
        }
        if (bits == 32)
            v = (uint32_t)v;
        unsigned at = v ? 63 - (unsigned)__builtin_clzll(v) : 0;
        d[l] = !v ? 0xffffffffu : i->flags & F_SHIFTAMT ? bits - 1 - at : at;
    }
}

void ptx_brev(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    unsigned bits = width(i->type);

    (void)b;
    (void)c;
    EACH {
        uint64_t v = a[l], r = 0;
        for (unsigned k = 0; k < bits; k++)
            r |= (v >> k & 1) << (bits - 1 - k);
        d[l] = r;
    }
}

/* A position or length of a field. PTX says nothing of those over 255: the card looks at the low eight bits of them for 32-bit
 * fields, and at all for 64-bit ones, which it shifts. */
static unsigned extent(uint64_t v, unsigned bits)
{
    return bits == 64 ? (uint32_t)v : v & 255;
}

void ptx_bfe(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    unsigned bits = width(i->type);
    bool sign = i->type == T_S32 || i->type == T_S64;

    EACH {
        uint64_t v = extend(a[l], i->type);
        unsigned pos = extent(b[l], bits), len = extent(c[l], bits);
        if (sign)
            v = (uint64_t)((int64_t)v >> (pos < 64 ? pos : 63));
        else
            v = pos < 64 ? v >> pos : 0;
        if (len < 64) {
            uint64_t mask = (1ull << len) - 1;
            v = sign && len && v >> (len - 1) & 1 ? v | ~mask : v & mask;
        }
        d[l] = bits == 64 ? v : (uint32_t)v;
    }
}

void ptx_bfi(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    uint64_t *e = REG(i->e);
    unsigned bits = width(i->type);

    EACH {
        uint64_t r = bits == 64 ? b[l] : (uint32_t)b[l];
        unsigned pos = extent(c[l], bits), len = extent(e[l], bits);
        for (unsigned k = 0; pos < bits && k < len && k < bits - pos; k++)
            r = (r & ~(1ull << (pos + k))) | (a[l] >> k & 1) << (pos + k);
        d[l] = r;
    }
}

/* Which of the eight bytes comes to place k; bit 3: its sign instead. */
static unsigned permuted(unsigned mode, uint32_t c, unsigned k)
{
    unsigned at = c & 3;

    switch (mode) {
    case M_F4E: return at + k;
    case M_B4E: return (at - k) & 7;
    case M_RC8: return at;
    case M_ECL: return k > at ? k : at;
    case M_ECR: return k < at ? k : at;
    case M_RC16: return (at & 1) * 2 + (k & 1);
    default: return c >> (4 * k) & 15;
    }
}

void ptx_prmt(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    EACH {
        uint64_t both = (uint64_t)(uint32_t)b[l] << 32 | (uint32_t)a[l], r = 0;
        for (unsigned k = 0; k < 4; k++) {
            unsigned pick = permuted(i->mode, (uint32_t)c[l], k);
            uint64_t byte = both >> ((pick & 7) * 8) & 255;
            if (pick & 8)
                byte = byte & 128 ? 255 : 0;
            r |= byte << (8 * k);
        }
        d[l] = r;
    }
}

void ptx_lop3(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    uint64_t *e = REG(i->e);

    EACH {
        uint32_t x = (uint32_t)a[l], y = (uint32_t)b[l], z = (uint32_t)c[l], r = 0;
        for (unsigned k = 0; k < 8; k++)
            if (e[l] >> k & 1)
                r |= (k & 4 ? x : ~x) & (k & 2 ? y : ~y) & (k & 1 ? z : ~z);
        d[l] = r;
    }
}

void ptx_dp4a(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    EACH {
        uint32_t sum = (uint32_t)c[l];
        for (unsigned k = 0; k < 32; k += 8) {
            int32_t x = i->type == T_S32 ? (int8_t)(a[l] >> k) : (uint8_t)(a[l] >> k);
            int32_t y = i->type2 == T_S32 ? (int8_t)(b[l] >> k) : (uint8_t)(b[l] >> k);
            sum += (uint32_t)(x * y);
        }
        d[l] = sum;
    }
}

static void set_carry(struct ptx_warp *w, unsigned l, bool carry)
{
    w->cc = (w->cc & ~(1u << l)) | (uint32_t)carry << l;
}

/* add.cc, addc, sub.cc, subc: mode M_ADD adds, M_DEC subtracts. After a difference the flag says that there was no borrow, as
 * on the card: an addc reads it in NVIDIA's own division of 128-bit numbers. */
void ptx_carry(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    bool wide = width(i->type) == 64;

    (void)c;
    EACH {
        unsigned minus = i->mode == M_ADD ? 0 : 1, in = i->flags & F_CARRY ? (w->cc >> l & 1) ^ minus : 0;
        unsigned __int128 x = wide ? a[l] : (uint32_t)a[l], y = wide ? b[l] : (uint32_t)b[l];
        unsigned __int128 r = i->mode == M_ADD ? x + y + in : x - y - in;
        d[l] = wide ? (uint64_t)r : (uint32_t)r;
        if (i->flags & F_CC)
            set_carry(w, l, ((unsigned)(r >> (wide ? 64 : 32)) & 1) ^ minus);
    }
}

void ptx_madc(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    OPERANDS;
    bool wide = width(i->type) == 64;

    EACH {
        unsigned in = i->flags & F_CARRY ? w->cc >> l & 1 : 0;
        uint64_t p = product(a[l], b[l], i->type, i->flags);
        unsigned __int128 r = (unsigned __int128)(wide ? p : (uint32_t)p) + (wide ? c[l] : (uint32_t)c[l]) + in;
        d[l] = wide ? (uint64_t)r : (uint32_t)r;
        if (i->flags & F_CC)
            set_carry(w, l, (unsigned)(r >> (wide ? 64 : 32)) & 1);
    }
}
