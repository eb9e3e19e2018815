/* SPDX-License-Identifier: Apache-2.0 */
/* What graphs keep: user objects; and conditions, each a word of device memory that kernels write. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct CUuserObject_st {
    void *data;
    CUhostFn destroy;
    unsigned refs; /* [lock] */
};
struct sim_kept {
    struct CUuserObject_st *object;
    unsigned count;
    struct sim_kept *next;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Drops references; the destructor runs on this thread. */
static void put(struct CUuserObject_st *o, unsigned count)
{
    bool last;

    pthread_mutex_lock(&lock);
    o->refs -= count;
    last = !o->refs;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    sim_unregister(o);
    o->destroy(o->data);
    free(o);
}

static void get(struct CUuserObject_st *o, unsigned count)
{
    pthread_mutex_lock(&lock);
    o->refs += count;
    pthread_mutex_unlock(&lock);
}

SIM_API CUresult cuUserObjectCreate(CUuserObject *out, void *data, CUhostFn destroy, unsigned count, unsigned flags)
{
    struct CUuserObject_st *o;

    if (!out || !destroy || !count || flags != 1)
        return CUDA_ERROR_INVALID_VALUE;
    o = calloc(1, sizeof(*o));
    if (!o || !sim_register(o, SIM_OBJECT)) {
        free(o);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *o = (struct CUuserObject_st){ data, destroy, count };
    *out = o;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuUserObjectRetain(CUuserObject o, unsigned count)
{
    if (!sim_valid(o, SIM_OBJECT) || !count)
        return CUDA_ERROR_INVALID_VALUE;
    get(o, count);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuUserObjectRelease(CUuserObject o, unsigned count)
{
    if (!sim_valid(o, SIM_OBJECT) || !count || count > o->refs)
        return CUDA_ERROR_INVALID_VALUE;
    put(o, count);
    return CUDA_SUCCESS;
}

static bool keep(struct CUgraph_st *g, struct CUuserObject_st *o, unsigned count)
{
    struct sim_kept *k;

    for (k = g->kept; k && k->object != o; k = k->next)
        ;
    if (!k) {
        k = calloc(1, sizeof(*k));
        if (!k)
            return false;
        k->object = o;
        k->next = g->kept;
        g->kept = k;
    }
    k->count += count;
    return true;
}

SIM_API CUresult cuGraphRetainUserObject(CUgraph g, CUuserObject o, unsigned count, unsigned flags)
{
    if (!sim_valid(g, SIM_GRAPH) || !sim_valid(o, SIM_OBJECT) || !count || flags > 1)
        return CUDA_ERROR_INVALID_VALUE;
    if (!keep(g, o, count))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!flags)
        get(o, count);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphReleaseUserObject(CUgraph g, CUuserObject o, unsigned count)
{
    struct sim_kept **at, *k;

    if (!sim_valid(g, SIM_GRAPH) || !sim_valid(o, SIM_OBJECT) || !count)
        return CUDA_ERROR_INVALID_VALUE;
    for (at = &g->kept; *at && (*at)->object != o; at = &(*at)->next)
        ;
    k = *at;
    if (!k || k->count < count)
        return CUDA_ERROR_INVALID_VALUE;
    k->count -= count;
    if (!k->count) {
        *at = k->next;
        free(k);
    }
    put(o, count);
    return CUDA_SUCCESS;
}

void sim_kept_drop(struct CUgraph_st *g)
{
    for (struct sim_kept *k = g->kept, *next; k; k = next) {
        next = k->next;
        put(k->object, k->count);
        free(k);
    }
    g->kept = NULL;
}

bool sim_kept_clone(struct CUgraph_st *to, const struct CUgraph_st *from)
{
    for (const struct sim_kept *k = from->kept; k; k = k->next) {
        if (!keep(to, k->object, k->count))
            return false;
        get(k->object, k->count);
    }
    return true;
}

/* ---- conditions ---- */

struct word {
    uint32_t value, initial, assign, reserved;
};

static struct word *word_of(uint64_t handle)
{
    return sim_space_extent(handle) >= sizeof(struct word) ? (struct word *)(uintptr_t)handle : NULL;
}

SIM_API CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle *out, CUgraph graph, CUcontext ctx,
                                                unsigned initial, unsigned flags)
{
    struct CUctx_st *current;
    uint64_t at;
    CUresult r = sim_enter(&current);

    if (r)
        return r;
    if (!out || !sim_valid(graph, SIM_GRAPH) || flags > 1 || (ctx && !sim_context_valid(ctx)))
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_space_alloc(ctx ? ctx : current, (ctx ? ctx : current)->device, sizeof(struct word), SIM_MEM_GLOBAL, 0, &at);
    if (r)
        return r;
    *(struct word *)(uintptr_t)at = (struct word){ initial, initial, flags, 0 };
    *out = at;
    return CUDA_SUCCESS;
}

/* Added by cuGraphAddNode only. */
CUresult sim_condition_add(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                           CUDA_CONDITIONAL_NODE_PARAMS *p)
{
    struct sim_work work = { .kind = SIM_WORK_EMPTY };
    CUgraph *bodies;
    CUresult r;

    if (p->type > 2 || !p->size || !word_of(p->handle) || (p->type == 1 && p->size > 1) || (!p->type && p->size > 2))
        return CUDA_ERROR_INVALID_VALUE;
    bodies = calloc(p->size + 1, sizeof(*bodies));
    if (!bodies)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_CONDITIONAL, &work);
    if (r) {
        free(bodies);
        return r;
    }
    (*out)->condition = *p;
    (*out)->condition.phGraph_out = p->phGraph_out = bodies;
    for (unsigned i = 0; i < p->size; i++) {
        bodies[i] = sim_graph_create();
        if (!bodies[i]) {
            (*out)->condition.size = i;
            cuGraphDestroyNode(*out);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        bodies[i]->owned = true;
    }
    return CUDA_SUCCESS;
}

CUresult sim_condition_run(struct CUctx_st *ctx, struct CUgraphNode_st *n,
                           CUresult (*run)(struct CUctx_st *ctx, struct CUgraph_st *g))
{
    struct word *w = word_of(n->condition.handle);
    CUresult r = CUDA_SUCCESS;

    if (!w)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    if (n->condition.type == 1)
        while (!r && !ctx->cancel && __atomic_load_n(&w->value, __ATOMIC_ACQUIRE))
            r = run(ctx, n->condition.phGraph_out[0]);
    else if (n->condition.type == 2)
        r = w->value < n->condition.size ? run(ctx, n->condition.phGraph_out[w->value]) : CUDA_SUCCESS;
    else if (w->value || n->condition.size > 1)
        r = run(ctx, n->condition.phGraph_out[w->value ? 0 : 1]);
    return r;
}

void sim_condition_reset(struct CUgraph_st *g)
{
    for (size_t i = 0; i < g->nr_nodes; i++) {
        struct CUgraphNode_st *n = g->nodes[i];
        struct word *w = n->condition.phGraph_out ? word_of(n->condition.handle) : NULL;

        if (w && w->assign)
            w->value = w->initial;
        for (unsigned b = 0; n->condition.phGraph_out && b < n->condition.size; b++)
            sim_condition_reset(n->condition.phGraph_out[b]);
    }
}
