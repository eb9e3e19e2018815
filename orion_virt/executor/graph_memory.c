/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that graphs allocate: its addresses stay the client's while a graph or executable may make it again; what the
 * driver holds for it is booked after each call that may change it, and may not pass the limit before one. */
#include <stdlib.h>

#include "extra.h"
#include "gen/checks.h"
#include "graph.h"

enum { USED_NOW = 0, RESERVED_NOW = 2, HIGHEST_ATTRIBUTE = 3 }; /* CUgraphMem_attribute */

struct allocation {
    uint64_t ptr, bytes;
    int device;
    void *graph;                 /* that holds the node, NULL: it ended */
    uint32_t users;              /* executables */
    struct allocation *next;
};
struct oh_exec {
    uint64_t need[OC_MAX_DEVICES], lent[OC_MAX_DEVICES];
    bool frees, ran;             /* AUTO_FREE_ON_LAUNCH: from the second launch on it needs nothing more */
    size_t nr;
    struct allocation *allocation[];
};

static struct allocation *allocations;
static _Atomic size_t nr_allocations;
static uint64_t booked[OC_MAX_DEVICES]; /* by the first of the client's devices on a card */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void oh_graph_memory_add(void *graph, uint64_t ptr, uint64_t bytes, int device)
{
    struct allocation *a = calloc(1, sizeof(*a));

    if (!a) {
        oh_end(OC_CLOSED_WORKER, "out of host memory for the memory of graphs");
        return;
    }
    *a = (struct allocation){ ptr, bytes, device, graph, 0, NULL };
    oh_ledger_add(ptr, bytes, device, 0);
    oh_ledger_keep(ptr, true);
    pthread_mutex_lock(&lock);
    a->next = allocations;
    allocations = a;
    atomic_fetch_add(&nr_allocations, 1);
    pthread_mutex_unlock(&lock);
}

/* What nobody can make again: gone, unless it was made and not freed. */
static void let_go(struct allocation *a)
{
    CUdeviceptr base;
    size_t bytes;

    oh_ledger_keep(a->ptr, false);
    if (OH_CALL(cuMemGetAddressRange_v2, &base, &bytes, a->ptr) != CUDA_SUCCESS)
        oh_ledger_del(a->ptr);
    free(a);
}

static void sweep(void)
{
    struct allocation **at = &allocations, *a, *gone = NULL;

    pthread_mutex_lock(&lock);
    while ((a = *at)) {
        if (a->graph || a->users) {
            at = &a->next;
            continue;
        }
        *at = a->next;
        a->next = gone;
        gone = a;
        atomic_fetch_sub(&nr_allocations, 1);
    }
    pthread_mutex_unlock(&lock);
    while ((a = gone)) {
        gone = a->next;
        let_go(a);
    }
}

void oh_graph_memory_graph_ends(void *graph)
{
    if (!atomic_load(&nr_allocations))
        return;
    pthread_mutex_lock(&lock);
    for (struct allocation *a = allocations; a; a = a->next)
        if (a->graph == graph)
            a->graph = NULL;
    pthread_mutex_unlock(&lock);
    sweep();
}

/* ---- executables ---- */

static void collect_locked(void *graph, struct oh_exec *e)
{
    for (struct allocation *a = allocations; a; a = a->next)
        if (a->graph == graph) {
            a->users++;
            e->need[a->device] += a->bytes;
            e->allocation[e->nr++] = a;
        }
}

/* Graphs that were moved into nodes of it allocate too. */
static CUresult collect(CUgraph graph, struct oh_exec *e)
{
    CUgraphNode *nodes = NULL;
    CUgraphNodeType type;
    CUgraph inner;
    size_t count = 0;
    CUresult r = oh_graph_nodes(graph, &nodes, &count);

    pthread_mutex_lock(&lock);
    collect_locked(graph, e);
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < count && r == CUDA_SUCCESS; i++)
        if (OH_CALL(cuGraphNodeGetType, nodes[i], &type) == CUDA_SUCCESS && type == CU_GRAPH_NODE_TYPE_GRAPH &&
            OH_CALL(cuGraphChildGraphNodeGetGraph, nodes[i], &inner) == CUDA_SUCCESS)
            r = collect(inner, e);
    free(nodes);
    return r;
}

CUresult oh_exec_make(CUgraph graph, uint64_t flags, struct oh_exec **exec)
{
    size_t most = atomic_load(&nr_allocations);
    struct oh_exec *e;
    CUresult r;

    *exec = NULL;
    if (!most)
        return CUDA_SUCCESS;
    e = calloc(1, sizeof(*e) + most * sizeof(e->allocation[0]));
    if (!e)
        return CUDA_ERROR_OUT_OF_MEMORY;
    e->frees = flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    r = collect(graph, e);
    if (r == CUDA_SUCCESS && e->nr) {
        *exec = e;
        return CUDA_SUCCESS;
    }
    oh_exec_free(e);
    return r;
}

void oh_exec_free(struct oh_exec *e)
{
    if (!e)
        return;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < e->nr; i++)
        e->allocation[i]->users--;
    pthread_mutex_unlock(&lock);
    free(e);
    sweep();
}

/* ---- quota ---- */

static uint64_t ask(int device, CUgraphMem_attribute attribute)
{
    uint64_t value = 0;

    return OH_CALL(cuDeviceGetGraphMemAttribute, oh_devices[device].ordinal, attribute, &value) == CUDA_SUCCESS ? value
                                                                                                             : 0;
}

static int first_on_card(int device)
{
    int first = 0;

    while (oh_devices[first].ordinal != oh_devices[device].ordinal)
        first++;
    return first;
}

/* Books what the driver holds for graphs now. */
static void settle(int device)
{
    int first = first_on_card(device);
    uint64_t now = ask(device, RESERVED_NOW);

    pthread_mutex_lock(&lock);
    if (now < booked[first])
        oh_unbook(first, booked[first] - now);
    else
        oh_book_anyway(first, now - booked[first]);
    booked[first] = now;
    pthread_mutex_unlock(&lock);
}

static CUresult book(int device, uint64_t need, uint64_t *lent)
{
    uint64_t reserved, spare;
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    for (int turn = 0; r != CUDA_SUCCESS && turn < 2; turn++) {
        if (turn) {
            OH_CALL(cuDeviceGraphMemTrim, oh_devices[device].ordinal);
            settle(device);
        }
        reserved = ask(device, RESERVED_NOW);
        spare = reserved - ask(device, USED_NOW);
        *lent = need > spare ? need - spare : 0;
        r = oh_book(first_on_card(device), *lent);
    }
    if (r != CUDA_SUCCESS)
        *lent = 0;
    return r;
}

CUresult oh_exec_book(struct oh_exec *e)
{
    CUresult r = CUDA_SUCCESS;

    if (e->frees && e->ran)
        return r;
    for (uint32_t i = 0; i < oh_nr_devices && r == CUDA_SUCCESS; i++)
        if (e->need[i])
            r = book((int)i, e->need[i], &e->lent[i]);
    if (r != CUDA_SUCCESS)
        oh_exec_settle(e, false);
    return r;
}

void oh_exec_settle(struct oh_exec *e, bool launched)
{
    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        if (!e->need[i])
            continue;
        oh_unbook(first_on_card((int)i), e->lent[i]);
        e->lent[i] = 0;
        settle((int)i);
    }
    e->ran |= launched;
}

CUresult oh_cuDeviceGraphMemTrim(struct oh_twin *t, const struct ow_cuDeviceGraphMemTrim_in *in, uint32_t bytes,
                                 struct ow_cuDeviceGraphMemTrim_out *out, uint32_t *out_bytes)
{
    int ordinal;
    CUresult r = oh_ordinal(in->device, &ordinal);

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuDeviceGraphMemTrim, ordinal);
    if (r == CUDA_SUCCESS)
        settle(in->device);
    return r;
}

CUresult oh_orion_graph_memory(struct oh_twin *t, const struct ow_orion_graph_memory_in *in, uint32_t bytes,
                               struct ow_orion_graph_memory_out *out, uint32_t *out_bytes)
{
    uint64_t value = in->value;
    int ordinal;
    CUresult r = oh_ordinal(in->device, &ordinal);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS && in->attribute > HIGHEST_ATTRIBUTE)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = in->set ? OH_CALL(cuDeviceSetGraphMemAttribute, ordinal, in->attribute, &value)
                    : OH_CALL(cuDeviceGetGraphMemAttribute, ordinal, in->attribute, &value);
    if (r != CUDA_SUCCESS)
        return r;
    out->got = value;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

/* ---- allocation in stream order, which a capture turns into a node ---- */

/* The pool took more of the card than there was room for, where what it kept was not of use: the client goes without. */
static CUresult take_back(struct oh_twin *t, CUdeviceptr p, CUstream stream, uint64_t bytes)
{
    OH_CALL(cuMemFreeAsync, p, stream);
    oh_unbook(t->device, bytes);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* Under the lock: two threads must not both count on what the pool keeps. */
static CUresult from_pool(struct oh_twin *t, CUstream stream, uint64_t bytes, CUmemoryPool given, CUdeviceptr *p)
{
    CUmemoryPool pool = given;
    uint64_t spare, before;
    CUresult r = given ? CUDA_SUCCESS : OH_CALL(cuDeviceGetMemPool, &pool, oh_devices[t->device].ordinal);

    if (r == CUDA_SUCCESS)
        r = oh_pool_book(t->device, pool, bytes);
    if (r != CUDA_SUCCESS)
        return r;
    before = oh_extra_measured() ? oh_pool_reserved(pool, &spare) : 0;
    r = given ? OH_CALL(cuMemAllocFromPoolAsync, p, bytes, pool, stream) : OH_CALL(cuMemAllocAsync, p, bytes, stream);
    if (r != CUDA_SUCCESS)
        oh_unbook(t->device, bytes);
    else if (before && oh_pool_reserved(pool, &spare) > before && oh_extra_over_now(t->device))
        r = take_back(t, *p, stream, bytes);
    if (r == CUDA_SUCCESS)
        oh_ledger_add(*p, bytes, t->device, bytes);
    return r;
}

static CUresult allocate(struct oh_twin *t, uint64_t stream_id, uint64_t bytes, CUmemoryPool pool, uint64_t *ptr)
{
    static pthread_mutex_t pools = PTHREAD_MUTEX_INITIALIZER;
    CUdeviceptr p = 0;
    CUgraph graph;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, stream_id, &stream);

    if (r != CUDA_SUCCESS)
        return r;
    if (t->device < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    graph = oh_capture_graph(stream);
    if (graph && bytes > oh_devices[t->device].limit_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (graph) {
        r = pool ? OH_CALL(cuMemAllocFromPoolAsync, &p, bytes, pool, stream) : OH_CALL(cuMemAllocAsync, &p, bytes, stream);
        if (r == CUDA_SUCCESS)
            oh_graph_memory_add(graph, p, bytes, t->device);
    } else {
        pthread_mutex_lock(&pools);
        r = from_pool(t, stream, bytes, pool, &p);
        pthread_mutex_unlock(&pools);
    }
    *ptr = p;
    return r;
}

CUresult oh_cuMemAllocAsync(struct oh_twin *t, const struct ow_cuMemAllocAsync_in *in, uint32_t bytes,
                            struct ow_cuMemAllocAsync_out *out, uint32_t *out_bytes)
{
    CUresult r = allocate(t, in->hStream, in->bytesize, NULL, &out->dptr);

    (void)bytes;
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_cuMemAllocFromPoolAsync(struct oh_twin *t, const struct ow_cuMemAllocFromPoolAsync_in *in, uint32_t bytes,
                                    struct ow_cuMemAllocFromPoolAsync_out *out, uint32_t *out_bytes)
{
    void *pool;
    CUresult r = oh_get(OW_KIND_MEMPOOL, in->pool, &pool);

    (void)bytes;
    if (r == CUDA_SUCCESS)
        r = allocate(t, in->hStream, in->bytesize, pool, &out->dptr);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}
