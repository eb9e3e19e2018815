/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of graph nodes as the driver tells them, in the guest's numbers. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

#define PIECE 880u /* of an answer: what a completion slot holds beside the fixed part */

/* The struct of a node's kind and what follows it; free(data). */
struct answer {
    enum oc_node kind;
    uint8_t *data;
    uint32_t bytes;
};

static void *room(struct answer *a, enum oc_node kind, size_t bytes)
{
    a->kind = kind;
    a->bytes = (uint32_t)bytes;
    a->data = calloc(1, bytes + 1);
    return a->data;
}

struct sought {
    CUfunction function;
    uint64_t id;
};

static void is_function_of(uint64_t id, void *real, void *data, void *arg)
{
    struct sought *s = arg;
    CUfunction f = NULL;

    (void)data;
    if (!s->id && OH_CALL(cuKernelGetFunction, &f, real) == CUDA_SUCCESS && f == s->function)
        s->id = id;
}

/* The guest's number of a function; one that it knows as a kernel only is that kernel. */
static uint64_t function_id(CUfunction f)
{
    struct sought s = { f, f ? oh_find(OW_KIND_FUNCTION, f) : 0 };

    if (f && !s.id)
        s.id = oh_find(OW_KIND_KERNEL, f);
    if (f && !s.id)
        oh_each(OW_KIND_KERNEL, is_function_of, &s);
    return s.id;
}

static void pack(const CUDA_KERNEL_NODE_PARAMS *p, const struct oh_function *f, uint8_t *to)
{
    const void *buffer = NULL;
    size_t bytes = 0;

    if (p->kernelParams) {
        for (uint32_t i = 0; i < f->nr_params; i++)
            memcpy(to + f->offset[i], p->kernelParams[i], f->offset[f->nr_params + i]);
        return;
    }
    for (void **e = p->extra; e && *e; e += 2) {
        if (e[0] == (void *)1)
            buffer = e[1];
        else if (e[0] == (void *)2)
            bytes = *(const size_t *)e[1];
    }
    if (buffer)
        memcpy(to, buffer, bytes < f->params_bytes ? bytes : f->params_bytes);
}

static CUresult kernel(CUgraphNode node, struct answer *a)
{
    CUDA_KERNEL_NODE_PARAMS p = { 0 };
    struct oc_node_kernel *k;
    struct oh_function *f;
    uint64_t id, kern;
    void *real;
    CUresult r = OH_CALL(cuGraphKernelNodeGetParams_v2, node, &p);

    if (r != CUDA_SUCCESS)
        return r;
    id = function_id(p.func);
    kern = p.kern ? oh_find(OW_KIND_KERNEL, p.kern) : 0;
    r = oh_function_get(id ? id : kern, &real, &f);
    if (r != CUDA_SUCCESS)
        return r;
    k = room(a, OC_NODE_KERNEL, sizeof(*k) + f->params_bytes);
    if (!k)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *k = (struct oc_node_kernel){ .function = id, .kernel = kern,
                                  .grid = { p.gridDimX, p.gridDimY, p.gridDimZ },
                                  .block = { p.blockDimX, p.blockDimY, p.blockDimZ },
                                  .shared_bytes = p.sharedMemBytes, .params_bytes = f->params_bytes };
    pack(&p, f, (uint8_t *)(k + 1));
    return CUDA_SUCCESS;
}

/* Host addresses in it are the region's, which lies at the same address in the guest; over TCP none can be. */
static CUresult copy(CUgraphNode node, struct answer *a)
{
    CUDA_MEMCPY3D p;
    uint8_t *at;
    CUresult r;

    memset(&p, 0, sizeof(p));
    r = OH_CALL(cuGraphMemcpyNodeGetParams, node, &p);
    if (r != CUDA_SUCCESS)
        return r;
    p.srcArray = p.srcArray ? (CUarray)(uintptr_t)oh_find(OW_KIND_ARRAY, p.srcArray) : NULL;
    p.dstArray = p.dstArray ? (CUarray)(uintptr_t)oh_find(OW_KIND_ARRAY, p.dstArray) : NULL;
    p.reserved0 = p.reserved1 = NULL;
    at = room(a, OC_NODE_COPY, sizeof(p));
    if (!at)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(at, &p, sizeof(p));
    return CUDA_SUCCESS;
}

static CUresult set(CUgraphNode node, struct answer *a)
{
    CUDA_MEMSET_NODE_PARAMS p = { 0 };
    struct oc_node_memset *m;
    CUresult r = OH_CALL(cuGraphMemsetNodeGetParams, node, &p);

    if (r != CUDA_SUCCESS)
        return r;
    m = room(a, OC_NODE_MEMSET, sizeof(*m));
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *m = (struct oc_node_memset){ p.dst, p.pitch, p.width, p.height, p.value, p.elementSize };
    return CUDA_SUCCESS;
}

static CUresult host(CUgraphNode node, struct answer *a)
{
    CUDA_HOST_NODE_PARAMS p = { 0 };
    const struct oh_host_call *call;
    struct oc_node_host *h;
    CUresult r = OH_CALL(cuGraphHostNodeGetParams, node, &p);

    if (r != CUDA_SUCCESS)
        return r;
    if (p.fn != oh_trampoline)
        return CUDA_ERROR_NOT_SUPPORTED;
    call = p.userData;
    h = room(a, OC_NODE_HOST, sizeof(*h));
    if (!h)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *h = (struct oc_node_host){ call->fn, call->data };
    return CUDA_SUCCESS;
}

static CUresult number(struct answer *a, enum oc_node kind, uint64_t value)
{
    uint8_t *at = room(a, kind, sizeof(value));

    if (!at)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(at, &value, sizeof(value));
    return CUDA_SUCCESS;
}

static CUresult child(CUgraphNode node, uint64_t candidate, struct answer *a)
{
    struct oh_shadow *shadow = oh_shadow_of(node);
    struct oc_node_child *c;
    CUgraph graph = NULL;
    uint64_t id;
    CUresult r;

    if (shadow)
        return number(a, OC_NODE_SHADOW, oh_shadow_data(shadow));
    r = OH_CALL(cuGraphChildGraphNodeGetGraph, node, &graph);
    if (r == CUDA_SUCCESS)
        r = oh_name_graph(graph, node, candidate, &id);
    if (r != CUDA_SUCCESS)
        return r;
    c = room(a, OC_NODE_CHILD, sizeof(*c));
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    c->graph = id;
    return CUDA_SUCCESS;
}

static CUresult event(CUgraphNode node, enum oc_node kind, struct answer *a)
{
    CUevent e = NULL;
    CUresult r = kind == OC_NODE_RECORD ? OH_CALL(cuGraphEventRecordNodeGetEvent, node, &e)
                                        : OH_CALL(cuGraphEventWaitNodeGetEvent, node, &e);

    return r == CUDA_SUCCESS ? number(a, kind, oh_find(OW_KIND_EVENT, e)) : r;
}

static int32_t guest_device(int ordinal)
{
    for (uint32_t i = 0; i < oh_nr_devices; i++)
        if (oh_devices[i].ordinal == ordinal)
            return (int32_t)i;
    return -1;
}

static CUresult allocation(CUgraphNode node, struct answer *a)
{
    CUDA_MEM_ALLOC_NODE_PARAMS p;
    CUmemAccessDesc *access;
    size_t nr;
    CUresult r;

    memset(&p, 0, sizeof(p));
    r = OH_CALL(cuGraphMemAllocNodeGetParams, node, &p);
    nr = p.accessDescs ? p.accessDescCount : 0;
    if (r != CUDA_SUCCESS || nr > OH_MAX_ACCESS)
        return r != CUDA_SUCCESS ? r : CUDA_ERROR_NOT_SUPPORTED;
    if (!room(a, OC_NODE_ALLOC, sizeof(p) + nr * sizeof(*access)))
        return CUDA_ERROR_OUT_OF_MEMORY;
    access = (void *)(a->data + sizeof(p));
    if (nr)
        memcpy(access, p.accessDescs, nr * sizeof(*access));
    for (size_t i = 0; i < nr; i++)
        access[i].location.id = guest_device(access[i].location.id);
    p.poolProps.location.id = guest_device(p.poolProps.location.id);
    p.accessDescs = NULL;
    p.accessDescCount = nr;
    memcpy(a->data, &p, sizeof(p));
    return CUDA_SUCCESS;
}

static CUresult release(CUgraphNode node, struct answer *a)
{
    CUdeviceptr ptr = 0;
    CUresult r = OH_CALL(cuGraphMemFreeNodeGetParams, node, &ptr);

    return r == CUDA_SUCCESS ? number(a, OC_NODE_FREE, ptr) : r;
}

static CUresult batch(CUgraphNode node, struct answer *a)
{
    CUDA_BATCH_MEM_OP_NODE_PARAMS p = { 0 };
    struct oc_node_batch *b;
    CUresult r = OH_CALL(cuGraphBatchMemOpNodeGetParams, node, &p);

    if (r != CUDA_SUCCESS)
        return r;
    b = room(a, OC_NODE_BATCH, sizeof(*b) + p.count * sizeof(p.paramArray[0]));
    if (!b)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *b = (struct oc_node_batch){ p.count, p.flags };
    if (p.count)
        memcpy(b + 1, p.paramArray, p.count * sizeof(p.paramArray[0]));
    return CUDA_SUCCESS;
}

static CUresult ask(CUgraphNode node, uint64_t candidate, struct answer *a)
{
    CUgraphNodeType type = 0;
    CUresult r = OH_CALL(cuGraphNodeGetType, node, &type);

    if (r != CUDA_SUCCESS)
        return r;
    switch (type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return kernel(node, a);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return copy(node, a);
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return set(node, a);
    case CU_GRAPH_NODE_TYPE_HOST:
        return host(node, a);
    case CU_GRAPH_NODE_TYPE_GRAPH:
        return child(node, candidate, a);
    case CU_GRAPH_NODE_TYPE_EMPTY:
        return room(a, OC_NODE_EMPTY, 0) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
        return event(node, OC_NODE_RECORD, a);
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        return event(node, OC_NODE_WAIT, a);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        return allocation(node, a);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return release(node, a);
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
        return batch(node, a);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL: /* the guest knows what it gave */
        return room(a, OC_NODE_COND, 0) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

CUresult oh_orion_node_get(struct oh_twin *t, const struct ow_orion_node_get_in *in, uint32_t bytes,
                           struct ow_orion_node_get_out *out, uint32_t *out_bytes)
{
    struct answer a = { 0 };
    uint32_t part = 0;
    void *node;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->node, &node);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = ask(node, in->candidate, &a);
    if (r == CUDA_SUCCESS) {
        part = in->first < a.bytes ? a.bytes - in->first : 0;
        part = part < PIECE ? part : PIECE;
        out->kind = a.kind;
        out->total = a.bytes;
        memcpy(out + 1, a.data + (part ? in->first : 0), part);
        *out_bytes = (uint32_t)sizeof(*out) + part;
    }
    free(a.data);
    return r;
}
