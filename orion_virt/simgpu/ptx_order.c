/* SPDX-License-Identifier: Apache-2.0 */
/* The order in which a basic block's instructions are written: loads first, with what their addresses need, so that the
 * arithmetic between them becomes one loop over the lanes, whose values stay in the machine's registers. */
#include <stdlib.h>

#include "ptx_translate.h"

#define WINDOW 256u          /* instructions that are looked at together */

struct window {
    struct translator *t;
    uint32_t first, nr;
    uint32_t out;            /* where the next one goes in the order */
    bool written[WINDOW], needed[WINDOW];
};

static bool is_load(const struct translator *t, uint32_t pc)
{
    const struct ptx_insn *i = &t->m->code[pc];

    return i->exec == ptx_ld && ptx_how(t, i) == H_MEMORY;
}

static bool moves(const struct translator *t, uint32_t pc)
{
    enum how how = ptx_how(t, &t->m->code[pc]);

    return how == H_LANES || how == H_NOTHING || is_load(t, pc);
}

static bool share(const int32_t *a, unsigned nr_a, const int32_t *b, unsigned nr_b)
{
    for (unsigned k = 0; k < nr_a; k++)
        for (unsigned n = 0; n < nr_b; n++)
            if (a[k] == b[n])
                return true;
    return false;
}

/* The later one must stay behind the earlier one: it reads or writes what that writes, or writes what that reads. */
static bool depends(const struct translator *t, const struct ptx_insn *later, const struct ptx_insn *earlier)
{
    int32_t uses[PTX_OPERANDS_MAX], defs[PTX_OPERANDS_MAX], before[2 * PTX_OPERANDS_MAX];
    unsigned nr_uses = ptx_uses(t, later, uses), nr_defs = ptx_defs(t, later, defs);
    unsigned written = ptx_defs(t, earlier, before), nr = written + ptx_uses(t, earlier, before + written);

    return share(uses, nr_uses, before, written) || share(defs, nr_defs, before, nr);
}

/* Marks what an instruction needs before it; false: a load among that is not written yet. */
static bool mark(struct window *w, uint32_t k)
{
    const struct ptx_insn *code = &w->t->m->code[w->first];
    bool wanted[WINDOW] = { false };

    wanted[k] = true;
    for (uint32_t at = k + 1; at-- > 0;)
        for (uint32_t n = 0; wanted[at] && n < at; n++) {
            if (w->written[n] || wanted[n] || !depends(w->t, &code[at], &code[n]))
                continue;
            if (is_load(w->t, w->first + n))
                return false;
            wanted[n] = true;
        }
    wanted[k] = false;
    for (uint32_t n = 0; n < k; n++)
        w->needed[n] |= wanted[n];
    return true;
}

static void write(struct window *w, uint32_t k)
{
    w->t->order[w->out++] = w->first + k;
    w->written[k] = true;
}

/* The next loads, as many as need no other's value, behind what they need; false: none is left. */
static bool write_loads(struct window *w)
{
    uint32_t end = 0, loads = 0;

    memset(w->needed, 0, sizeof(w->needed));
    for (; end < w->nr; end++)
        if (is_load(w->t, w->first + end) && !w->written[end] && ++loads && !mark(w, end))
            break;
    for (uint32_t k = 0; k < w->nr; k++)
        if (w->needed[k] && !w->written[k])
            write(w, k);
    for (uint32_t k = 0; k < end; k++)
        if (is_load(w->t, w->first + k) && !w->written[k])
            write(w, k);
    return loads > 0;
}

static uint32_t order_window(struct translator *t, uint32_t first)
{
    struct window w = { .t = t, .first = first, .out = first };

    while (w.nr < WINDOW && first + w.nr < t->m->nr_code && t->reached[first + w.nr] && (!w.nr || !t->leader[first + w.nr]) &&
           moves(t, first + w.nr))
        w.nr++;
    while (write_loads(&w))
        ;
    for (uint32_t k = 0; k < w.nr; k++)
        if (!w.written[k])
            write(&w, k);
    return first + (w.nr ? w.nr : 1);
}

bool ptx_order(struct translator *t)
{
    t->order = calloc(t->m->nr_code + 1u, sizeof(*t->order));
    if (!t->order)
        return false;
    for (uint32_t pc = 0; pc < t->m->nr_code; pc++)
        t->order[pc] = pc;
    for (uint32_t pc = 0; pc < t->m->nr_code;)
        pc = t->reached[pc] ? order_window(t, pc) : pc + 1;
    return true;
}
