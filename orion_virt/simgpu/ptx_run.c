/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a grid: blocks, their warps, and within a warp groups of lanes at one instruction. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "ptx_internal.h"

#define BUDGET 20000u /* instructions until another group, warp or block gets its turn: others may be waited for */

void ptx_fault(struct ptx_warp *w, unsigned lane, enum ptx_status s, const char *format, ...)
{
    struct ptx_block *b = w->block;
    unsigned t = w->index * PTX_LANES + lane, x = b->launch->block[0], y = b->launch->block[1];
    va_list args;
    int n;

    if (b->status)
        return;
    b->status = s;
    n = snprintf(b->error, b->error_bytes, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u), PTX line %u: ",
                 w->kernel->name, b->ctaid[0], b->ctaid[1], b->ctaid[2], t % x, t / x % y, t / x / y,
                 w->kernel->module->code[w->at].line);
    va_start(args, format);
    if (n > 0 && (size_t)n < b->error_bytes)
        vsnprintf(b->error + n, b->error_bytes - (size_t)n, format, args);
    va_end(args);
}

/* ---- groups of a warp ---- */

/* The lanes whose byte is `value`, which like all of them is below 128. */
static uint32_t equal_bytes(const uint8_t *bytes, unsigned value)
{
    uint32_t m = 0;

    for (unsigned l = 0; l < PTX_LANES; l += 8) { /* a bit of each byte of eight that is zero after the comparison */
        uint64_t eight, differ;
        memcpy(&eight, bytes + l, 8);
        differ = eight ^ value * 0x0101010101010101ull;
        differ = ~(differ + 0x7f7f7f7f7f7f7f7full) & 0x8080808080808080ull; /* small: no byte carries into the next */
        m |= (uint32_t)((differ >> 7) * 0x0102040810204080ull >> 56) << l;
    }
    return m;
}

uint32_t ptx_lanes_in(const struct ptx_warp *w, enum ptx_lane state)
{
    return equal_bytes(w->state, state);
}

/* For loops over lanes that the compiler turns into vector code: bits of a mask, not shifts by the lane. */
static const uint32_t lane_bit[PTX_LANES] = {
    1u << 0, 1u << 1, 1u << 2, 1u << 3, 1u << 4, 1u << 5, 1u << 6, 1u << 7, 1u << 8, 1u << 9, 1u << 10,
    1u << 11, 1u << 12, 1u << 13, 1u << 14, 1u << 15, 1u << 16, 1u << 17, 1u << 18, 1u << 19, 1u << 20, 1u << 21,
    1u << 22, 1u << 23, 1u << 24, 1u << 25, 1u << 26, 1u << 27, 1u << 28, 1u << 29, 1u << 30, 1u << 31,
};

/* Where the next group stands: at the lowest instruction, so that the others wait for it to come by; when one ran for
 * long, at the lowest behind it, in turn, since what it waits for may be theirs to do. */
static uint32_t next_pc(struct ptx_warp *w, uint32_t ready)
{
    uint32_t lowest = UINT32_MAX, behind = UINT32_MAX;

    for (unsigned l = 0; l < PTX_LANES; l++) {
        if (!(ready >> l & 1))
            continue;
        if (w->pc[l] < lowest)
            lowest = w->pc[l];
        if (w->pc[l] > w->last && w->pc[l] < behind)
            behind = w->pc[l];
    }
    return w->rotate && behind != UINT32_MAX ? behind : lowest;
}

/* All these lanes stand at one instruction. */
static bool united(const struct ptx_warp *w, uint32_t m)
{
    uint32_t first = w->pc[__builtin_ctz(m)], other = 0;

    if (m == ~0u) /* as it mostly is */
        return !memcmp(w->pc, w->pc + 1, sizeof(w->pc) - sizeof(w->pc[0]));
    for (unsigned l = 0; l < PTX_LANES; l++)
        other |= m & lane_bit[l] ? w->pc[l] ^ first : 0;
    return !other;
}

static uint32_t choose(struct ptx_warp *w, uint32_t *pc)
{
    uint32_t ready = ptx_lanes_in(w, L_RUN), m = 0;
    bool one;

    if (!ready && (ready = ptx_lanes_in(w, L_SYNC))) { /* the lanes that they wait for will not come: go on without */
        for (unsigned l = 0; l < PTX_LANES; l++)
            if (w->state[l] == L_SYNC)
                w->state[l] = L_RUN;
        w->stuck = true;
    }
    if (!ready)
        return 0;
    one = united(w, ready);
    *pc = one ? w->pc[__builtin_ctz(ready)] : next_pc(w, ready);
    w->rotate = false;
    w->last = *pc;
    if (one)
        return ready;
    for (unsigned l = 0; l < PTX_LANES; l++)
        m |= (uint32_t)(ready >> l & 1 && w->pc[l] == *pc) << l;
    return m;
}

static void set_pc(struct ptx_warp *w, uint32_t m, uint32_t pc)
{
    for (unsigned l = 0; l < PTX_LANES; l++)
        w->pc[l] = m & lane_bit[l] ? pc : w->pc[l];
}

static void set_bytes(uint8_t *bytes, uint32_t m, unsigned value)
{
    if (m == ~0u)
        memset(bytes, (int)value, PTX_LANES);
    else
        EACH bytes[l] = (uint8_t)value;
}

static void set_state(struct ptx_warp *w, uint32_t m, enum ptx_lane state)
{
    set_bytes(w->state, m, state);
}

static uint32_t guarded(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    uint64_t *p;
    uint32_t taken = 0;

    if (i->pred < 0)
        return m;
    p = REG(i->pred);
    EACH taken |= (uint32_t)((p[l] != 0) != i->pred_neg) << l;
    return taken;
}

static void end_lanes(struct ptx_warp *w, uint32_t m)
{
    set_state(w, m, L_EXIT);
    w->alive &= ~m;
}

/* Those of `m` that name the same lanes as its first. */
static uint32_t same_mask(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m)
{
    int32_t slot = ptx_mask_slot(i);
    uint32_t same = 0;

    if (slot < 0)
        return m;
    EACH same |= (uint32_t)((uint32_t)REG(slot)[l] == (uint32_t)REG(slot)[__builtin_ctz(m)]) << l;
    return same;
}

/* Lanes that execute an instruction of the whole warp wait until all that its mask names are there. */
static uint32_t gather(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, uint32_t pc)
{
    int32_t slot = ptx_mask_slot(i);
    uint32_t want, here = m;

    if (slot < 0)
        return m;
    want = (uint32_t)REG(slot)[__builtin_ctz(m)];
    for (unsigned l = 0; l < PTX_LANES; l++)
        if (w->state[l] == L_SYNC && w->pc[l] == pc && (uint32_t)REG(slot)[l] == want)
            here |= 1u << l;
    want &= w->alive;
    /* A lane that waits at another instruction for others may come yet. */
    if ((here & want) == want || w->stuck || !((ptx_lanes_in(w, L_RUN) | ptx_lanes_in(w, L_SYNC)) & want & ~here)) {
        set_state(w, here, L_RUN);
        return here;
    }
    set_pc(w, m, pc);
    set_state(w, m, L_SYNC);
    return 0;
}

static void wait_at_barrier(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, uint32_t pc)
{
    while (m) { /* those that name the same one, at once */
        unsigned id = i->a < 0 ? 0 : (unsigned)REG(i->a)[__builtin_ctz(m)] & 15;
        uint32_t same = m;
        bool one = i->a < 0 || !memcmp(REG(i->a), REG(i->a) + 1, (PTX_LANES - 1) * sizeof(*REG(i->a)));
        for (unsigned l = 0; !one && l < PTX_LANES; l++)
            if (((unsigned)REG(i->a)[l] & 15) != id)
                same &= ~(1u << l);
        set_bytes(w->barrier, same, id);
        set_pc(w, same, pc + (i->flags & F_ARRIVE ? 1 : 0));
        w->block->arrived[id] += (unsigned)__builtin_popcount(same);
        if (!(i->flags & F_ARRIVE))
            set_state(w, same, L_BARRIER);
        m &= ~same;
    }
}

/* Branches of a group: true when its lanes part or move, and the group must be chosen anew. */
static bool branch(struct ptx_warp *w, const struct ptx_insn *i, uint32_t m, uint32_t taken, uint32_t *pc)
{
    if (i->op == OP_BRX) {
        const int32_t *table = w->kernel->module->lists + i->list;
        set_pc(w, m, *pc + 1);
        for (unsigned l = 0; l < PTX_LANES; l++)
            if (taken >> l & 1)
                w->pc[l] = (uint32_t)table[(uint32_t)REG(i->a)[l] < i->nr ? (uint32_t)REG(i->a)[l] : 0];
        return true;
    }
    if (taken == m) {
        *pc = i->target;
        return false;
    }
    if (!taken) {
        ++*pc;
        return false;
    }
    set_pc(w, m, *pc + 1);
    set_pc(w, taken, i->target);
    return true;
}

/* What the run loop does itself. True: choose a group anew. */
static bool control(struct ptx_warp *w, const struct ptx_insn *i, uint32_t *m, uint32_t *pc)
{
    uint32_t taken = guarded(w, i, *m), all;

    if (i->op == OP_BRA || i->op == OP_BRX)
        return branch(w, i, *m, taken, pc);
    if (!taken || i->op == OP_NOP) {
        ++*pc;
        return false;
    }
    set_pc(w, *m, *pc + 1);
    switch (i->op) {
    case OP_CALL: ptx_enter(w, i, taken, *pc); break;
    case OP_YIELD:
        if (i->exec) {
            i->exec(w, i, taken);
            ptx_native_results(w, i, taken);
        }
        w->rotate = w->yielded = true;
        break;
    case OP_RET:
        if (w->kernel->module->functions[i->target]->entry)
            end_lanes(w, taken);
        else
            ptx_leave(w, i, taken);
        break;
    case OP_EXIT: end_lanes(w, taken); break;
    case OP_BAR: wait_at_barrier(w, i, taken, *pc); break;
    case OP_CLUSTER: ptx_meet_cluster(w, i, taken); break;
    case OP_TRAP: ptx_fault(w, (unsigned)__builtin_ctz(taken), PTX_TRAP, "trap"); break;
    default: /* OP_WARPSYNC */
        for (uint32_t same; taken; taken &= ~same) { /* several parts of a warp may be there, each with a mask of its own */
            same = same_mask(w, i, taken);
            all = gather(w, i, same, *pc);
            if (all && i->exec) {
                i->exec(w, i, all);
                ptx_native_results(w, i, all);
            }
            if (all)
                set_pc(w, all, *pc + 1);
        }
    }
    return true;
}

/* The lowest instruction at which other lanes wait: a group that gets there is joined with them. */
uint32_t ptx_next_meeting(const struct ptx_warp *w, uint32_t m, uint32_t pc)
{
    uint32_t at = UINT32_MAX;

    for (unsigned l = 0; l < PTX_LANES; l++)
        if (!(m >> l & 1) && w->state[l] == L_RUN && w->pc[l] >= pc && w->pc[l] < at)
            at = w->pc[l];
    return at;
}

/* Instructions until the lanes part, wait or meet others; the budget is looked at where translated code may take over. */
static void run_group(struct ptx_warp *w, uint32_t m, uint32_t pc, unsigned *budget)
{
    const struct ptx_insn *code = w->kernel->module->code;
    uint32_t meeting = ptx_next_meeting(w, m, pc), start = pc;

    for (bool first = true;; first = false) {
        const struct ptx_insn *i = &code[pc];
        if (!first && (pc == meeting || (meeting != UINT32_MAX && pc > meeting && start < meeting)))
            break;
        w->at = pc;
        *budget -= *budget != 0;
        if (i->op != OP_EXEC) {
            uint32_t before = pc;
            if (control(w, i, &m, &pc))
                return;
            if (pc < before) /* backwards: what is met next may be nearer */
                meeting = ptx_next_meeting(w, m, start = pc);
            if (!*budget)
                break;
            continue;
        }
        uint32_t on = guarded(w, i, m);
        if (on)
            i->exec(w, i, on);
        if (w->block->status)
            return;
        pc++;
    }
    set_pc(w, m, pc);
    if (!*budget)
        w->rotate = true;
    w->last = pc;
}

static void run_translated(struct ptx_warp *w, uint32_t m, uint32_t pc, unsigned *budget)
{
    uint32_t at, mask;

    if (!ptx_native_run(w, m, pc, budget, &at, &mask))
        return;
    w->at = at;
    if (!control(w, &w->kernel->module->code[at], &mask, &at))
        set_pc(w, mask, at);
}

bool ptx_run_warp(struct ptx_warp *w)
{
    unsigned budget = BUDGET;
    uint32_t m, pc = 0;
    bool ran = false;

    while (budget && !w->block->status && (m = choose(w, &pc))) {
        if (w->block->native)
            run_translated(w, m, pc, &budget);
        else
            run_group(w, m, pc, &budget);
        budget -= budget != 0;
        w->stuck = false;
        ran = true;
        if (w->rotate && w->yielded) { /* what it waits for may be another warp's to do */
            w->yielded = false;
            break;
        }
    }
    w->block->executed += BUDGET - budget;
    return ran;
}

/* ---- barriers ---- */

static unsigned expected(const struct ptx_block *b, const struct ptx_warp *w, unsigned lane, const struct ptx_insn *i)
{
    unsigned alive = 0;

    if (i->b >= 0)
        return (unsigned)REG(i->b)[lane];
    for (unsigned k = 0; k < b->nr_warps; k++)
        alive += (unsigned)__builtin_popcount(b->warps[k].alive);
    return alive;
}

static uint32_t waiting(const struct ptx_warp *w, unsigned id)
{
    return ptx_lanes_in(w, L_BARRIER) & equal_bytes(w->barrier, id);
}

/* The result of bar.red over all lanes that wait at the barrier. */
static unsigned barrier_result(const struct ptx_block *b, unsigned id, const struct ptx_insn *i)
{
    unsigned yes = 0, all = 0;

    for (unsigned k = 0; k < b->nr_warps; k++) {
        struct ptx_warp *w = &b->warps[k];
        uint32_t m = waiting(w, id);
        all += (unsigned)__builtin_popcount(m);
        EACH yes += (REG(i->c)[l] != 0) != ((i->flags & F_NEG_C) != 0);
    }
    return i->mode == M_POPC ? yes : i->mode == M_AND ? yes == all : yes != 0;
}

static void release(struct ptx_block *b, unsigned id, const struct ptx_insn *i)
{
    unsigned result = i->flags & F_RED ? barrier_result(b, id, i) : 0;

    for (unsigned k = 0; k < b->nr_warps; k++) {
        struct ptx_warp *w = &b->warps[k];
        uint32_t m = waiting(w, id);
        if (i->flags & F_RED && m) {
            EACH REG(i->d)[l] = result;
            ptx_native_results(w, i, m);
        }
        set_state(w, m, L_RUN);
        for (unsigned l = 0; l < PTX_LANES; l++)
            w->pc[l] += m & lane_bit[l] ? 1 : 0;
    }
    b->arrived[id] = 0;
}

void ptx_release_barriers(struct ptx_block *b)
{
    for (unsigned id = 0; id < 16; id++)
        for (unsigned k = 0; b->arrived[id] && k < b->nr_warps; k++) {
            struct ptx_warp *w = &b->warps[k];
            uint32_t m = waiting(w, id);
            if (!m)
                continue;
            const struct ptx_insn *i = &w->kernel->module->code[w->pc[__builtin_ctz(m)]];
            if (b->arrived[id] >= expected(b, w, (unsigned)__builtin_ctz(m), i))
                release(b, id, i);
            break;
        }
}
