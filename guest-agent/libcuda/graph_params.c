/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of graph nodes: from the application's struct to what crosses, and back. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

#define MAX_PARAMS_BYTES 32768u /* more than any kernel's parameters */
#define BUFFER_POINTER ((void *)1)
#define BUFFER_SIZE ((void *)2)

/* Room for `bytes` more in the blob, NULL: it is full. */
static void *more(struct og_blob *b, uint64_t bytes)
{
    void *at = b->data + b->bytes;

    if (bytes > sizeof(b->data) - b->bytes)
        return NULL;
    b->bytes += (uint32_t)bytes;
    return at;
}

static CUresult put(struct og_blob *b, const void *from, uint64_t bytes)
{
    void *at = more(b, bytes);

    if (!at)
        return CUDA_ERROR_NOT_SUPPORTED; /* more than one command holds */
    if (bytes)
        memcpy(at, from, bytes);
    return CUDA_SUCCESS;
}

/* ---- to the host ---- */

static CUresult pack_extra(void **extra, struct og_blob *b, uint32_t *bytes)
{
    const void *from = NULL;
    const size_t *size = NULL;

    for (; *extra; extra += 2) {
        if (extra[0] == BUFFER_POINTER)
            from = extra[1];
        else if (extra[0] == BUFFER_SIZE)
            size = extra[1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (!from || !size || *size > MAX_PARAMS_BYTES)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = (uint32_t)*size;
    return put(b, from, *size);
}

static CUresult pack_params(const struct og_function *f, void **params, struct og_blob *b, uint32_t *bytes)
{
    uint8_t *to = more(b, f->params_bytes);

    *bytes = f->params_bytes;
    if (!to || (f->nr_params && !params))
        return CUDA_ERROR_INVALID_VALUE;
    memset(to, 0, f->params_bytes);
    for (uint16_t i = 0; i < f->nr_params; i++)
        memcpy(to + f->offset[i], params[i], f->size[i]);
    return CUDA_SUCCESS;
}

static CUresult kernel(const CUgraphNodeParams *params, struct og_blob *b)
{
    const CUDA_KERNEL_NODE_PARAMS *p = &params->kernel;
    uint64_t function = (uint64_t)(uintptr_t)p->func, kern = (uint64_t)(uintptr_t)p->kern;
    struct og_function *f = og_function(function ? function : kern);
    struct oc_node_kernel *k = more(b, sizeof(*k));

    if (!f || (kern && !og_valid(OW_KIND_KERNEL, kern)))
        return CUDA_ERROR_INVALID_HANDLE;
    if (p->ctx)
        b->context = (uint64_t)(uintptr_t)p->ctx;
    *k = (struct oc_node_kernel){ .function = function, .kernel = kern,
                                  .grid = { p->gridDimX, p->gridDimY, p->gridDimZ },
                                  .block = { p->blockDimX, p->blockDimY, p->blockDimZ },
                                  .shared_bytes = p->sharedMemBytes };
    if (!p->kernelParams && p->extra)
        return pack_extra(p->extra, b, &k->params_bytes);
    return pack_params(f, p->kernelParams, b, &k->params_bytes);
}

static CUresult copy(const CUgraphNodeParams *params, struct og_blob *b)
{
    const CUDA_MEMCPY3D *p = &params->memcpy.copyParams;
    struct oc_node_shadow spec;
    struct og_box box;
    CUresult r;

    if (!p->WidthInBytes || !p->Height || !p->Depth)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_box_of(p, &box);
    if (r != CUDA_SUCCESS)
        return r;
    if (params->memcpy.copyCtx)
        b->context = (uint64_t)(uintptr_t)params->memcpy.copyCtx;
    if (!og_place_is_host(box.src) && !og_place_is_host(box.dst))
        return put(b, &box.nd, sizeof(box.nd));
    r = og_shadow_make(&box, p, &spec, &b->shadow);
    if (r != CUDA_SUCCESS)
        return r;
    b->kind = OC_NODE_SHADOW;
    return put(b, &spec, sizeof(spec));
}

static CUresult set(const CUgraphNodeParams *params, struct og_blob *b)
{
    const CUDA_MEMSET_NODE_PARAMS *p = &params->memset.params;
    struct oc_node_memset m = { p->dst, p->pitch, p->width, p->height, p->value, p->elementSize };

    if (params->memset.ctx)
        b->context = (uint64_t)(uintptr_t)params->memset.ctx;
    return put(b, &m, sizeof(m));
}

static CUresult host(const CUgraphNodeParams *params, struct og_blob *b)
{
    struct oc_node_host h = { (uint64_t)(uintptr_t)params->host.fn, (uint64_t)(uintptr_t)params->host.userData };
    CUresult r;

    if (!params->host.fn)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_callbacks_start();
    return r == CUDA_SUCCESS ? put(b, &h, sizeof(h)) : r;
}

static CUresult child(const CUgraphNodeParams *params, struct og_blob *b)
{
    struct oc_node_child c = { .graph = (uint64_t)(uintptr_t)params->graph.graph, .move = params->graph.ownership == 1 };

    if (params->graph.ownership != 0 && params->graph.ownership != 1)
        return CUDA_ERROR_INVALID_VALUE;
    return og_valid(OW_KIND_GRAPH, c.graph) ? put(b, &c, sizeof(c)) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult event(const CUgraphNodeParams *params, struct og_blob *b)
{
    uint64_t handle = (uint64_t)(uintptr_t)params->event.event;

    if (!og_valid(OW_KIND_EVENT, handle))
        return CUDA_ERROR_INVALID_HANDLE;
    if (params->type == CU_GRAPH_NODE_TYPE_EVENT_RECORD)
        og_event_shared(handle);
    return put(b, &handle, sizeof(handle));
}

static CUresult allocation(const CUgraphNodeParams *params, struct og_blob *b)
{
    const CUDA_MEM_ALLOC_NODE_PARAMS *p = &params->alloc;
    CUresult r;

    if (!p->bytesize || (p->accessDescCount && !p->accessDescs) || p->accessDescCount > OC_MAX_DEVICES)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->poolProps.handleTypes) {
        og_log("memory of graphs cannot be shared between processes");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    r = put(b, p, sizeof(*p));
    return r == CUDA_SUCCESS ? put(b, p->accessDescs, p->accessDescCount * sizeof(p->accessDescs[0])) : r;
}

static CUresult release(const CUgraphNodeParams *params, struct og_blob *b)
{
    uint64_t ptr = params->free.dptr;

    return put(b, &ptr, sizeof(ptr));
}

static CUresult batch(const CUgraphNodeParams *params, struct og_blob *b)
{
    const CUDA_BATCH_MEM_OP_NODE_PARAMS *p = &params->memOp;
    struct oc_node_batch head = { p->count, p->flags };
    CUresult r;

    if (p->count && !p->paramArray)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->ctx)
        b->context = (uint64_t)(uintptr_t)p->ctx;
    r = put(b, &head, sizeof(head));
    return r == CUDA_SUCCESS ? put(b, p->paramArray, (uint64_t)p->count * sizeof(p->paramArray[0])) : r;
}

/* The handles of the bodies follow when the node is added. */
static CUresult condition(const CUgraphNodeParams *params, struct og_blob *b)
{
    const CUDA_CONDITIONAL_NODE_PARAMS *p = &params->conditional;
    struct oc_node_cond c = { p->handle, p->type, p->size };

    if (!p->size)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->ctx)
        b->context = (uint64_t)(uintptr_t)p->ctx;
    return put(b, &c, sizeof(c));
}

static CUresult nothing(const CUgraphNodeParams *params, struct og_blob *b)
{
    (void)params;
    (void)b;
    return CUDA_SUCCESS;
}

static const struct {
    enum oc_node kind;
    CUresult (*pack)(const CUgraphNodeParams *params, struct og_blob *b);
} kinds[] = {
    [CU_GRAPH_NODE_TYPE_KERNEL] = { OC_NODE_KERNEL, kernel },
    [CU_GRAPH_NODE_TYPE_MEMCPY] = { OC_NODE_COPY, copy },
    [CU_GRAPH_NODE_TYPE_MEMSET] = { OC_NODE_MEMSET, set },
    [CU_GRAPH_NODE_TYPE_HOST] = { OC_NODE_HOST, host },
    [CU_GRAPH_NODE_TYPE_GRAPH] = { OC_NODE_CHILD, child },
    [CU_GRAPH_NODE_TYPE_EMPTY] = { OC_NODE_EMPTY, nothing },
    [CU_GRAPH_NODE_TYPE_WAIT_EVENT] = { OC_NODE_WAIT, event },
    [CU_GRAPH_NODE_TYPE_EVENT_RECORD] = { OC_NODE_RECORD, event },
    [CU_GRAPH_NODE_TYPE_MEM_ALLOC] = { OC_NODE_ALLOC, allocation },
    [CU_GRAPH_NODE_TYPE_MEM_FREE] = { OC_NODE_FREE, release },
    [CU_GRAPH_NODE_TYPE_BATCH_MEM_OP] = { OC_NODE_BATCH, batch },
    [CU_GRAPH_NODE_TYPE_CONDITIONAL] = { OC_NODE_COND, condition },
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

CUresult og_blob_of(const CUgraphNodeParams *p, struct og_blob *b)
{
    b->bytes = 0;
    b->shadow = NULL;
    b->context = og_current();
    if (p->type >= NR_KINDS || !kinds[p->type].pack) {
        if (p->type > CU_GRAPH_NODE_TYPE_FABRIC_CPY_BATCH)
            return CUDA_ERROR_INVALID_VALUE;
        return og_unsupported("a graph node of external semaphores or of a batch of copies");
    }
    b->kind = kinds[p->type].kind;
    return kinds[p->type].pack(p, b);
}

/* ---- from the host ---- */

/* Memory of the node's, which the application reads until it asks again. */
static void *keep(struct og_node *n, size_t bytes)
{
    void *bigger;

    if (n->got && n->got_bytes >= bytes)
        return n->got;
    bigger = realloc(n->got, bytes ? bytes : 1);
    if (bigger) {
        n->got = bigger;
        n->got_bytes = bytes;
    }
    return bigger;
}

static CUresult open_kernel(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    const struct oc_node_kernel *k = (const void *)data;
    const struct og_function *f = bytes < sizeof(*k) ? NULL : og_function(k->function ? k->function : k->kernel);
    uint8_t *packed;
    void **list;

    if (!f || k->params_bytes > bytes - sizeof(*k) || k->params_bytes < f->params_bytes)
        return CUDA_ERROR_UNKNOWN;
    list = keep(n, f->nr_params * sizeof(*list) + k->params_bytes);
    if (!list)
        return CUDA_ERROR_OUT_OF_MEMORY;
    packed = (uint8_t *)(list + f->nr_params);
    memcpy(packed, k + 1, k->params_bytes);
    for (uint16_t i = 0; i < f->nr_params; i++)
        list[i] = packed + f->offset[i];
    p->kernel = (CUDA_KERNEL_NODE_PARAMS){
        .func = (CUfunction)(uintptr_t)k->function, .kern = (CUkernel)(uintptr_t)k->kernel,
        .gridDimX = k->grid[0], .gridDimY = k->grid[1], .gridDimZ = k->grid[2],
        .blockDimX = k->block[0], .blockDimY = k->block[1], .blockDimZ = k->block[2],
        .sharedMemBytes = k->shared_bytes, .kernelParams = f->nr_params ? list : NULL };
    return CUDA_SUCCESS;
}

static CUresult open_copy(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    if (n->copied)
        p->memcpy.copyParams = n->copy;
    else if (bytes < sizeof(p->memcpy.copyParams))
        return CUDA_ERROR_UNKNOWN;
    else
        memcpy(&p->memcpy.copyParams, data, sizeof(p->memcpy.copyParams));
    return CUDA_SUCCESS;
}

static CUresult open_shadow(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    uint64_t shadow;

    (void)n;
    if (bytes < sizeof(shadow))
        return CUDA_ERROR_UNKNOWN;
    memcpy(&shadow, data, sizeof(shadow));
    p->memcpy.copyParams = *og_shadow_params((const struct og_shadow *)(uintptr_t)shadow);
    return CUDA_SUCCESS;
}

static CUresult open_set(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    const struct oc_node_memset *m = (const void *)data;

    (void)n;
    if (bytes < sizeof(*m))
        return CUDA_ERROR_UNKNOWN;
    p->memset.params = (CUDA_MEMSET_NODE_PARAMS){ m->dst, m->pitch, m->value, m->element_bytes, m->width, m->height };
    return CUDA_SUCCESS;
}

static CUresult open_host(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    const struct oc_node_host *h = (const void *)data;

    (void)n;
    if (bytes < sizeof(*h))
        return CUDA_ERROR_UNKNOWN;
    p->host = (CUDA_HOST_NODE_PARAMS){ (CUhostFn)(uintptr_t)h->fn, (void *)(uintptr_t)h->data };
    return CUDA_SUCCESS;
}

/* A child graph, an event, an address: a number each, which the structs begin with. */
static CUresult open_number(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    (void)n;
    if (bytes < sizeof(uint64_t))
        return CUDA_ERROR_UNKNOWN;
    memcpy(&p->reserved1, data, sizeof(uint64_t));
    if (p->type == CU_GRAPH_NODE_TYPE_GRAPH)
        p->graph.ownership = -1; /* as natively: not to be given to another call as it is */
    return CUDA_SUCCESS;
}

static CUresult open_allocation(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    CUDA_MEM_ALLOC_NODE_PARAMS *a = &p->alloc;
    size_t access_bytes;
    void *access;

    if (bytes < sizeof(*a))
        return CUDA_ERROR_UNKNOWN;
    memcpy(a, data, sizeof(*a));
    access_bytes = bytes - sizeof(*a);
    access = access_bytes ? keep(n, access_bytes) : NULL;
    if (access_bytes && !access)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (access)
        memcpy(access, data + sizeof(*a), access_bytes);
    a->accessDescs = access;
    a->accessDescCount = access_bytes / sizeof(CUmemAccessDesc);
    return CUDA_SUCCESS;
}

static CUresult open_batch(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    const struct oc_node_batch *b = (const void *)data;
    void *ops;

    if (bytes < sizeof(*b) || (bytes - sizeof(*b)) / sizeof(CUstreamBatchMemOpParams) < b->count)
        return CUDA_ERROR_UNKNOWN;
    ops = keep(n, bytes - sizeof(*b));
    if (!ops)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(ops, b + 1, bytes - sizeof(*b));
    p->memOp = (CUDA_BATCH_MEM_OP_NODE_PARAMS){ .ctx = (CUcontext)(uintptr_t)og_current(), .count = b->count,
                                                .paramArray = ops, .flags = b->flags };
    return CUDA_SUCCESS;
}

static CUresult open_condition(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    (void)data;
    (void)bytes;
    if (!n->bodies)
        return CUDA_ERROR_NOT_SUPPORTED; /* not of our making: a later driver may copy such nodes */
    p->conditional = n->condition;
    return CUDA_SUCCESS;
}

static CUresult open_nothing(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p)
{
    (void)n;
    (void)data;
    (void)bytes;
    (void)p;
    return CUDA_SUCCESS;
}

static const struct {
    CUgraphNodeType type;
    CUresult (*open)(struct og_node *n, const uint8_t *data, uint32_t bytes, CUgraphNodeParams *p);
} openers[] = {
    [OC_NODE_EMPTY] = { CU_GRAPH_NODE_TYPE_EMPTY, open_nothing },
    [OC_NODE_KERNEL] = { CU_GRAPH_NODE_TYPE_KERNEL, open_kernel },
    [OC_NODE_COPY] = { CU_GRAPH_NODE_TYPE_MEMCPY, open_copy },
    [OC_NODE_MEMSET] = { CU_GRAPH_NODE_TYPE_MEMSET, open_set },
    [OC_NODE_HOST] = { CU_GRAPH_NODE_TYPE_HOST, open_host },
    [OC_NODE_CHILD] = { CU_GRAPH_NODE_TYPE_GRAPH, open_number },
    [OC_NODE_RECORD] = { CU_GRAPH_NODE_TYPE_EVENT_RECORD, open_number },
    [OC_NODE_WAIT] = { CU_GRAPH_NODE_TYPE_WAIT_EVENT, open_number },
    [OC_NODE_ALLOC] = { CU_GRAPH_NODE_TYPE_MEM_ALLOC, open_allocation },
    [OC_NODE_FREE] = { CU_GRAPH_NODE_TYPE_MEM_FREE, open_number },
    [OC_NODE_BATCH] = { CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, open_batch },
    [OC_NODE_COND] = { CU_GRAPH_NODE_TYPE_CONDITIONAL, open_condition },
    [OC_NODE_SHADOW] = { CU_GRAPH_NODE_TYPE_MEMCPY, open_shadow },
};

CUresult og_blob_open(struct og_node *node, const uint8_t *data, uint32_t bytes, enum oc_node kind,
                      CUgraphNodeParams *p)
{
    if ((unsigned)kind >= sizeof(openers) / sizeof(openers[0]))
        return CUDA_ERROR_NOT_SUPPORTED;
    memset(p, 0, sizeof(*p));
    p->type = openers[kind].type;
    return openers[kind].open(node, data, bytes, p);
}
