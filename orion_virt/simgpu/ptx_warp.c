/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions in which the lanes of a warp exchange values. */
#include "ptx_internal.h"

/* The source lane of a shuffle and whether it lies in the segment. */
static bool source(const struct ptx_insn *i, unsigned l, unsigned b, unsigned c, unsigned *from)
{
    unsigned segment = c >> 8 & 31, top = (l & segment) | (c & 31 & ~segment), bottom = l & segment;
    bool in;

    switch (i->mode) {
    case M_UP: *from = l - b; in = (int)*from >= (int)((c & 31) | bottom); break; /* clamp is the lowest lane here */
    case M_DOWN: *from = l + b; in = *from <= top; break;
    case M_BFLY: *from = l ^ b; in = *from <= top; break;
    default: *from = bottom | (b & ~segment & 31); in = *from <= top; break;
    }
    if (!in)
        *from = l;
    return in;
}

void ptx_shfl(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), *b = REG(i->b), *c = REG(i->c), before[PTX_LANES];

    memcpy(before, a, sizeof(before)); /* destination and source may be one register */
    EACH {
        unsigned from;
        bool in = source(i, l, (unsigned)b[l] & 31, (unsigned)c[l], &from);
        d[l] = (uint32_t)before[from];
        if (i->d2 >= 0)
            REG(i->d2)[l] = in;
    }
}

void ptx_vote(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);
    uint32_t yes = 0;

    EACH yes |= (uint32_t)((a[l] != 0) != ((i->flags & F_NEG_C) != 0)) << l;
    EACH d[l] = i->mode == M_BALLOT ? yes : i->mode == M_ALL ? yes == m : i->mode == M_ANY ? yes != 0
                : yes == 0 || yes == m;
}

void ptx_match(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a), before[PTX_LANES];
    uint64_t mask = ptx_bytes(i->type) == 4 ? 0xffffffffu : ~0ull;

    memcpy(before, a, sizeof(before));
    EACH {
        uint32_t same = 0;
        for (unsigned k = 0; k < PTX_LANES; k++)
            if (m >> k & 1 && ((before[k] ^ before[l]) & mask) == 0)
                same |= 1u << k;
        bool all = same == m;
        d[l] = i->mode == M_ALL && !all ? 0 : same;
        if (i->d2 >= 0)
            REG(i->d2)[l] = all;
    }
}

void ptx_redux(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *d = REG(i->d), *a = REG(i->a);
    uint32_t r = 0;
    bool first = true;

    EACH {
        uint32_t v = (uint32_t)a[l];
        bool below = i->type == T_S32 ? (int32_t)v < (int32_t)r : v < r;
        if (first)
            r = v;
        else if (i->mode == M_MIN)
            r = below ? v : r;
        else if (i->mode == M_MAX)
            r = below ? r : v;
        else
            r = i->mode == M_ADD ? r + v : i->mode == M_AND ? r & v : i->mode == M_OR ? r | v : r ^ v;
        first = false;
    }
    EACH d[l] = r;
}

void ptx_elect(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    unsigned leader = (unsigned)__builtin_ctz(m);

    EACH {
        if (i->d >= 0)
            REG(i->d)[l] = leader;
        if (i->d2 >= 0)
            REG(i->d2)[l] = l == leader;
    }
}
