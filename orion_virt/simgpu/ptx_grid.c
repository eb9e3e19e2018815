/* SPDX-License-Identifier: Apache-2.0 */
/* Sets up blocks and warps and runs the clusters of a grid on the host's threads, in order or (cooperative) in turns. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ptx_internal.h"

/* In a dimension. */
static unsigned cluster_blocks(const struct ptx_launch *l, unsigned k)
{
    return l->cluster[k] ? l->cluster[k] : 1;
}

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
    case FILL_NCTAID: return l->grid[c->value];
    case FILL_CLUSTER_CTAID: return b->cluster_ctaid[c->value];
    case FILL_CLUSTER_NCTAID: return cluster_blocks(l, (unsigned)c->value);
    case FILL_CLUSTER_RANK: return b->rank;
    case FILL_CLUSTER_BLOCKS: return b->nr_cluster;
    case FILL_NCLUSTERID: return l->grid[c->value] / cluster_blocks(l, (unsigned)c->value);
    case FILL_CLUSTERED: return b->nr_cluster > 1 || w->kernel->clustered;
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

/* In a warp's next blocks only the block's number and that of its cluster are others. */
static void fill_constants(struct ptx_warp *w, const struct ptx_kernel *f)
{
    for (unsigned k = 0; k < f->nr_constants; k++) {
        const struct ptx_constant *c = &f->constants[k];
        const unsigned *number = c->fill == FILL_CTAID ? w->block->ctaid : c->fill == FILL_CLUSTERID ? w->block->clusterid : NULL;
        uint64_t *r = REG(c->slot);
        for (unsigned l = 0; number && l < PTX_LANES; l++)
            r[l] = number[c->value];
        for (unsigned l = 0; !number && !w->filled && l < PTX_LANES; l++)
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
    memset(w->arrivals, 0, sizeof(w->arrivals));
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

static void block_start(struct ptx_block *b, const unsigned clusterid[3])
{
    for (unsigned k = 0; k < 3; k++) {
        b->clusterid[k] = clusterid[k];
        b->ctaid[k] = clusterid[k] * cluster_blocks(b->launch, k) + b->cluster_ctaid[k];
    }
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

/* One turn for each warp; false: none of them ran. */
static bool block_step(struct ptx_block *b)
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
    if (alive && !b->status)
        ptx_release_barriers(b);
    return ran;
}

/* ---- clusters: of one block, where the launch has none ---- */

struct cluster {
    struct ptx_block *blocks;
    unsigned nr;
    bool done;
    enum ptx_status status;
    char error[512];
};

static bool can_run(const struct cluster *c)
{
    bool found = false;

    for (unsigned n = 0; n < c->nr && !found; n++)
        for (unsigned k = 0; k < c->blocks[n].nr_warps && !found; k++)
            found = ptx_lanes_in(&c->blocks[n].warps[k], L_RUN) != 0;
    return found;
}

/* What ends a cluster though none of its instructions failed. */
static void look_at_end(struct ptx_block *b, bool ran)
{
    if (!ran)
        ptx_fault(&b->warps[0], 0, PTX_TRAP, "threads wait at a barrier that the others never reach");
    if (b->launch->cancel && *b->launch->cancel && !b->status)
        ptx_fault(&b->warps[0], 0, PTX_TIMEOUT, "stopped");
    if (b->deadline && now_s() >= b->deadline && !b->status)
        ptx_fault(&b->warps[0], 0, PTX_DEADLINE, "the kernel ran longer than %u s", b->launch->timeout_s);
}

/* One turn for each block. */
static void cluster_step(struct cluster *c)
{
    struct ptx_block *first = NULL;
    bool ran = false;

    for (unsigned n = 0; n < c->nr && !c->status; n++) {
        struct ptx_block *b = &c->blocks[n];
        ran |= !b->done && block_step(b);
        c->status = b->status;
        if (!b->done && !first)
            first = b;
    }
    c->done = !first;
    if (!first || c->status)
        return;
    ptx_release_cluster(c->blocks, c->nr);
    look_at_end(first, ran || can_run(c));
    c->status = first->status;
}

static void cluster_start(struct cluster *c, uint64_t index)
{
    const struct ptx_launch *l = c->blocks->launch;
    unsigned x = l->grid[0] / cluster_blocks(l, 0), y = l->grid[1] / cluster_blocks(l, 1);
    unsigned id[3] = { (unsigned)(index % x), (unsigned)(index / x % y), (unsigned)(index / x / y) };

    c->done = false;
    for (unsigned n = 0; n < c->nr; n++)
        block_start(&c->blocks[n], id);
}

static void cluster_free(struct cluster *c)
{
    for (unsigned n = 0; c->blocks && n < c->nr; n++)
        block_free(&c->blocks[n]);
    free(c->blocks);
    c->blocks = NULL;
}

/* ---- a grid on several host threads ---- */

struct grid {
    struct ptx_kernel *kernel;
    const struct ptx_launch *launch;
    const struct ptx_memory *memory;
    uint64_t nr, workspace, deadline; /* nr: clusters */
    unsigned cluster_blocks, nr_threads, helpers;
    bool asked;                      /* for helpers */
    uint64_t began;                  /* ns */
    pthread_t threads[PTX_THREADS_MAX];
    _Atomic uint64_t next;           /* cluster to be run */
    _Atomic int status;              /* of the first one that ended badly: the others stop */
    pthread_mutex_t lock;            /* of the text */
    char *error;
    size_t error_bytes;
};

static void count(const struct grid *g)
{
    if (g->launch->done)
        __atomic_fetch_add(g->launch->done, g->cluster_blocks, __ATOMIC_RELAXED);
}

static void report(struct grid *g, const struct cluster *c)
{
    pthread_mutex_lock(&g->lock);
    if (!g->status) {
        snprintf(g->error, g->error_bytes, "%s", c->error);
        g->status = (int)c->status;
    }
    pthread_mutex_unlock(&g->lock);
}

static void join(struct cluster *c, unsigned rank)
{
    struct ptx_block *b = &c->blocks[rank];
    unsigned x = cluster_blocks(b->launch, 0), y = cluster_blocks(b->launch, 1);

    b->cluster = c->blocks;
    b->nr_cluster = c->nr;
    b->rank = rank;
    b->cluster_ctaid[0] = rank % x;
    b->cluster_ctaid[1] = rank / x % y;
    b->cluster_ctaid[2] = rank / x / y;
    b->error = c->error;
    b->error_bytes = sizeof(c->error);
}

static bool grid_cluster(struct grid *g, struct cluster *c)
{
    bool fine;

    *c = (struct cluster){ .nr = g->cluster_blocks, .blocks = calloc(g->cluster_blocks, sizeof(*c->blocks)) };
    fine = c->blocks;
    for (unsigned n = 0; fine && n < c->nr; n++) {
        fine = block_init(&c->blocks[n], g->kernel, g->launch, g->memory);
        c->blocks[n].workspace = g->workspace;
        c->blocks[n].deadline = g->deadline;
        join(c, n);
    }
    if (!fine) {
        c->status = PTX_NO_MEMORY;
        report(g, c);
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
static void get_help(struct grid *g, uint64_t clusters_done)
{
    uint64_t left = g->nr > g->next ? g->nr - g->next : 0, spent;

    if (g->asked || !left || g->status)
        return;
    spent = now_ns() - g->began;
    if ((clusters_done ? left * spent / clusters_done : spent) < WORTH_NS)
        return;
    g->asked = true;
    g->helpers = start_threads(g->threads, left < g->nr_threads - 1 ? (unsigned)left : g->nr_threads - 1, helper, g, 0);
}

/* Clusters in their order, until none is left. */
static void take_clusters(struct grid *g, struct cluster *c, bool first)
{
    uint64_t n, done = 0;

    while (!g->status && (n = g->next++) < g->nr) {
        cluster_start(c, n);
        while (!c->done && !c->status && !g->status) {
            cluster_step(c);
            if (first)
                get_help(g, done);
        }
        if (c->status)
            report(g, c);
        done++;
        count(g);
    }
}

static void *helper(void *arg)
{
    struct grid *g = arg;
    struct cluster c;

    if (grid_cluster(g, &c))
        take_clusters(g, &c, false);
    cluster_free(&c);
    return NULL;
}

static void run_in_order(struct grid *g)
{
    struct cluster c;

    g->began = now_ns();
    if (grid_cluster(g, &c))
        take_clusters(g, &c, true);
    for (unsigned k = 0; k < g->helpers; k++)
        pthread_join(g->threads[k], NULL);
    cluster_free(&c);
}

struct share {                       /* of a grid whose clusters may wait for each other: all run, in turns */
    struct grid *grid;
    unsigned first, step;
};

static bool share_start(struct share *s, struct cluster *clusters, uint64_t nr)
{
    for (uint64_t n = 0; n < nr; n++) {
        if (!grid_cluster(s->grid, &clusters[n]))
            return false;
        cluster_start(&clusters[n], s->first + n * s->step);
    }
    return true;
}

static void *run_share(void *arg)
{
    struct share *s = arg;
    uint64_t nr = s->grid->nr > s->first ? (s->grid->nr - s->first + s->step - 1) / s->step : 0;
    struct cluster *clusters = calloc(nr + 1, sizeof(*clusters));
    bool alive = clusters && share_start(s, clusters, nr);

    if (!clusters)
        s->grid->status = PTX_NO_MEMORY;
    while (alive && !s->grid->status) {
        alive = false;
        for (uint64_t n = 0; n < nr; n++) {
            if (clusters[n].done)
                continue;
            cluster_step(&clusters[n]);
            alive |= !clusters[n].done;
            if (clusters[n].done)
                count(s->grid);
            if (clusters[n].status)
                report(s->grid, &clusters[n]);
        }
    }
    for (uint64_t n = 0; clusters && n < nr; n++)
        cluster_free(&clusters[n]);
    free(clusters);
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
    for (unsigned k = made + 1; k < nr; k++) /* not in turns with the others, but its clusters cannot be left out */
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
    unsigned blocks = cluster_blocks(l, 0) * cluster_blocks(l, 1) * cluster_blocks(l, 2);
    struct grid g = { .kernel = k, .launch = l, .memory = memory, .cluster_blocks = blocks,
                      .nr = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2] / blocks,
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
