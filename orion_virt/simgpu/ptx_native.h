/* SPDX-License-Identifier: Apache-2.0 */
/* The beginning of every translated kernel, and the interpreter's view of the same: a warp for translated code, loads and
 * stores of 32 lanes, arithmetic as the interpreter does it. Uses no other header, so that a compiler alone suffices. */
#ifndef SIM_PTX_NATIVE_H
#define SIM_PTX_NATIVE_H

typedef unsigned char n_u8;
typedef unsigned short n_u16;
typedef unsigned int n_u32;
typedef unsigned long long n_u64;
typedef signed char n_s8;
typedef short n_s16;
typedef int n_s32;
typedef long long n_s64;

#define N_LANES 32u
enum n_space { N_GENERIC, N_GLOBAL, N_SHARED, N_LOCAL, N_PARAM, N_CONST }; /* as enum ptx_space */
enum n_exchange { N_UP, N_DOWN, N_BFLY, N_IDX, N_ALL, N_ANY, N_UNI, N_BALLOT };
enum n_left { N_CHOOSE, N_CONTROL };       /* why translated code returns: choose a group; interpret one instruction first */

struct n_range {                           /* memory that an instruction found accessible last */
    n_u64 start, bytes;
};
/* What the lanes' addresses in a register have in common. Kept while the register keeps it: found once before a loop, it
 * holds for all turns of it, as long as only what is the same for all lanes is added. */
struct n_shape {
    n_u64 low;                             /* the lowest */
    n_u64 bits;                            /* at least those that are set in any */
    n_u64 mask;                            /* of these lanes, 0: not known */
    n_u64 number;                          /* shapes of one number differ in what is above alone */
    n_u64 span;                            /* from the lowest to the highest */
    n_u64 step[2];                         /* from lane to lane within each half of the warp, ~0: irregular */
    n_u64 at[2];                           /* from the lowest to where each half's lane 0 is, or would be */
    n_u64 regular;                         /* both steps are */
};
struct n_warp {
    void *warp;                            /* struct ptx_warp */
    n_u64 *regs;                           /* the interpreter's slots: constants, return addresses */
    n_u32 *r32;                            /* registers that live longer than a basic block: 32 lanes each */
    n_u64 *r64;
    n_u32 *pc;
    struct n_range *ranges;                /* of each instruction that accesses memory */
    struct n_shape *shapes;                /* of each register that addresses memory */
    n_u64 nr_shapes;                       /* that were looked at so far */
    n_u8 *shared, *local;
    const n_u8 *params;
    n_u64 shared_bytes, local_bytes, params_bytes; /* local: of one lane */
    n_u32 *alive;
    n_u32 at, mask;                        /* N_CONTROL: of this instruction, for these lanes */
    int exhausted;                         /* the budget ended: another group's turn */
    /* Interprets an instruction on the slots that it names; 0: a fault, the block ends. */
    int (*exec)(struct n_warp *w, n_u32 at, n_u32 mask);
    /* Where `bytes` at an address of a lane are; a fault gives NULL. */
    void *(*find)(struct n_warp *w, n_u32 at, n_u32 lane, n_u32 space, n_u64 address, n_u32 bytes);
    n_u64 (*extent)(struct n_warp *w, n_u64 address);
    n_u32 (*meeting)(struct n_warp *w, n_u32 mask, n_u32 pc);
};
typedef int n_run(struct n_warp *w, n_u32 m, n_u32 pc, n_u32 meeting, int others, long *budget);

#ifdef PTX_TRANSLATED

#define IN static inline __attribute__((always_inline, unused))
IN float F(n_u32 u) { float f; __builtin_memcpy(&f, &u, 4); return f; }
IN n_u32 U(float f) { n_u32 u; __builtin_memcpy(&u, &f, 4); return u; }
IN double D(n_u64 u) { double f; __builtin_memcpy(&f, &u, 8); return f; }
IN n_u64 V(double f) { n_u64 u; __builtin_memcpy(&u, &f, 8); return u; }
IN n_u32 Z(n_u32 u) { return u & 0x7f800000u ? u : u & 0x80000000u; } /* .ftz */
IN n_u32 put(float f) { return f != f ? 0x7fffffffu : U(f); }
IN float clip(float f) { float g = f < 1 ? f : 1; return f > 0 ? g : 0; }
IN n_u64 putd(double f) { return f != f ? 0x7fffffffffffffffull : V(f); }
IN float lesser(float x, float y) { float a = y != y || x < y || (x == y && U(x) >> 31) ? x : y; return x != x ? y : a; }
IN float greater(float x, float y) { float a = y != y || x > y || (x == y && !(U(x) >> 31)) ? x : y; return x != x ? y : a; }
IN n_u32 mulhi32(n_u32 a, n_u32 b) { return (n_u32)((n_u64)a * b >> 32); }
IN n_u32 mulhis32(n_s32 a, n_s32 b) { return (n_u32)((n_s64)a * b >> 32); }
IN n_u64 mulhi64(n_u64 a, n_u64 b) { return (n_u64)((unsigned __int128)a * b >> 64); }
IN n_u64 mulhis64(n_s64 a, n_s64 b) { return (n_u64)((__int128)a * b >> 64); }
/* Of a double that holds a whole number. */
IN n_s32 to_s32(double v) { return v != v ? 0 : v >= 2147483647.0 ? 2147483647 : v <= -2147483648.0 ? -2147483647 - 1 : (n_s32)v; }
IN n_u32 to_u32(double v) { return !(v > 0) ? 0 : v >= 4294967295.0 ? 4294967295u : (n_u32)(n_s64)v; }
/* By zero: all ones, as the interpreter has it. */
#define DIVIDE(name, T, least) \
    IN T div_##name(T a, T b) { return b == 0 ? (T)~(T)0 : (least) && b == (T)-1 ? (T)(0 - (n_u64)a) : (T)(a / b); } \
    IN T rem_##name(T a, T b) { return b == 0 ? (T)~(T)0 : (least) && b == (T)-1 ? 0 : (T)(a % b); }
IN n_u64 low_bits(n_u32 n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }
/* Positions and lengths of fields, as the interpreter has them. */
IN n_u32 extent(n_u32 v, n_u32 width) { return width == 64 ? v : v & 255; }
IN n_u64 bfi(n_u64 a, n_u64 b, n_u32 at, n_u32 n, n_u32 width)
{
    n_u64 mask = extent(at, width) >= width ? 0 : low_bits(extent(n, width)) << (at & (width - 1));
    return (b & ~mask) | (a << (at & (width - 1)) & mask);
}
IN n_u64 bfe(n_u64 v, n_u32 at, n_u32 n, n_u32 width)
{
    return extent(at, width) >= width ? 0 : v >> (at & (width - 1)) & low_bits(extent(n, width));
}
DIVIDE(u32, n_u32, 0) DIVIDE(s32, n_s32, 1) DIVIDE(u64, n_u64, 0) DIVIDE(s64, n_s64, 1)

IN n_u32 bits(const n_u32 *p)
{
    n_u32 m = 0;

    for (n_u32 l = 0; l < N_LANES; l++)
        m |= (p[l] & 1) << l;
    return m;
}

IN void set_pc(struct n_warp *w, n_u32 m, n_u32 pc)
{
    for (n_u32 l = 0; l < N_LANES; l++)
        w->pc[l] = m >> l & 1 ? pc : w->pc[l];
}

/* Where the memory of a space begins, if there are `bytes` and `more` from `address` on in one piece. */
IN n_u8 *piece(struct n_warp *w, n_u32 space, n_u64 address, n_u64 bytes, n_u64 more, n_u32 site)
{
    struct n_range *r = &w->ranges[site];
    n_u64 left = space == N_SHARED ? w->shared_bytes : w->params_bytes;

    if (space == N_SHARED || space == N_PARAM)
        return address < left && left - address >= bytes && left - address - bytes >= more
               ? (space == N_SHARED ? w->shared : (n_u8 *)w->params) + address : 0;
    if (address - r->start >= r->bytes) {
        if (space == N_LOCAL || address >> 56)
            return 0;
        r->bytes = w->extent(w, address);
        r->start = address; /* a lower place of the same memory is found anew; the lowest soon is */
    }
    left = r->bytes - (address - r->start);
    return left >= bytes && left - bytes >= more ? (n_u8 *)address : 0;
}

/* The place of one lane's access. */
IN n_u8 *place(struct n_warp *w, n_u32 space, n_u64 address, n_u32 bytes, n_u32 l, n_u32 site, n_u32 at)
{
    n_u8 *p = 0;

    if (!(address & (bytes - 1))) {
        if (space == N_LOCAL)
            p = address < w->local_bytes && w->local_bytes - address >= bytes ? w->local + l * w->local_bytes + address : 0;
        else
            p = piece(w, space, address, bytes, 0, site);
    }
    return p ? p : w->find(w, at, l, space, address, bytes);
}

/* One of two by a mask's lowest bit, without the masked stores that a conditional store becomes: those are slow. */
#define BLEND(T, bit, yes, no) (T)(((T)(yes) & ((T)0 - ((T)(bit) & 1))) | ((T)(no) & ~((T)0 - ((T)(bit) & 1))))

/* One half's steps: between its first two lanes of `m`, if the others follow. */
IN int shape_half(n_u32 m, const n_u64 *b, n_u64 *step, n_u64 *base)
{
    n_u32 first = m ? (n_u32)__builtin_ctz(m) : 0;
    n_u64 off = 0, s = m >> first & 2 ? b[first + 1] - b[first] : 0, zero = b[first] - first * s;

    for (n_u32 l = 0; l < 16; l++)
        off |= (b[l] - (zero + l * s)) & ((n_u64)0 - (m >> l & 1));
    *step = s;
    *base = zero;
    return !off && (s + (1ull << 31)) >> 32 == 0;
}

IN void irregular(struct n_shape *s, n_u32 m, const n_u64 *b)
{
    n_u64 low = ~0ull, high = 0, all = 0;

    for (n_u32 l = 0; l < N_LANES; l++) {
        n_u64 none = (n_u64)(m >> l & 1) - 1;
        low = (b[l] | none) < low ? b[l] | none : low;
        high = (b[l] & ~none) > high ? b[l] & ~none : high;
        all |= b[l] & ~none;
    }
    s->low = low;
    s->span = high - low;
    s->bits = all;
    s->step[0] = s->step[1] = ~0ull;
    s->at[0] = s->at[1] = 0;
    s->regular = 0;
}

/* Regular: the ends of the halves are the extremes, and what is aligned at their start and by step is everywhere. */
static __attribute__((noinline)) void shape_64(struct n_warp *w, struct n_shape *s, n_u32 m, const n_u64 *b)
{
    n_u64 base[2], low = ~0ull, high = 0;

    s->mask = m;
    s->number = ++w->nr_shapes;
    if (!(shape_half(m & 0xffff, b, &s->step[0], &base[0]) & shape_half(m >> 16, b + 16, &s->step[1], &base[1])))
        return irregular(s, m, b);
    s->bits = 0;
    for (n_u32 h = 0; h < 2; h++) {
        n_u32 part = h ? m >> 16 : m & 0xffff;
        if (!part)
            continue;
        n_u64 one = base[h] + (n_u32)__builtin_ctz(part) * s->step[h], other = base[h] + (31 - (n_u32)__builtin_clz(part)) * s->step[h];
        low = one < low ? one : low;
        low = other < low ? other : low;
        high = one > high ? one : high;
        high = other > high ? other : high;
        s->bits |= one | s->step[h];
    }
    s->low = low;
    s->span = high - low;
    s->at[0] = base[0] - low;
    s->at[1] = base[1] - low;
    s->regular = 1;
}

static __attribute__((noinline)) void shape_32(struct n_warp *w, struct n_shape *s, n_u32 m, const n_u32 *r)
{
    n_u64 b[N_LANES] __attribute__((aligned(64)));

    for (n_u32 l = 0; l < N_LANES; l++)
        b[l] = r[l];
    shape_64(w, s, m, b);
}

/* All lanes at one address. */
IN void shape_one(struct n_shape *s, n_u32 m, n_u64 address)
{
    *s = (struct n_shape){ .low = address, .bits = address, .mask = m, .regular = 1 };
}

/* d = a + more, which is the same for all lanes, in the lanes `m`. */
IN void shape_add_64(struct n_shape *d, const struct n_shape *a, n_u32 m, n_u64 more)
{
    if (d->number != a->number)
        *d = *a;
    d->mask = a->mask != m || a->low + more + a->span < a->low + more ? 0 : m;
    d->bits = a->bits | more;
    d->low = a->low + more;
}
IN void shape_add_32(struct n_shape *d, const struct n_shape *a, n_u32 m, n_u32 more)
{
    n_u64 low = (n_u32)(a->low + more);

    if (d->number != a->number)
        *d = *a;
    d->mask = a->mask != m || low + a->span > 0xffffffffull ? 0 : m;
    d->bits = a->bits | more;
    d->low = low;
}

struct n_access {                          /* what is known of one when it is translated */
    n_u32 space, wide, site, at;           /* wide: addresses of 64 bits; 2: one for all lanes */
    n_u64 off;
};

/* The memory that all lanes access, if it is one piece: where the lowest address is. */
IN n_u8 *reach(struct n_warp *w, const struct n_shape *s, const struct n_access *a, n_u32 bytes)
{
    n_u64 address = s->low + a->off;

    if ((s->bits | a->off) & (bytes - 1))
        return 0;
    if (!a->wide)
        address = (n_u32)address; /* as in ptx_at */
    if (a->space == N_LOCAL)
        return address < w->local_bytes && w->local_bytes - address >= bytes && w->local_bytes - address - bytes >= s->span
               ? w->local + address : 0;
    return piece(w, a->space, address, bytes, s->span, a->site);
}

/* The lanes' addresses without what is added to all; lanes that take no part have the lowest. */
IN void addresses(n_u64 *to, n_u32 m, const struct n_shape *s, const struct n_access *a, const void *b)
{
    for (n_u32 l = 0; l < N_LANES; l++) {
        n_u64 v = a->wide == 2 ? s->low : a->wide ? ((const n_u64 *)b)[l] : ((const n_u32 *)b)[l];
        to[l] = BLEND(n_u64, m >> l, v, s->low);
    }
}

typedef n_u32 sixteen_n_u32 __attribute__((vector_size(64), aligned(64), may_alias));
typedef n_u64 sixteen_n_u64 __attribute__((vector_size(128), aligned(64), may_alias));

/* Of 16 lanes; where none takes part nothing is read. */
#define LOAD_HALF(name, T, R, W) \
    IN void name##_half(n_u32 m, const n_u8 *p, n_u64 step, R *d) \
    { \
        const T *q = (const T *)p; \
        if (!m) return; \
        if (step == 0) { \
            R v = (R)(W)*q; \
            for (n_u32 l = 0; l < 16; l++) d[l] = BLEND(R, m >> l, v, d[l]); \
        } else if (step == sizeof(T)) { \
            for (n_u32 l = 0; l < 16; l++) { R v = m >> l & 1 ? (R)(W)q[l] : d[l]; d[l] = v; } \
        } else { \
            n_u64 none = (n_u32)__builtin_ctz(m) * step; \
            for (n_u32 l = 0; l < 16; l++) { \
                R v = (R)(W)*(const T *)(p + BLEND(n_u64, m >> l, l * step, none)); \
                d[l] = BLEND(R, m >> l, v, d[l]); \
            } \
        } \
    }
/* A load by all lanes from consecutive or one place, the most frequent by far, is written out; others are called. */
#define LOAD(name, T, R, W) \
    LOAD_HALF(name, T, R, W) \
    static __attribute__((noinline)) int name##_lanes(struct n_warp *w, n_u32 m, const struct n_shape *s, const void *b, \
                                                      const struct n_access *a, R *d) \
    { \
        n_u64 own[N_LANES] __attribute__((aligned(64))), stride = a->space == N_LOCAL ? w->local_bytes : 0; \
        n_u8 *p = reach(w, s, a, sizeof(T)); \
        if (p && s->regular) { \
            name##_half(m & 0xffff, p + s->at[0], s->step[0] + stride, d); \
            name##_half(m >> 16, p + s->at[1] + 16 * stride, s->step[1] + stride, d + 16); \
            return 1; \
        } \
        addresses(own, m, s, a, b); \
        for (n_u32 l = 0; p && l < N_LANES; l++) { \
            R v = (R)(W)*(const T *)(p + (own[l] - s->low) + l * stride); \
            d[l] = BLEND(R, m >> l, v, d[l]); \
        } \
        for (n_u32 l = 0; !p && l < N_LANES; l++) { \
            if (!(m >> l & 1)) continue; \
            const n_u8 *q = place(w, a->space, own[l] + a->off, sizeof(T), l, a->site, a->at); \
            if (!q) return 0; \
            d[l] = (R)(W)*(const volatile T *)q; \
        } \
        return 1; \
    } \
    IN int name(struct n_warp *w, n_u32 m, const struct n_shape *s, const void *b, const struct n_access *a, R *d) \
    { \
        const n_u8 *p; \
        int same = s->step[0] == s->step[1]; \
        if (a->space != N_LOCAL && m == ~0u && same && s->step[0] == sizeof(T) && (p = reach(w, s, a, sizeof(T)))) { \
            T u[N_LANES] __attribute__((aligned(64))); /* copied first: nothing can overlap */ \
            __builtin_memcpy(u, p + s->at[0], 16 * sizeof(T)); \
            __builtin_memcpy(u + 16, p + s->at[1], 16 * sizeof(T)); \
            for (n_u32 l = 0; l < N_LANES; l++) d[l] = (R)(W)u[l]; \
            return 1; \
        } \
        if (a->space != N_LOCAL && m == ~0u && same && !s->step[0] && (p = reach(w, s, a, sizeof(T)))) { \
            R u = (R)(W)*(const T *)(p + s->at[0]), v = (R)(W)*(const T *)(p + s->at[1]); \
            *(sixteen_##R *)d = (sixteen_##R){ 0 } + u; \
            *(sixteen_##R *)(d + 16) = (sixteen_##R){ 0 } + v; \
            return 1; \
        } \
        return !m || name##_lanes(w, m, s, b, a, d); \
    }
#define STORE(name, T, R) \
    static __attribute__((noinline)) int name##_lanes(struct n_warp *w, n_u32 m, const struct n_shape *s, const void *b, \
                                                      const struct n_access *a, const R *v) \
    { \
        n_u64 own[N_LANES] __attribute__((aligned(64))), stride = a->space == N_LOCAL ? w->local_bytes : 0; \
        n_u8 *p = reach(w, s, a, sizeof(T)); \
        addresses(own, m, s, a, b); \
        for (n_u32 l = 0; l < N_LANES; l++) { \
            if (!(m >> l & 1)) continue; \
            n_u8 *q = p ? p + (own[l] - s->low) + l * stride : place(w, a->space, own[l] + a->off, sizeof(T), l, a->site, a->at); \
            if (!q) return 0; \
            *(volatile T *)q = (T)v[l]; \
        } \
        return 1; \
    } \
    IN int name(struct n_warp *w, n_u32 m, const struct n_shape *s, const void *b, const struct n_access *a, const R *v) \
    { \
        n_u8 *p; \
        if (a->space != N_LOCAL && m == ~0u && s->step[0] == sizeof(T) && s->step[1] == sizeof(T) && (p = reach(w, s, a, sizeof(T)))) { \
            T u[N_LANES] __attribute__((aligned(64))); \
            for (n_u32 l = 0; l < N_LANES; l++) u[l] = (T)v[l]; \
            __builtin_memcpy(p + s->at[0], u, 16 * sizeof(T)); \
            __builtin_memcpy(p + s->at[1], u + 16, 16 * sizeof(T)); \
            return 1; \
        } \
        return !m || name##_lanes(w, m, s, b, a, v); \
    }
LOAD(ld_u8_32, n_u8, n_u32, n_u32) LOAD(ld_s8_32, n_s8, n_u32, n_s32) LOAD(ld_u16_32, n_u16, n_u32, n_u32)
LOAD(ld_s16_32, n_s16, n_u32, n_s32) LOAD(ld_u32_32, n_u32, n_u32, n_u32) LOAD(ld_u8_64, n_u8, n_u64, n_u64)
LOAD(ld_s8_64, n_s8, n_u64, n_s64) LOAD(ld_u16_64, n_u16, n_u64, n_u64) LOAD(ld_s16_64, n_s16, n_u64, n_s64)
LOAD(ld_u32_64, n_u32, n_u64, n_u64) LOAD(ld_s32_64, n_s32, n_u64, n_s64) LOAD(ld_u64_64, n_u64, n_u64, n_u64)
STORE(st_8_32, n_u8, n_u32) STORE(st_16_32, n_u16, n_u32) STORE(st_32_32, n_u32, n_u32) STORE(st_8_64, n_u8, n_u64)
STORE(st_16_64, n_u16, n_u64) STORE(st_32_64, n_u32, n_u64) STORE(st_64_64, n_u64, n_u64)

/* The places of a vector access, each lane's one; lanes that take no part have another's. */
static int places(struct n_warp *w, n_u32 m, const struct n_shape *s, const void *b, const struct n_access *a, n_u32 bytes, n_u8 **to)
{
    n_u64 own[N_LANES] __attribute__((aligned(64))), stride = a->space == N_LOCAL ? w->local_bytes : 0;
    n_u8 *p = m ? reach(w, s, a, bytes) : 0, *any = 0;

    addresses(own, m, s, a, b);
    for (n_u32 l = 0; p && l < N_LANES; l++)
        to[l] = p + (own[l] - s->low) + l * stride;
    for (n_u32 l = 0; !p && l < N_LANES; l++)
        if (m >> l & 1 && !(any = to[l] = place(w, a->space, own[l] + a->off, bytes, l, a->site, a->at)))
            return 0;
    for (n_u32 l = 0; !p && l < N_LANES; l++)
        to[l] = m >> l & 1 ? to[l] : any;
    return 1;
}

/* A shuffle by the whole warp; `in`: which lanes' sources lie in their segment, or NULL. As source() of ptx_warp.c. */
IN void shuffle(n_u32 mode, const n_u32 *a, n_u32 b, n_u32 c, n_u32 *d, n_u32 *in)
{
    n_u32 before[N_LANES] __attribute__((aligned(64))), segment = c >> 8 & 31;

    __builtin_memcpy(before, a, sizeof(before));
    b &= 31;
    for (n_u32 l = 0; l < N_LANES; l++) {
        n_u32 bottom = l & segment, top = bottom | (c & 31 & ~segment);
        n_u32 from = mode == N_UP ? l - b : mode == N_DOWN ? l + b : mode == N_BFLY ? l ^ b : bottom | (b & ~segment);
        n_u32 yes = mode == N_UP ? (n_s32)from >= (n_s32)((c & 31) | bottom) : from <= top;
        d[l] = before[(yes ? from : l) & 31];
        if (in) in[l] = yes;
    }
}

/* A vote by the whole warp. */
IN void vote(n_u32 mode, n_u32 yes, n_u32 *d)
{
    n_u32 v = mode == N_BALLOT ? yes : mode == N_ALL ? yes == ~0u : mode == N_ANY ? yes != 0 : yes == 0 || yes == ~0u;

    for (n_u32 l = 0; l < N_LANES; l++)
        d[l] = v;
}

IN void copy_local(struct n_warp *w, n_u32 m, n_u64 to, n_u64 from, n_u64 bytes)
{
    for (n_u32 l = 0; l < N_LANES; l++)
        if (m >> l & 1)
            __builtin_memmove(w->local + l * w->local_bytes + to, w->local + l * w->local_bytes + from, bytes);
}

#endif
#endif
