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

/* One of two by a mask's lowest bit, without the masked stores that a conditional store becomes: those are slow. */
#define BLEND(T, bit, yes, no) (T)(((T)(yes) & ((T)0 - ((T)(bit) & 1))) | ((T)(no) & ~((T)0 - ((T)(bit) & 1))))

/* The addresses in a register, once for all accesses by it: lanes that take no part have the first one's that does. */
struct n_addresses {
    const n_u64 *b;                        /* the register, or `own` */
    n_u64 own[N_LANES] __attribute__((aligned(64)));
    n_u64 low, high, bits;                 /* the lowest, the highest, all bits of all */
    n_u64 step[2];                         /* from lane to lane within each half of the warp, ~0: irregular */
};
IN void extremes(struct n_addresses *x)
{
    n_u64 low = ~0ull, high = 0, all = 0;

    for (n_u32 l = 0; l < N_LANES; l++) {
        low = x->b[l] < low ? x->b[l] : low;
        high = x->b[l] > high ? x->b[l] : high;
        all |= x->b[l];
    }
    x->low = low;
    x->high = high;
    x->bits = all;
}

static const n_u64 n_first_15[16] __attribute__((aligned(64))) = { ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull,
                                                                   ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, ~0ull, 0 };

static void analyse(n_u32 m, struct n_addresses *x, const n_u64 *b)
{
    n_u64 first, ends[4], off[2] = { 0, 0 }, step[2] = { b[1] - b[0], b[17] - b[16] };

    x->b = b;
    if (m != ~0u) {
        first = b[__builtin_ctz(m)];
        for (n_u32 l = 0; l < N_LANES; l++)
            x->own[l] = BLEND(n_u64, m >> l, b[l], first);
        b = x->b = x->own;
        step[0] = b[1] - b[0];
        step[1] = b[17] - b[16];
    }
    for (n_u32 l = 0; l < 16; l++)
        off[0] |= ((b[l + 1] - b[l]) ^ step[0]) & n_first_15[l];
    for (n_u32 l = 0; l < 15; l++)
        off[1] |= (b[17 + l] - b[16 + l]) ^ step[1];
    x->step[0] = off[0] ? ~0ull : step[0];
    x->step[1] = off[1] ? ~0ull : step[1];
    if (off[0] | off[1] || (step[0] + (1ull << 31)) >> 32 || (step[1] + (1ull << 31)) >> 32)
        return extremes(x);
    /* regular: the ends of the halves are the extremes, and what is aligned at their start and by step is everywhere */
    ends[0] = b[0], ends[1] = b[15], ends[2] = b[16], ends[3] = b[31];
    x->low = x->high = ends[0];
    for (n_u32 k = 1; k < 4; k++) {
        x->low = ends[k] < x->low ? ends[k] : x->low;
        x->high = ends[k] > x->high ? ends[k] : x->high;
    }
    x->bits = ends[0] | ends[2] | step[0] | step[1];
}

/* The memory that all lanes access, if it is one piece: where the lowest address is. */
IN n_u8 *together(struct n_warp *w, n_u32 space, const struct n_addresses *x, n_u64 off, n_u32 bytes, n_u32 site)
{
    if ((x->bits | off) & (bytes - 1) || x->low + off > x->high + off)
        return 0;
    if (space == N_LOCAL)
        return x->high + off < w->local_bytes && w->local_bytes - (x->high + off) >= bytes ? w->local + x->low + off : 0;
    return piece(w, space, x->low + off, x->high - x->low + bytes, site);
}

#define LOAD(name, T, R, W) \
    IN void name##_half(const n_u8 *p, n_u64 step, n_u32 m, const n_u64 *b, n_u64 low, R *d) \
    { \
        const T *q = (const T *)(p + (b[0] - low)); \
        if (step == 0) { \
            R v = (R)(W)*q; \
            if ((m & 0xffff) == 0xffff) for (n_u32 l = 0; l < 16; l++) d[l] = v; \
            else for (n_u32 l = 0; l < 16; l++) d[l] = BLEND(R, m >> l, v, d[l]); \
        } else if (step == sizeof(T)) { \
            if ((m & 0xffff) == 0xffff) for (n_u32 l = 0; l < 16; l++) d[l] = (R)(W)q[l]; \
            else for (n_u32 l = 0; l < 16; l++) d[l] = BLEND(R, m >> l, (R)(W)q[l], d[l]); \
        } else { \
            for (n_u32 l = 0; l < 16; l++) { R v = (R)(W)*(const T *)(p + (b[l] - low)); d[l] = BLEND(R, m >> l, v, d[l]); } \
        } \
    } \
    static int name(struct n_warp *w, n_u32 space, n_u32 m, const struct n_addresses *x, n_u64 off, R *d, n_u32 site, n_u32 at) \
    { \
        n_u8 *p; \
        if (!m) return 1; \
        if ((p = together(w, space, x, off, sizeof(T), site))) { \
            if (space != N_LOCAL) { \
                name##_half(p, x->step[0], m, x->b, x->low, d); \
                name##_half(p, x->step[1], m >> 16, x->b + 16, x->low, d + 16); \
                return 1; \
            } \
            for (n_u32 l = 0; l < N_LANES; l++) { \
                R v = (R)(W)*(const T *)(p + (x->b[l] - x->low) + l * w->local_bytes); \
                d[l] = BLEND(R, m >> l, v, d[l]); \
            } \
            return 1; \
        } \
        for (n_u32 l = 0; l < N_LANES; l++) { \
            if (!(m >> l & 1)) continue; \
            if (!(p = place(w, space, x->b[l] + off, sizeof(T), l, site, at))) return 0; \
            d[l] = (R)(W)*(volatile T *)p; \
        } \
        return 1; \
    }
#define STORE(name, T, R) \
    static int name(struct n_warp *w, n_u32 space, n_u32 m, const struct n_addresses *x, n_u64 off, const R *v, n_u32 site, n_u32 at) \
    { \
        n_u8 *p; \
        if (!m) return 1; \
        if ((p = together(w, space, x, off, sizeof(T), site))) { \
            n_u64 stride = space == N_LOCAL ? w->local_bytes : 0; \
            if (!stride && m == ~0u && x->step[0] == sizeof(T) && x->step[1] == sizeof(T)) { \
                T *q = (T *)(p + (x->b[0] - x->low)), *r = (T *)(p + (x->b[16] - x->low)); \
                for (n_u32 l = 0; l < 16; l++) q[l] = (T)v[l]; \
                for (n_u32 l = 0; l < 16; l++) r[l] = (T)v[16 + l]; \
                return 1; \
            } \
            for (n_u32 l = 0; l < N_LANES; l++) \
                if (m >> l & 1) *(volatile T *)(p + (x->b[l] - x->low) + l * stride) = (T)v[l]; \
            return 1; \
        } \
        for (n_u32 l = 0; l < N_LANES; l++) { \
            if (!(m >> l & 1)) continue; \
            if (!(p = place(w, space, x->b[l] + off, sizeof(T), l, site, at))) return 0; \
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
static int places(struct n_warp *w, n_u32 space, n_u32 m, const struct n_addresses *x, n_u64 off, n_u8 **p, n_u32 bytes, n_u32 site,
                  n_u32 at)
{
    n_u8 *q = m ? together(w, space, x, off, bytes, site) : 0;

    for (n_u32 l = 0; q && l < N_LANES; l++)
        p[l] = q + (x->b[l] - x->low) + (space == N_LOCAL ? l * w->local_bytes : 0);
    for (n_u32 l = 0; !q && l < N_LANES; l++)
        if (m >> l & 1 && !(p[l] = place(w, space, x->b[l] + off, bytes, l, site, at)))
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
