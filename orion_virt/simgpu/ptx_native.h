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

#define N_VERSION 1
#define N_LANES 32u
enum n_space { N_GENERIC, N_GLOBAL, N_SHARED, N_LOCAL, N_PARAM, N_CONST }; /* as enum ptx_space */
enum n_left { N_CHOOSE, N_CONTROL };       /* why translated code returns: choose a group; interpret one instruction first */

struct n_range {                           /* memory that an instruction found accessible last */
    n_u64 start, bytes;
};
struct n_warp {
    void *warp;                            /* struct ptx_warp */
    n_u64 *regs;                           /* the interpreter's slots: constants, return addresses */
    n_u32 *r32;                            /* registers that live longer than a basic block: 32 lanes each */
    n_u64 *r64;
    n_u32 *pc;
    struct n_range *ranges;                /* of each instruction that accesses memory */
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
#define DIVIDE(name, T, least) \
    IN T div_##name(T a, T b) { return b == 0 ? (T)~(T)0 : (least) && b == (T)-1 ? (T)(0 - (n_u64)a) : (T)(a / b); } \
    IN T rem_##name(T a, T b) { return b == 0 ? a : (least) && b == (T)-1 ? 0 : (T)(a % b); }
IN n_u64 low_bits(n_u32 n) { return n >= 64 ? ~0ull : (1ull << n) - 1; }
IN n_u64 bfi(n_u64 a, n_u64 b, n_u32 at, n_u32 n, n_u32 width)
{
    n_u64 mask = (at & 255) >= width ? 0 : low_bits(n & 255) << (at & 255 & (width - 1));
    return (b & ~mask) | (a << (at & (width - 1)) & mask);
}
IN n_u64 bfe(n_u64 v, n_u32 at, n_u32 n, n_u32 width)
{
    return (at & 255) >= width ? 0 : v >> (at & (width - 1)) & low_bits(n & 255);
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

/* Where the memory of a space begins and how much there is from `address` on; 0: not in one piece or not there. */
IN n_u8 *piece(struct n_warp *w, n_u32 space, n_u64 address, n_u64 bytes, n_u32 site)
{
    struct n_range *r = &w->ranges[site];

    if (space == N_SHARED)
        return address < w->shared_bytes && w->shared_bytes - address >= bytes ? w->shared + address : 0;
    if (space == N_PARAM)
        return address < w->params_bytes && w->params_bytes - address >= bytes ? (n_u8 *)w->params + address : 0;
    if (address - r->start >= r->bytes) {
        if (space == N_LOCAL || address >> 56)
            return 0;
        r->bytes = w->extent(w, address);
        r->start = address; /* a lower place of the same memory is found anew; the lowest soon is */
    }
    return r->bytes - (address - r->start) >= bytes ? (n_u8 *)address : 0;
}

/* The place of one lane's access. */
IN n_u8 *place(struct n_warp *w, n_u32 space, n_u64 address, n_u32 bytes, n_u32 l, n_u32 site, n_u32 at)
{
    n_u8 *p = 0;

    if (!(address & (bytes - 1))) {
        if (space == N_LOCAL)
            p = address < w->local_bytes && w->local_bytes - address >= bytes ? w->local + l * w->local_bytes + address : 0;
        else
            p = piece(w, space, address, bytes, site);
    }
    return p ? p : w->find(w, at, l, space, address, bytes);
}

/* The lanes' addresses, those that take no part like the first that does: their lowest, highest and all their bits. */
struct n_spread {
    n_u64 low, high, bits;
};
IN struct n_spread spread(n_u32 m, const n_u64 *a, n_u64 *b, n_u32 step)
{
    n_u64 first = a[__builtin_ctz(m)], low = ~0ull, high = 0, all = 0;

    for (n_u32 l = 0; l < N_LANES; l++) {
        n_u64 v = m >> l & 1 ? a[l] : first;
        b[l] = v + l * step;
        low = v < low ? v : low;
        high = v > high ? v : high;
        all |= v;
    }
    return (struct n_spread){ low, high, all };
}

/* The memory that all lanes access, if it is one piece; b[l] - s.low are the places in it. */
IN n_u8 *together(struct n_warp *w, n_u32 space, n_u32 m, const n_u64 *a, n_u64 *b, struct n_spread *s, n_u32 bytes, n_u32 site)
{
    *s = spread(m, a, b, space == N_LOCAL ? (n_u32)w->local_bytes : 0);
    if (s->bits & (bytes - 1))
        return 0;
    if (space == N_LOCAL)
        return s->high < w->local_bytes && w->local_bytes - s->high >= bytes ? w->local + s->low : 0;
    return piece(w, space, s->low, s->high - s->low + bytes, site);
}

/* Half a warp's addresses: all one, one behind the other, or neither. */
enum { N_ONE, N_ROW, N_ANY };
IN int pattern(const n_u64 *b, n_u64 step)
{
    n_u64 one = 0, row = 0;

    for (n_u32 l = 0; l < 16; l++) {
        one |= b[l] ^ b[0];
        row |= b[l] ^ (b[0] + l * step);
    }
    return !one ? N_ONE : !row ? N_ROW : N_ANY;
}

#define LOAD(name, T, R, W) \
    IN void name##_half(const n_u8 *p, n_u64 low, n_u32 m, const n_u64 *b, R *d) \
    { \
        int how = pattern(b, sizeof(T)); \
        const T *q = (const T *)(p + (b[0] - low)); \
        if (how == N_ONE) { \
            R v = (R)(W)*q; \
            for (n_u32 l = 0; l < 16; l++) d[l] = m >> l & 1 ? v : d[l]; \
        } else if (how == N_ROW) { \
            for (n_u32 l = 0; l < 16; l++) d[l] = m >> l & 1 ? (R)(W)q[l] : d[l]; \
        } else { \
            for (n_u32 l = 0; l < 16; l++) { R v = (R)(W)*(const T *)(p + (b[l] - low)); d[l] = m >> l & 1 ? v : d[l]; } \
        } \
    } \
    static int name(struct n_warp *w, n_u32 space, n_u32 m, const n_u64 *a, R *d, n_u32 site, n_u32 at) \
    { \
        n_u64 b[N_LANES] __attribute__((aligned(64))); \
        struct n_spread s; \
        n_u8 *p; \
        if (!m) return 1; \
        if ((p = together(w, space, m, a, b, &s, sizeof(T), site))) { \
            name##_half(p, s.low, m, b, d); \
            name##_half(p, s.low, m >> 16, b + 16, d + 16); \
            return 1; \
        } \
        for (n_u32 l = 0; l < N_LANES; l++) { \
            if (!(m >> l & 1)) continue; \
            if (!(p = place(w, space, a[l], sizeof(T), l, site, at))) return 0; \
            d[l] = (R)(W)*(volatile T *)p; \
        } \
        return 1; \
    }
#define STORE(name, T, R) \
    static int name(struct n_warp *w, n_u32 space, n_u32 m, const n_u64 *a, const R *v, n_u32 site, n_u32 at) \
    { \
        n_u64 b[N_LANES] __attribute__((aligned(64))); \
        struct n_spread s; \
        n_u8 *p; \
        if (!m) return 1; \
        if ((p = together(w, space, m, a, b, &s, sizeof(T), site))) { \
            if (m == ~0u && s.high - s.low == 31 * sizeof(T) && pattern(b, sizeof(T)) == N_ROW && \
                pattern(b + 16, sizeof(T)) == N_ROW && b[16] > b[0]) { \
                for (n_u32 l = 0; l < N_LANES; l++) ((T *)p)[l] = (T)v[l]; \
                return 1; \
            } \
            for (n_u32 l = 0; l < N_LANES; l++) \
                if (m >> l & 1) *(volatile T *)(p + (b[l] - s.low)) = (T)v[l]; \
            return 1; \
        } \
        for (n_u32 l = 0; l < N_LANES; l++) { \
            if (!(m >> l & 1)) continue; \
            if (!(p = place(w, space, a[l], sizeof(T), l, site, at))) return 0; \
            *(volatile T *)p = (T)v[l]; \
        } \
        return 1; \
    }
LOAD(ld_u8_32, n_u8, n_u32, n_u32) LOAD(ld_s8_32, n_s8, n_u32, n_s32) LOAD(ld_u16_32, n_u16, n_u32, n_u32)
LOAD(ld_s16_32, n_s16, n_u32, n_s32) LOAD(ld_u32_32, n_u32, n_u32, n_u32) LOAD(ld_u8_64, n_u8, n_u64, n_u64)
LOAD(ld_s8_64, n_s8, n_u64, n_s64) LOAD(ld_u16_64, n_u16, n_u64, n_u64) LOAD(ld_s16_64, n_s16, n_u64, n_s64)
LOAD(ld_u32_64, n_u32, n_u64, n_u64) LOAD(ld_s32_64, n_s32, n_u64, n_s64) LOAD(ld_u64_64, n_u64, n_u64, n_u64)
STORE(st_8_32, n_u8, n_u32) STORE(st_16_32, n_u16, n_u32) STORE(st_32_32, n_u32, n_u32) STORE(st_8_64, n_u8, n_u64)
STORE(st_16_64, n_u16, n_u64) STORE(st_32_64, n_u32, n_u64) STORE(st_64_64, n_u64, n_u64)

/* The places of a vector access, each lane's one. */
IN int places(struct n_warp *w, n_u32 space, n_u32 m, const n_u64 *a, n_u8 **p, n_u32 bytes, n_u32 site, n_u32 at)
{
    for (n_u32 l = 0; l < N_LANES; l++)
        if (m >> l & 1 && !(p[l] = place(w, space, a[l], bytes, l, site, at)))
            return 0;
    return 1;
}

IN void copy_local(struct n_warp *w, n_u32 m, n_u64 to, n_u64 from, n_u64 bytes)
{
    for (n_u32 l = 0; l < N_LANES; l++)
        if (m >> l & 1)
            __builtin_memmove(w->local + l * w->local_bytes + to, w->local + l * w->local_bytes + from, bytes);
}

#endif
#endif
