/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs: nodes with checked parameters, lists of nodes, instantiation and update. */
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "gen/checks.h"

#define MAX_LIST 1000000u /* nodes of one graph that we list */
#define MAX_ROOM 112u     /* handles that a completion slot holds beside the fixed part */

/* Parameters of a node, ready for the driver. */
struct params {
    uint32_t kind;
    CUcontext context;
    CUDA_KERNEL_NODE_PARAMS kernel;
    void *extra[5];
    size_t extra_bytes;
    CUDA_MEMCPY3D copy;
    CUDA_MEMSET_NODE_PARAMS set;
    CUDA_HOST_NODE_PARAMS host;
    void *object; /* graph or event */
};

static CUresult kernel_params(const uint8_t *blob, uint32_t bytes, struct params *p)
{
    const struct oc_node_kernel *k = (const void *)blob;
    void *function;
    CUfunction f;
    CUresult r;

    if (bytes < sizeof(*k) || k->params_bytes > bytes - sizeof(*k))
        return CUDA_ERROR_INVALID_VALUE;
    r = oh_get(k->is_kernel ? OW_KIND_KERNEL : OW_KIND_FUNCTION, k->function, &function);
    if (r != CUDA_SUCCESS)
        return r;
    f = function;
    if (k->is_kernel)
        r = OH_CALL(cuKernelGetFunction, &f, function);
    p->kernel = (CUDA_KERNEL_NODE_PARAMS){ .func = f, .gridDimX = k->grid[0], .gridDimY = k->grid[1],
                                           .gridDimZ = k->grid[2], .blockDimX = k->block[0],
                                           .blockDimY = k->block[1], .blockDimZ = k->block[2],
                                           .sharedMemBytes = k->shared_bytes };
    p->extra_bytes = k->params_bytes;
    p->extra[0] = (void *)1; /* CU_LAUNCH_PARAM_BUFFER_POINTER */
    p->extra[1] = (void *)(uintptr_t)(blob + sizeof(*k));
    p->extra[2] = (void *)2; /* CU_LAUNCH_PARAM_BUFFER_SIZE */
    p->extra[3] = &p->extra_bytes;
    p->extra[4] = NULL;
    p->kernel.extra = p->extra_bytes ? p->extra : NULL;
    return r;
}

static CUresult memset_params(const uint8_t *blob, uint32_t bytes, struct params *p)
{
    const struct oc_node_memset *m = (const void *)blob;
    uint64_t width;

    if (bytes < sizeof(*m) || (m->element_bytes != 1 && m->element_bytes != 2 && m->element_bytes != 4))
        return CUDA_ERROR_INVALID_VALUE;
    width = oh_array_bytes(m->width, m->element_bytes);
    if (!m->width || !m->height || (m->height > 1 && m->pitch < width) || !oh_touches(m->dst, oh_rows_bytes(width, m->height > 1 ? m->pitch : width,
                                                                     m->height)))
        return CUDA_ERROR_INVALID_VALUE;
    p->set = (CUDA_MEMSET_NODE_PARAMS){ .dst = m->dst, .pitch = m->pitch, .value = m->value,
                                        .elementSize = m->element_bytes, .width = m->width, .height = m->height };
    return CUDA_SUCCESS;
}

static CUresult host_params(const uint8_t *blob, uint32_t bytes, struct params *p)
{
    const struct oc_node_host *h = (const void *)blob;
    struct oh_host_call *call;
    CUresult r;

    if (bytes < sizeof(*h))
        return CUDA_ERROR_INVALID_VALUE;
    r = oh_host_call_make(h->fn, h->data, 0, 0, true, &call);
    if (r == CUDA_SUCCESS)
        p->host = (CUDA_HOST_NODE_PARAMS){ .fn = oh_trampoline, .userData = call };
    return r;
}

static CUresult object_params(enum ow_kind kind, const uint8_t *blob, uint32_t bytes, struct params *p)
{
    if (bytes < sizeof(uint64_t))
        return CUDA_ERROR_INVALID_VALUE;
    return oh_get(kind, *(const uint64_t *)(const void *)blob, &p->object);
}

static CUresult params_get(uint32_t kind, uint64_t context, const uint8_t *blob, uint32_t bytes, struct params *p)
{
    void *real = NULL;
    CUresult r = context ? oh_get(OW_KIND_CONTEXT, context, &real) : OH_CALL(cuCtxGetCurrent, &p->context);

    if (r != CUDA_SUCCESS)
        return r;
    if (context)
        p->context = real;
    p->kind = kind;
    switch (kind) {
    case OC_NODE_EMPTY:
        return CUDA_SUCCESS;
    case OC_NODE_KERNEL:
        r = kernel_params(blob, bytes, p);
        p->kernel.ctx = p->context;
        return r;
    case OC_NODE_COPY:
        return bytes < sizeof(struct oc_copy_nd) ? CUDA_ERROR_INVALID_VALUE
                                                 : oh_copy_nd_get((const void *)blob, &p->copy);
    case OC_NODE_MEMSET:
        return memset_params(blob, bytes, p);
    case OC_NODE_HOST:
        return host_params(blob, bytes, p);
    case OC_NODE_CHILD:
        return object_params(OW_KIND_GRAPH, blob, bytes, p);
    case OC_NODE_RECORD:
    case OC_NODE_WAIT:
        return object_params(OW_KIND_EVENT, blob, bytes, p);
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

static CUresult add(CUgraph graph, const CUgraphNode *deps, size_t nr, const struct params *p, CUgraphNode *node)
{
    switch (p->kind) {
    case OC_NODE_EMPTY:
        return OH_CALL(cuGraphAddEmptyNode, node, graph, deps, nr);
    case OC_NODE_KERNEL:
        return OH_CALL(cuGraphAddKernelNode_v2, node, graph, deps, nr, &p->kernel);
    case OC_NODE_COPY:
        return OH_CALL(cuGraphAddMemcpyNode, node, graph, deps, nr, &p->copy, p->context);
    case OC_NODE_MEMSET:
        return OH_CALL(cuGraphAddMemsetNode, node, graph, deps, nr, &p->set, p->context);
    case OC_NODE_HOST:
        return OH_CALL(cuGraphAddHostNode, node, graph, deps, nr, &p->host);
    case OC_NODE_CHILD:
        return OH_CALL(cuGraphAddChildGraphNode, node, graph, deps, nr, p->object);
    case OC_NODE_RECORD:
        return OH_CALL(cuGraphAddEventRecordNode, node, graph, deps, nr, p->object);
    default:
        return OH_CALL(cuGraphAddEventWaitNode, node, graph, deps, nr, p->object);
    }
}

CUresult oh_orion_graph_node(struct oh_twin *t, const struct ow_orion_graph_node_in *in, uint32_t bytes,
                             struct ow_orion_graph_node_out *out, uint32_t *out_bytes)
{
    uint64_t *deps = (uint64_t *)(uintptr_t)(in + 1), deps_bytes = (uint64_t)in->count * sizeof(*deps);
    uint32_t extra = bytes - (uint32_t)sizeof(*in);
    struct params p = { 0 };
    CUgraphNode node = NULL;
    void *graph;
    CUresult r = oh_get(OW_KIND_GRAPH, in->graph, &graph);

    (void)t;
    (void)out;
    (void)out_bytes;
    if (deps_bytes > extra)
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = oh_get_array(OW_KIND_GRAPH_NODE, deps, (uint32_t)deps_bytes);
    if (r == CUDA_SUCCESS)
        r = params_get(in->kind, in->context, (const uint8_t *)deps + deps_bytes, extra - (uint32_t)deps_bytes, &p);
    if (r == CUDA_SUCCESS)
        r = add(graph, (const CUgraphNode *)deps, in->count, &p, &node);
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_put(OW_KIND_GRAPH_NODE, in->node, node);
    if (r == CUDA_SUCCESS)
        oh_set_data(OW_KIND_GRAPH_NODE, in->node, graph);
    return r;
}

static CUresult set_in_graph(CUgraphNode node, const struct params *p)
{
    switch (p->kind) {
    case OC_NODE_KERNEL:
        return OH_CALL(cuGraphKernelNodeSetParams_v2, node, &p->kernel);
    case OC_NODE_COPY:
        return OH_CALL(cuGraphMemcpyNodeSetParams, node, &p->copy);
    case OC_NODE_MEMSET:
        return OH_CALL(cuGraphMemsetNodeSetParams, node, &p->set);
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

static CUresult set_in_exec(CUgraphExec exec, CUgraphNode node, const struct params *p)
{
    switch (p->kind) {
    case OC_NODE_KERNEL:
        return OH_CALL(cuGraphExecKernelNodeSetParams_v2, exec, node, &p->kernel);
    case OC_NODE_COPY:
        return OH_CALL(cuGraphExecMemcpyNodeSetParams, exec, node, &p->copy, p->context);
    case OC_NODE_MEMSET:
        return OH_CALL(cuGraphExecMemsetNodeSetParams, exec, node, &p->set, p->context);
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

CUresult oh_orion_node_set(struct oh_twin *t, const struct ow_orion_node_set_in *in, uint32_t bytes,
                           struct ow_orion_node_set_out *out, uint32_t *out_bytes)
{
    struct params p = { 0 };
    void *node, *exec = NULL;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->node, &node);

    (void)t;
    (void)out;
    (void)out_bytes;
    if (r == CUDA_SUCCESS && in->exec)
        r = oh_get(OW_KIND_GRAPH_EXEC, in->exec, &exec);
    if (r == CUDA_SUCCESS && in->kind != OC_NODE_KERNEL && in->kind != OC_NODE_COPY && in->kind != OC_NODE_MEMSET)
        r = CUDA_ERROR_NOT_SUPPORTED;
    if (r == CUDA_SUCCESS)
        r = params_get(in->kind, in->context, (const uint8_t *)(in + 1), bytes - (uint32_t)sizeof(*in), &p);
    if (r != CUDA_SUCCESS)
        return r;
    return in->exec ? set_in_exec(exec, node, &p) : set_in_graph(node, &p);
}

/* ---- lists ---- */

static CUresult driver_list(uint32_t what, void *object, CUgraphNode *nodes, size_t *count)
{
    switch (what) {
    case 0:
        return OH_CALL(cuGraphGetNodes, object, nodes, count);
    case 1:
        return OH_CALL(cuGraphGetRootNodes, object, nodes, count);
    case 2:
        return OH_CALL(cuGraphNodeGetDependencies, object, nodes, count);
    default:
        return OH_CALL(cuGraphNodeGetDependentNodes, object, nodes, count);
    }
}

static CUresult all_nodes(uint32_t what, void *object, CUgraphNode **nodes, size_t *count)
{
    CUresult r = driver_list(what, object, NULL, count);

    *nodes = NULL;
    if (r != CUDA_SUCCESS || *count == 0)
        return r;
    if (*count > MAX_LIST)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *nodes = calloc(*count, sizeof(**nodes));
    if (!*nodes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    return driver_list(what, object, *nodes, count);
}

/* Names nodes[0..nr); the graph that owns them is remembered for its destruction. */
static CUresult name(const CUgraphNode *nodes, size_t nr, void *graph, const uint64_t *candidates, uint64_t *answer)
{
    CUresult r = CUDA_SUCCESS;
    uint32_t used = 0;

    for (size_t i = 0; i < nr && r == CUDA_SUCCESS; i++) {
        answer[i] = oh_find(OW_KIND_GRAPH_NODE, nodes[i]);
        if (answer[i])
            continue;
        answer[i] = candidates[used++];
        r = oh_put(OW_KIND_GRAPH_NODE, answer[i], nodes[i]);
        if (r == CUDA_SUCCESS)
            oh_set_data(OW_KIND_GRAPH_NODE, answer[i], graph);
    }
    return r;
}

CUresult oh_orion_graph_list(struct oh_twin *t, const struct ow_orion_graph_list_in *in, uint32_t bytes,
                             struct ow_orion_graph_list_out *out, uint32_t *out_bytes)
{
    bool of_graph = in->what < 2;
    CUgraphNode *nodes = NULL;
    size_t count = 0, nr = 0;
    void *object, *graph;
    CUresult r = oh_get(of_graph ? OW_KIND_GRAPH : OW_KIND_GRAPH_NODE, in->object, &object);

    (void)t;
    if (in->what > 3 || in->room > MAX_ROOM || bytes < sizeof(*in) + in->room * sizeof(uint64_t))
        return CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    graph = of_graph ? object : oh_data(OW_KIND_GRAPH_NODE, in->object);
    r = all_nodes(in->what, object, &nodes, &count);
    if (r == CUDA_SUCCESS && in->first < count) {
        nr = count - in->first < in->room ? count - in->first : in->room;
        r = name(nodes + in->first, nr, graph, (const uint64_t *)(in + 1), (uint64_t *)(out + 1));
    }
    free(nodes);
    out->count = count;
    *out_bytes = (uint32_t)(sizeof(*out) + nr * sizeof(uint64_t));
    return r;
}

/* ---- graphs as wholes ---- */


static void forget_node(uint64_t id, void *real, void *data, void *arg)
{
    (void)real;
    if (data == arg)
        oh_del(OW_KIND_GRAPH_NODE, id);
}

static void forget_graph(uint64_t id, void *real, void *data, void *arg)
{
    (void)data;
    if (real == arg)
        oh_del(OW_KIND_GRAPH, id);
}

/* With the graph go the numbers of its nodes and any second number of its own. */
CUresult oh_cuGraphDestroy(struct oh_twin *t, const struct ow_cuGraphDestroy_in *in, uint32_t bytes,
                           struct ow_cuGraphDestroy_out *out, uint32_t *out_bytes)
{
    void *graph;
    CUresult r = oh_get(OW_KIND_GRAPH, in->hGraph, &graph);

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphDestroy, graph);
    if (r != CUDA_SUCCESS)
        return r;
    oh_each(OW_KIND_GRAPH_NODE, forget_node, graph);
    oh_each(OW_KIND_GRAPH, forget_graph, graph);
    return CUDA_SUCCESS;
}

CUresult oh_orion_graph_instantiate(struct oh_twin *t, const struct ow_orion_graph_instantiate_in *in, uint32_t bytes,
                                    struct ow_orion_graph_instantiate_out *out, uint32_t *out_bytes)
{
    CUDA_GRAPH_INSTANTIATE_PARAMS params = { .flags = in->flags };
    CUgraphExec exec = NULL;
    void *graph, *stream;
    CUresult r = oh_get(OW_KIND_GRAPH, in->graph, &graph);

    (void)t;
    (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_STREAM, in->stream, &stream);
    if (r != CUDA_SUCCESS)
        return r;
    params.hUploadStream = stream;
    r = OH_CALL(cuGraphInstantiateWithParams, &exec, graph, &params);
    if (r == CUDA_SUCCESS) {
        r = oh_put(OW_KIND_GRAPH_EXEC, in->exec, exec);
        if (r != CUDA_SUCCESS)
            OH_CALL(cuGraphExecDestroy, exec);
    }
    if (r != CUDA_SUCCESS)
        return r;
    out->result = params.result_out;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

/* The driver's answer travels as a value, since a failed update has results too. */
CUresult oh_orion_graph_update(struct oh_twin *t, const struct ow_orion_graph_update_in *in, uint32_t bytes,
                               struct ow_orion_graph_update_out *out, uint32_t *out_bytes)
{
    CUgraphExecUpdateResultInfo info = { 0 };
    void *graph, *exec;
    CUresult r = oh_get(OW_KIND_GRAPH_EXEC, in->exec, &exec);

    (void)t;
    (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_GRAPH, in->graph, &graph);
    if (r != CUDA_SUCCESS)
        return r;
    out->answer = (uint32_t)OH_CALL(cuGraphExecUpdate_v2, exec, graph, &info);
    out->result = info.result;
    out->node = info.errorNode ? oh_find(OW_KIND_GRAPH_NODE, info.errorNode) : 0;
    out->from = info.errorFromNode ? oh_find(OW_KIND_GRAPH_NODE, info.errorFromNode) : 0;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}
