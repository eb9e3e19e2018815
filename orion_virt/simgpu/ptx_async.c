/* SPDX-License-Identifier: Apache-2.0 */
/* Asynchronous copies, which are done at once, and barrier objects in memory (mbarrier). */
#include "ptx_internal.h"

/* cp.async: a global to b shared, i->off bytes, of which operand c says how many are copied; the rest is zero. */
void ptx_cpasync(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    unsigned bytes = i->nr;

    EACH {
        uint64_t from = i->c < 0 ? bytes : (uint32_t)REG(i->c)[l];
        if (i->c >= 0 && i->flags & F_NEG_C) /* a predicate: true ignores the source */
            from = REG(i->c)[l] ? 0 : bytes;
        void *to = ptx_at(w, l, S_SHARED, REG(i->a)[l] + (uint64_t)i->off, bytes), *source = NULL;
        if (to && from)
            source = ptx_at(w, l, S_GLOBAL, REG(i->b)[l] + (uint64_t)(int64_t)(int32_t)i->target, bytes);
        if (!to || (from && !source))
            return;
        memset(to, 0, bytes);
        if (source)
            memcpy(to, source, from < bytes ? from : bytes);
    }
}

/* A barrier object, 64 bits: arrivals that are missing, arrivals of a phase, number of the phase. */
#define PENDING(v) ((v) & 0xfffff)
#define EXPECTED(v) ((v) >> 20 & 0xfffff)
#define PHASE(v) ((v) >> 40)

static uint64_t arrived(uint64_t v, uint32_t count, bool drop)
{
    uint64_t expected = EXPECTED(v) - (drop ? count : 0), pending = PENDING(v) - count, phase = PHASE(v);

    if (!(pending & 0xfffff)) {
        pending = expected;
        phase++;
    }
    return phase << 40 | (expected & 0xfffff) << 20 | (pending & 0xfffff);
}

static uint64_t count_of(struct ptx_warp *w, const struct ptx_insn *i, unsigned l)
{
    return i->b < 0 ? 1 : REG(i->b)[l] & 0xfffff;
}

void ptx_mbarrier(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    EACH {
        uint64_t *p = ptx_at(w, l, i->space, REG(i->a)[l] + (uint64_t)i->off, 8), old;
        if (!p)
            return;
        old = *p;
        switch (i->mode) {
        case M_INIT: *p = count_of(w, i, l) << 20 | count_of(w, i, l); break;
        case M_INVAL: *p = 0; break;
        case M_ARRIVE: case M_ARRIVE_DROP: *p = arrived(old, (uint32_t)count_of(w, i, l), i->mode == M_ARRIVE_DROP); break;
        case M_PENDING: REG(i->d)[l] = PENDING(REG(i->b)[l]); continue;
        default: /* M_TEST: has the phase of the token, or of this parity, ended? */
            REG(i->d)[l] = i->flags & F_PARITY ? (PHASE(old) & 1) != (REG(i->b)[l] & 1) : PHASE(old) != PHASE(REG(i->b)[l]);
            continue;
        }
        if (i->d >= 0)
            REG(i->d)[l] = old;
    }
}
