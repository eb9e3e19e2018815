/* SPDX-License-Identifier: Apache-2.0 */
/* Sets up blocks and warps and runs the blocks of a grid on the host's threads, in order or (cooperative) in turns. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

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

/* In a warp's next blocks only the block's number is another. */
static void fill_constants(struct ptx_warp *w, const struct ptx_kernel *f)
{
    for (unsigned k = 0; k < f->nr_constants; k++) {
        const struct ptx_constant *c = &f->constants[k];
        uint64_t *r = REG(c->slot);
        for (unsigned l = 0; c->fill == FILL_CTAID && l < PTX_LANES; l++)
            r[l] = w->block->ctaid[c->value];
        for (unsigned l = 0; !w->filled && l < PTX_LANES; l++)
            r[l] = fill_value(w, l, c);
    }
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
    w->filled = true;
}

static void block_free(struct ptx_block *b)
{
    for (unsigned k = 0; b->warps && k < b->nr_warps; k++) {
        ptx_native_release(&b->warps[k]);
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
    ptx_native_adopt(b, true);
}

#define WORTH_NS 200000u /* of work that is left: less is done before other threads have started */

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec;
}

/* One turn for each warp. */
static void block_step(struct ptx_block *b)
{
    bool ran = false, alive = false;

    ptx_native_adopt(b, false);
    for (unsigned k = 0; k < b->nr_warps && !b->status; k++) {
        ran |= ptx_run_warp(&b->warps[k]);
        alive |= b->warps[k].alive != 0;
    }
    b->done = !alive;
    if (!b->native) {
        ptx_native_consider((struct ptx_kernel *)b->kernel, b->launch->translate, b->executed);
        b->executed = 0;
    }
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
    if (b->deadline && now_s() >= b->deadline && !b->status)
        ptx_fault(&b->warps[0], 0, PTX_DEADLINE, "the kernel ran longer than %u s", b->launch->timeout_s);
}

/* ---- a grid on several host threads ---- */

struct grid {
    struct ptx_kernel *kernel;
    const struct ptx_launch *launch;
    const struct ptx_memory *memory;
    uint64_t nr, workspace, deadline;
    unsigned nr_threads, helpers;
    bool asked;                      /* for helpers */
    uint64_t began;                  /* ns */
    pthread_t threads[PTX_THREADS_MAX];
    _Atomic uint64_t next;           /* block to be run */
    _Atomic int status;              /* of the first block that ended badly: the others stop */
    pthread_mutex_t lock;            /* of the text */
    char *error;
    size_t error_bytes;
};

static void count(const struct grid *g)
{
    if (g->launch->done)
        __atomic_fetch_add(g->launch->done, 1, __ATOMIC_RELAXED);
}

static void report(struct grid *g, const struct ptx_block *b)
{
    pthread_mutex_lock(&g->lock);
    if (!g->status) {
        snprintf(g->error, g->error_bytes, "%s", b->error);
        g->status = (int)b->status;
    }
    pthread_mutex_unlock(&g->lock);
}

static bool grid_block(struct grid *g, struct ptx_block *b, char *error, size_t error_bytes)
{
    bool fine = block_init(b, g->kernel, g->launch, g->memory);

    b->workspace = g->workspace;
    b->deadline = g->deadline;
    b->error = error;
    b->error_bytes = error_bytes;
    if (!fine) {
        b->status = PTX_NO_MEMORY;
        report(g, b);
    }
    return fine;
}

static void *helper(void *arg);

/* Runs `body` on so many more threads; a thread that cannot be had is done without. */
static unsigned start_threads(pthread_t *threads, unsigned nr, void *(*body)(void *), void *args, size_t arg_bytes)
{
    unsigned made = 0;

    while (made < nr && !pthread_create(&threads[made], NULL, body, (char *)args + made * arg_bytes))
        made++;
    return made;
}

/* More threads, once the grid is known to take long. */
static void get_help(struct grid *g, uint64_t blocks_done)
{
    uint64_t left = g->nr > g->next ? g->nr - g->next : 0, spent;

    if (g->asked || !left || g->status)
        return;
    spent = now_ns() - g->began;
    if ((blocks_done ? left * spent / blocks_done : spent) < WORTH_NS)
        return;
    g->asked = true;
    g->helpers = start_threads(g->threads, left < g->nr_threads - 1 ? (unsigned)left : g->nr_threads - 1, helper, g, 0);
}

/* Blocks in their order, until none is left. */
static void take_blocks(struct grid *g, struct ptx_block *b, bool first)
{
    uint64_t n, done = 0;

    while (!g->status && (n = g->next++) < g->nr) {
        block_start(b, n);
        while (!b->done && !b->status && !g->status) {
            block_step(b);
            if (first)
                get_help(g, done);
        }
        if (b->status)
            report(g, b);
        done++;
        count(g);
    }
}

static void *helper(void *arg)
{
    struct grid *g = arg;
    struct ptx_block b;
    char error[512] = "";

    if (grid_block(g, &b, error, sizeof(error)))
        take_blocks(g, &b, false);
    block_free(&b);
    return NULL;
}

static void run_in_order(struct grid *g)
{
    struct ptx_block b;
    char error[512] = "";

    g->began = now_ns();
    if (grid_block(g, &b, error, sizeof(error)))
        take_blocks(g, &b, true);
    for (unsigned k = 0; k < g->helpers; k++)
        pthread_join(g->threads[k], NULL);
    block_free(&b);
}

struct share {                       /* of a grid whose blocks may wait for each other: all run, in turns */
    struct grid *grid;
    unsigned first, step;
};

static bool share_start(struct share *s, struct ptx_block *blocks, char (*errors)[512], uint64_t nr)
{
    for (uint64_t n = 0; n < nr; n++) {
        if (!grid_block(s->grid, &blocks[n], errors[n], sizeof(errors[n])))
            return false;
        block_start(&blocks[n], s->first + n * s->step);
    }
    return true;
}

static void *run_share(void *arg)
{
    struct share *s = arg;
    uint64_t nr = s->grid->nr > s->first ? (s->grid->nr - s->first + s->step - 1) / s->step : 0;
    struct ptx_block *blocks = calloc(nr + 1, sizeof(*blocks));
    char (*errors)[512] = calloc(nr + 1, sizeof(*errors));
    bool alive = blocks && errors && share_start(s, blocks, errors, nr);

    if (!blocks || !errors)
        s->grid->status = PTX_NO_MEMORY;
    while (alive && !s->grid->status) {
        alive = false;
        for (uint64_t n = 0; n < nr; n++) {
            if (blocks[n].done)
                continue;
            block_step(&blocks[n]);
            alive |= !blocks[n].done;
            if (blocks[n].done)
                count(s->grid);
            if (blocks[n].status)
                report(s->grid, &blocks[n]);
        }
    }
    for (uint64_t n = 0; blocks && n < nr; n++)
        block_free(&blocks[n]);
    free(blocks);
    free(errors);
    return NULL;
}

static void run_together(struct grid *g)
{
    pthread_t threads[PTX_THREADS_MAX];
    struct share shares[PTX_THREADS_MAX];
    unsigned nr = g->nr < g->nr_threads ? (unsigned)g->nr : g->nr_threads, made;

    for (unsigned k = 0; k < nr; k++)
        shares[k] = (struct share){ g, k, nr };
    made = start_threads(threads, nr - 1, run_share, &shares[1], sizeof(shares[0]));
    run_share(&shares[0]);
    for (unsigned k = made + 1; k < nr; k++) /* not in turns with the others, but the blocks of one cannot be left out */
        run_share(&shares[k]);
    for (unsigned k = 0; k < made; k++)
        pthread_join(threads[k], NULL);
}

static unsigned host_threads(unsigned asked)
{
    cpu_set_t cpus;

    if (!asked)
        asked = sched_getaffinity(0, sizeof(cpus), &cpus) ? 1 : (unsigned)CPU_COUNT(&cpus);
    return asked > PTX_THREADS_MAX ? PTX_THREADS_MAX : asked;
}

enum ptx_status ptx_run(struct ptx_kernel *k, const struct ptx_launch *l, const struct ptx_memory *memory,
                        char *error, size_t error_bytes)
{
    uint32_t *workspace = l->cooperative ? memory->alloc(memory->arg, 8, 0) : NULL;
    struct grid g = { .kernel = k, .launch = l, .memory = memory, .nr = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2],
                      .workspace = (uint64_t)(uintptr_t)workspace, .nr_threads = host_threads(l->threads),
                      .lock = PTHREAD_MUTEX_INITIALIZER, .error = error, .error_bytes = error_bytes };

    if (l->cooperative && !workspace)
        return PTX_NO_MEMORY;
    if (workspace)
        workspace[0] = 8;
    ptx_native_consider(k, l->translate, 0);
    if (l->timeout_s)
        g.deadline = now_s() + l->timeout_s + 1; /* whole seconds, so at least as long */
    if (l->cooperative)
        run_together(&g);
    else
        run_in_order(&g);
    if (workspace)
        memory->free(memory->arg, workspace);
    return (enum ptx_status)g.status;
}
