/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that graphs allocate: an address for the life of the node, bytes behind it from allocation to free. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct sim_alloc {
    uint64_t address, bytes;
    struct sim_device *device;
    int refs;                  /* nodes, queued work, searches; [lock] */
    bool live, planned;        /* as the device sees it; as submitted so far */
    bool backed;               /* counts as reserved until it is trimmed */
    struct sim_alloc *next;
};
static struct sim_alloc *allocs;
static uint64_t high[SIM_MAX_DEVICES][2]; /* highest used and reserved bytes */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void show(struct sim_range *r, void *alloc)
{
    r->asleep = !((struct sim_alloc *)alloc)->live; /* a kernel faults there */
}

static uint64_t sum_locked(const struct sim_device *device, bool reserved)
{
    uint64_t bytes = 0;

    for (const struct sim_alloc *a = allocs; a; a = a->next)
        if (a->device == device && (reserved ? a->backed : a->live))
            bytes += a->bytes;
    return bytes;
}

static void set_live(struct sim_alloc *a, bool live)
{
    uint64_t *most = high[a->device->ordinal];

    pthread_mutex_lock(&lock);
    a->live = live;
    for (int i = 0; i < 2; i++)
        if (sum_locked(a->device, i) > most[i])
            most[i] = sum_locked(a->device, i);
    pthread_mutex_unlock(&lock);
    sim_space_update(a->address, show, a);
}

CUresult sim_alloc_create(struct CUctx_st *ctx, size_t bytes, struct sim_alloc **alloc, uint64_t *address)
{
    struct sim_alloc *a = calloc(1, sizeof(*a));
    CUresult r = a ? sim_space_alloc(ctx, ctx->device, bytes, SIM_MEM_POOL, 0, &a->address) : CUDA_ERROR_OUT_OF_MEMORY;

    if (r) {
        free(a);
        return r;
    }
    a->bytes = (bytes + SIM_GRANULE - 1) / SIM_GRANULE * SIM_GRANULE;
    a->device = ctx->device;
    a->refs = 1;
    pthread_mutex_lock(&lock);
    a->next = allocs;
    allocs = a;
    pthread_mutex_unlock(&lock);
    sim_space_update(a->address, show, a);
    *alloc = a;
    *address = a->address;
    return CUDA_SUCCESS;
}

struct sim_alloc *sim_alloc_find(uint64_t address)
{
    struct sim_alloc *a;

    pthread_mutex_lock(&lock);
    for (a = allocs; a && a->address != address; a = a->next)
        ;
    if (a)
        a->refs++;
    pthread_mutex_unlock(&lock);
    return a;
}

void sim_alloc_get(struct sim_alloc *a)
{
    pthread_mutex_lock(&lock);
    a->refs++;
    pthread_mutex_unlock(&lock);
}

/* The last reference: what is still allocated is ordinary pool memory from now on. */
void sim_alloc_put(struct sim_alloc *a)
{
    struct sim_alloc **at;
    bool last;

    pthread_mutex_lock(&lock);
    last = --a->refs == 0;
    for (at = &allocs; last && *at != a; at = &(*at)->next)
        ;
    if (last)
        *at = a->next;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    if (!a->live) {
        a->live = true;
        sim_space_update(a->address, show, a);
        sim_space_free(a->address);
    }
    free(a);
}

void sim_alloc_begin(struct sim_alloc *a)
{
    set_live(a, true);
}

void sim_alloc_end(struct sim_alloc *a)
{
    set_live(a, false);
}

uint64_t sim_alloc_bytes(struct sim_alloc *a)
{
    return a->bytes;
}

bool sim_alloc_plan(struct sim_alloc *a, bool live)
{
    bool changed;

    pthread_mutex_lock(&lock);
    changed = a->planned != live;
    a->planned = live;
    a->backed |= live; /* a launch reserves what its nodes will need */
    pthread_mutex_unlock(&lock);
    return changed;
}

CUresult sim_graph_memory_capture(struct CUstream_st *s, size_t bytes, CUdeviceptr *p)
{
    struct sim_work work = { .kind = SIM_WORK_ALLOC };
    uint64_t at;
    CUresult r = sim_alloc_create(s->ctx, bytes, &work.alloc, &at);

    if (r)
        return r;
    work.address = at;
    r = sim_submit(s, &work);
    if (!r)
        *p = at;
    return r;
}

CUresult sim_graph_memory_free(struct CUstream_st *s, struct sim_work *work)
{
    if (!s->capture && !sim_alloc_plan(work->alloc, false)) {
        sim_alloc_put(work->alloc);
        return CUDA_ERROR_INVALID_VALUE; /* it is not allocated */
    }
    return sim_submit(s, work);
}

CUresult sim_graph_memory_freed(uint64_t address)
{
    struct sim_alloc *a = sim_alloc_find(address);
    bool was = sim_alloc_plan(a, false);

    sim_alloc_end(a);
    sim_alloc_put(a);
    sim_alloc_put(a); /* of the caller's search */
    return was ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* A graph is not launched again before what it allocates was freed. */
CUresult sim_graph_memory_launch(struct CUgraph_st *g, bool auto_free)
{
    for (size_t i = 0; i < g->nr_nodes; i++) {
        struct sim_work *w = &g->nodes[i]->work;
        CUresult r = g->nodes[i]->child ? sim_graph_memory_launch(g->nodes[i]->child, auto_free) : CUDA_SUCCESS;

        if (r)
            return r;
        if (w->alloc && w->kind == SIM_WORK_ALLOC && !sim_alloc_plan(w->alloc, true) && !auto_free)
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < g->nr_nodes; i++)
        if (g->nodes[i]->work.alloc && g->nodes[i]->work.kind == SIM_WORK_FREE)
            sim_alloc_plan(g->nodes[i]->work.alloc, false);
    return CUDA_SUCCESS;
}

/* ---- nodes ---- */

SIM_API CUresult cuGraphAddMemAllocNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                        CUDA_MEM_ALLOC_NODE_PARAMS *p)
{
    struct sim_work work = { .kind = SIM_WORK_ALLOC };
    struct CUctx_st *ctx;
    uint64_t at;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!p || !p->bytesize || p->poolProps.location.type != 1 || !sim_device(p->poolProps.location.id))
        return CUDA_ERROR_INVALID_VALUE;
    if (p->poolProps.handleTypes)
        return CUDA_ERROR_NOT_SUPPORTED;
    r = sim_alloc_create(ctx, p->bytesize, &work.alloc, &at);
    if (r)
        return r;
    work.address = at;
    r = sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_MEM_ALLOC, &work);
    if (!r) {
        p->dptr = at;
        (*out)->got = malloc(sizeof(*p));
        if ((*out)->got)
            memcpy((*out)->got, p, sizeof(*p));
    }
    return r;
}

SIM_API CUresult cuGraphAddMemFreeNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                       CUdeviceptr p)
{
    struct sim_work work = { .kind = SIM_WORK_FREE, .address = p, .alloc = sim_alloc_find(p) };

    if (!work.alloc)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; sim_valid(graph, SIM_GRAPH) && i < graph->nr_nodes; i++)
        if (graph->nodes[i]->work.kind == SIM_WORK_FREE && graph->nodes[i]->work.alloc == work.alloc) {
            sim_alloc_put(work.alloc);
            return CUDA_ERROR_INVALID_VALUE; /* freed twice */
        }
    return sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_MEM_FREE, &work);
}

SIM_API CUresult cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *p)
{
    if (!p || !sim_valid(node, SIM_NODE) || node->type != CU_GRAPH_NODE_TYPE_MEM_ALLOC)
        return CUDA_ERROR_INVALID_VALUE;
    memset(p, 0, sizeof(*p));
    if (node->got) {
        memcpy(p, node->got, sizeof(*p));
    } else { /* captured */
        p->poolProps.allocType = 1;
        p->poolProps.location.type = 1;
        p->bytesize = node->work.alloc->bytes;
    }
    p->accessDescs = NULL;
    p->accessDescCount = 0;
    p->dptr = node->work.address;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *p)
{
    if (!p || !sim_valid(node, SIM_NODE) || node->type != CU_GRAPH_NODE_TYPE_MEM_FREE)
        return CUDA_ERROR_INVALID_VALUE;
    *p = node->work.address;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetGraphMemAttribute(CUdevice dev, CUgraphMem_attribute what, void *value)
{
    struct sim_device *d = sim_device(dev);

    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!value || what > CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    *(uint64_t *)value = what % 2 ? high[dev][what / 2] : sum_locked(d, what / 2);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceSetGraphMemAttribute(CUdevice dev, CUgraphMem_attribute what, void *value)
{
    struct sim_device *d = sim_device(dev);

    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!value || (what != CU_GRAPH_MEM_ATTR_USED_MEM_HIGH && what != CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH) ||
        *(uint64_t *)value)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    high[dev][what / 2] = sum_locked(d, what / 2);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGraphMemTrim(CUdevice dev)
{
    struct sim_device *d = sim_device(dev);

    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&lock);
    for (struct sim_alloc *a = allocs; a; a = a->next)
        if (a->device == d)
            a->backed = a->live;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}
