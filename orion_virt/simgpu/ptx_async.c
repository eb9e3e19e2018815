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

/* A barrier object, 64 bits: arrivals that are missing, arrivals of a phase, bytes that are missing (below zero: they came before
 * they were expected), number of the phase, of which only the last few are told apart. */
#define PENDING(v) ((v) & 0xfffff)
#define EXPECTED(v) ((v) >> 20 & 0xfffff)
#define BYTES(v) ((v) >> 40 & 0x1fffff)
#define PHASE(v) ((v) >> 61)
#define BYTES_MAX 0xfffffu           /* that one phase may expect, as the ISA has it */

static uint64_t barrier(uint64_t pending, uint64_t expected, uint64_t bytes, uint64_t phase)
{
    pending &= 0xfffff;
    bytes &= 0x1fffff;
    if (!pending && !bytes) {
        pending = expected & 0xfffff;
        phase++;
    }
    return phase << 61 | bytes << 40 | (expected & 0xfffff) << 20 | pending;
}

static uint64_t arrived(uint64_t v, uint32_t count, bool drop)
{
    return barrier(PENDING(v) - count, EXPECTED(v) - (drop ? count : 0), BYTES(v), PHASE(v));
}

static uint64_t completed(uint64_t v, uint32_t bytes)
{
    return barrier(PENDING(v), EXPECTED(v), BYTES(v) - bytes, PHASE(v));
}

/* More bytes to come in this phase; false after a fault. */
static bool expect(struct ptx_warp *w, unsigned lane, uint64_t *v, uint32_t bytes)
{
    int64_t now = (int64_t)(BYTES(*v) ^ 0x100000) - 0x100000; /* of 21 bits, with a sign */

    if (bytes > BYTES_MAX || now + (int64_t)bytes > (int64_t)BYTES_MAX) {
        ptx_fault(w, lane, PTX_ILLEGAL_INSTRUCTION, "a phase of an mbarrier that expects %lld bytes, of %u at most",
                  (long long)now + bytes, BYTES_MAX);
        return false;
    }
    *v = (*v & ~(0x1fffffull << 40)) | (uint64_t)((now + bytes) & 0x1fffff) << 40;
    return true;
}

static uint64_t count_of(struct ptx_warp *w, const struct ptx_insn *i, unsigned l)
{
    return i->b < 0 || i->flags & F_EXPECT_TX ? 1 : REG(i->b)[l] & 0xfffff;
}

void ptx_mbarrier(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    EACH {
        uint64_t *p, old;
        if (i->mode == M_PENDING) { /* of a token, not of a barrier */
            REG(i->d)[l] = PENDING(REG(i->b)[l]);
            continue;
        }
        if (!(p = ptx_at(w, l, i->space, REG(i->a)[l] + (uint64_t)i->off, 8)))
            return;
        if ((i->flags & F_EXPECT_TX || i->mode == M_EXPECT_TX) && !expect(w, l, p, (uint32_t)REG(i->b)[l]))
            return;
        old = *p;
        switch (i->mode) {
        case M_INIT: *p = count_of(w, i, l) << 20 | count_of(w, i, l); break;
        case M_INVAL: *p = 0; break;
        case M_ARRIVE: case M_ARRIVE_DROP: *p = arrived(old, (uint32_t)count_of(w, i, l), i->mode == M_ARRIVE_DROP); break;
        case M_EXPECT_TX: break;
        case M_COMPLETE_TX: *p = completed(old, (uint32_t)REG(i->b)[l]); break;
        default: /* M_TEST: has the phase of the token, or of this parity, ended? */
            REG(i->d)[l] = i->flags & F_PARITY ? (PHASE(old) & 1) != (REG(i->b)[l] & 1) : PHASE(old) != PHASE(REG(i->b)[l]);
            continue;
        }
        if (i->d >= 0)
            REG(i->d)[l] = old;
    }
}

/* Bytes that came: the barrier at `address` hears of them. False after a fault. */
static bool complete(struct ptx_warp *w, unsigned lane, uint64_t address, uint32_t bytes)
{
    uint64_t *p = ptx_at(w, lane, S_SHARED, address, 8);

    if (p)
        *p = completed(*p, bytes);
    return p;
}

static void store_and_complete(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, ptx_exec *store, uint32_t bytes)
{
    EACH {
        store(w, i, 1u << l);
        if (w->block->status || !complete(w, l, REG(i->e)[l] + (uint64_t)(int64_t)(int32_t)i->target, bytes))
            return;
    }
}

void ptx_stasync(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    store_and_complete(w, i, m, ptx_st, ptx_bytes(i->type) * i->nr);
}

void ptx_redasync(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    store_and_complete(w, i, m, ptx_atom, ptx_bytes(i->type));
}

/* ---- cp.async.bulk ---- */

#define PIECE 16u                    /* what addresses and sizes are multiples of */

static bool copy(struct ptx_warp *w, const struct ptx_insn *i, unsigned l, uint64_t to, uint32_t bytes)
{
    uint64_t from = REG(i->b)[l] + (uint64_t)(int64_t)(int32_t)i->target;

    if (bytes % PIECE) {
        ptx_fault(w, l, PTX_ILLEGAL_INSTRUCTION, "cp.async.bulk of %u bytes, which is not a multiple of %u", bytes, PIECE);
        return false;
    }
    for (uint32_t at = 0; at < bytes; at += PIECE) {
        const void *source = ptx_at(w, l, i->geometry, from + at, PIECE);
        void *target = source ? ptx_at(w, l, i->space, to + at, PIECE) : NULL;
        if (!target)
            return false;
        memmove(target, source, PIECE);
    }
    return true;
}

/* To the same places, data and barrier, of each block that the mask names. False after a fault. */
static bool to_blocks(struct ptx_warp *w, const struct ptx_insn *i, unsigned l, uint64_t to, uint64_t barrier_at, uint32_t bytes)
{
    uint32_t blocks = (uint16_t)REG(i->d)[l];

    for (unsigned rank = 0; rank < 16; rank++)
        if (blocks >> rank & 1 && !(copy(w, i, l, ptx_shared_of(w->block, rank, to), bytes) &&
                                    complete(w, l, ptx_shared_of(w->block, rank, barrier_at), bytes)))
            return false;
    return true;
}

/* Done at once: a later wait finds it complete. */
void ptx_cpbulk(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    EACH {
        uint32_t bytes = (uint32_t)REG(i->c)[l];
        uint64_t to = REG(i->a)[l] + (uint64_t)i->off;
        uint64_t barrier_at = i->e < 0 ? 0 : REG(i->e)[l] + (uint64_t)(int64_t)w->kernel->module->lists[i->list];
        if (i->d >= 0 ? !to_blocks(w, i, l, to, barrier_at, bytes)
            : !copy(w, i, l, to, bytes) || (i->e >= 0 && !complete(w, l, barrier_at, bytes)))
            return;
    }
}
