/* SPDX-License-Identifier: Apache-2.0 */
/* Sets up blocks and warps and runs the blocks of a grid, one after the other or (cooperative) in turns. */
#include <stdio.h>
#include <stdlib.h>

#include "ptx_internal.h"

static uint64_t fill_value(const struct ptx_warp *w, unsigned lane, const struct ptx_constant *c)
{
    const struct ptx_block *b = w->block;
    const struct ptx_launch *l = b->launch;
    unsigned t = w->index * PTX_LANES + lane;
    unsigned tid[3] = { t % l->block[0], t / l->block[0] % l->block[1], t / l->block[0] / l->block[1] };

    switch (c->fill) {
    case FILL_LOCAL: return c->value + w->kernel->module->local_bytes;
    case FILL_SHARED: return c->value + w->kernel->module->shared_bytes;
    case FILL_DYNAMIC: return b->dynamic_off;
    case FILL_DYNAMIC_BYTES: return l->dynamic_shared;
    case FILL_TID: return tid[c->value];
    case FILL_NTID: return l->block[c->value];
    case FILL_CTAID: return b->ctaid[c->value];
    case FILL_NCTAID: return l->grid[c->value];
    case FILL_WORKSPACE: return (uint32_t)(b->workspace >> c->value);
    case FILL_LANE: return lane;
    case FILL_WARP: return w->index;
    case FILL_NWARP: return b->nr_warps;
    case FILL_MASK_EQ: return 1u << lane;
    case FILL_MASK_LT: return (1u << lane) - 1;
    case FILL_MASK_LE: return (2u << lane) - 1;
    case FILL_MASK_GT: return ~((2u << lane) - 1);
    case FILL_MASK_GE: return ~((1u << lane) - 1);
    default: return c->value;
    }
}

/* Of local memory: what functions and the kernel declare; the stack follows. */
static unsigned static_bytes(const struct ptx_kernel *k)
{
    return (k->module->local_bytes + k->local_bytes + 31u) & ~15u;
}

static void fill_constants(struct ptx_warp *w, const struct ptx_kernel *f)
{
    for (unsigned k = 0; k < f->nr_constants; k++)
        for (unsigned l = 0; l < PTX_LANES; l++)
            REG(f->constants[k].slot)[l] = fill_value(w, l, &f->constants[k]);
}

static void start_warp(struct ptx_warp *w)
{
    const struct ptx_module *m = w->kernel->module;
    unsigned first = w->index * PTX_LANES;

    w->alive = 0;
    w->cc = 0;
    w->rotate = false;
    for (unsigned l = 0; l < PTX_LANES; l++) {
        w->pc[l] = w->kernel->first;
        w->sp[l] = w->fp[l] = static_bytes(w->kernel);
        w->state[l] = first + l < w->block->threads ? L_RUN : L_EXIT;
        w->alive |= (uint32_t)(w->state[l] == L_RUN) << l;
    }
    fill_constants(w, w->kernel);
    for (unsigned k = 0; k < m->nr_functions; k++)
        if (!m->functions[k]->entry && m->functions[k]->defined)
            fill_constants(w, m->functions[k]);
}

static void block_free(struct ptx_block *b)
{
    for (unsigned k = 0; b->warps && k < b->nr_warps; k++) {
        free(b->warps[k].regs);
        free(b->warps[k].local);
    }
    free(b->warps);
    free(b->shared);
    b->warps = NULL;
    b->shared = NULL;
}

static bool block_init(struct ptx_block *b, const struct ptx_kernel *k, const struct ptx_launch *l,
                       const struct ptx_memory *memory)
{
    size_t fixed = (ptx_shared_bytes(k) + 15) & ~(size_t)15;

    memset(b, 0, sizeof(*b));
    b->launch = l;
    b->memory = memory;
    b->kernel = k;
    b->threads = l->block[0] * l->block[1] * l->block[2];
    b->nr_warps = (b->threads + PTX_LANES - 1) / PTX_LANES;
    b->dynamic_off = (unsigned)fixed;
    b->shared_bytes = fixed + l->dynamic_shared;
    b->shared = aligned_alloc(64, (b->shared_bytes + 127) & ~(size_t)63);
    b->warps = calloc(b->nr_warps, sizeof(*b->warps));
    for (unsigned n = 0; b->warps && n < b->nr_warps; n++) {
        struct ptx_warp *w = &b->warps[n];
        w->block = b;
        w->kernel = k;
        w->index = n;
        w->local_bytes = static_bytes(k) + (k->module->needs_stack ? PTX_STACK_BYTES : 0);
        w->regs = calloc((size_t)k->slots * PTX_LANES + 1, sizeof(*w->regs));
        w->local = calloc(PTX_LANES, w->local_bytes);
        if (!w->regs || !w->local)
            return false;
    }
    return b->warps && b->shared;
}

static void block_start(struct ptx_block *b, uint64_t index)
{
    const unsigned *g = b->launch->grid;

    b->ctaid[0] = (unsigned)(index % g[0]);
    b->ctaid[1] = (unsigned)(index / g[0] % g[1]);
    b->ctaid[2] = (unsigned)(index / g[0] / g[1]);
    b->done = false;
    memset(b->arrived, 0, sizeof(b->arrived));
    memset(b->shared, 0, b->shared_bytes);
    for (unsigned k = 0; k < b->nr_warps; k++)
        start_warp(&b->warps[k]);
}

/* One turn for each warp. */
static void block_step(struct ptx_block *b)
{
    bool ran = false, alive = false;

    for (unsigned k = 0; k < b->nr_warps && !b->status; k++) {
        ran |= ptx_run_warp(&b->warps[k]);
        alive |= b->warps[k].alive != 0;
    }
    b->done = !alive;
    if (!alive || b->status)
        return;
    ptx_release_barriers(b);
    for (unsigned k = 0; k < b->nr_warps && !ran; k++)
        for (unsigned l = 0; l < PTX_LANES; l++)
            ran |= b->warps[k].state[l] == L_RUN;
    if (!ran)
        ptx_fault(&b->warps[0], 0, PTX_TRAP, "threads wait at a barrier that the others never reach");
    if (b->launch->cancel && *b->launch->cancel && !b->status)
        ptx_fault(&b->warps[0], 0, PTX_TIMEOUT, "stopped");
}

static enum ptx_status run_in_order(struct ptx_block *b, uint64_t nr)
{
    for (uint64_t n = 0; n < nr && !b->status; n++) {
        block_start(b, n);
        while (!b->done && !b->status)
            block_step(b);
    }
    return b->status;
}

static enum ptx_status run_together(struct ptx_block *blocks, uint64_t nr)
{
    bool alive = true;

    for (uint64_t n = 0; n < nr; n++)
        block_start(&blocks[n], n);
    while (alive) {
        alive = false;
        for (uint64_t n = 0; n < nr; n++) {
            if (blocks[n].done)
                continue;
            block_step(&blocks[n]);
            alive |= !blocks[n].done;
            if (blocks[n].status)
                return blocks[n].status;
        }
    }
    return PTX_OK;
}

enum ptx_status ptx_run(struct ptx_kernel *k, const struct ptx_launch *l, const struct ptx_memory *memory,
                        char *error, size_t error_bytes)
{
    uint64_t nr = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2], together = l->cooperative ? nr : 1;
    struct ptx_block *blocks = calloc(together, sizeof(*blocks));
    uint32_t *workspace = l->cooperative ? memory->alloc(memory->arg, 8, 0) : NULL;
    enum ptx_status s = blocks && (workspace || !l->cooperative) ? PTX_OK : PTX_NO_MEMORY;

    if (workspace)
        workspace[0] = 8;

    for (uint64_t n = 0; n < together && !s; n++) {
        if (!block_init(&blocks[n], k, l, memory))
            s = PTX_NO_MEMORY;
        blocks[n].workspace = (uint64_t)(uintptr_t)workspace;
        blocks[n].error = error;
        blocks[n].error_bytes = error_bytes;
    }
    if (!s)
        s = l->cooperative ? run_together(blocks, nr) : run_in_order(blocks, nr);
    for (uint64_t n = 0; blocks && n < together; n++)
        block_free(&blocks[n]);
    free(blocks);
    if (workspace)
        memory->free(memory->arg, workspace);
    return s;
}
