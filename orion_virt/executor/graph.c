/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs as wholes: the numbers of their nodes, destruction, instantiation, launch and update. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

/* Data of a GRAPH_NODE is the driver's graph that it belongs to; data of a GRAPH the driver's node whose own it is
 * (a child graph, the body of a condition), NULL for a graph that the guest made. */
static _Atomic uint32_t nr_owned;

uint64_t oh_name_node(struct oh_namer *n, CUgraphNode node)
{
    uint64_t id = node ? oh_find(OW_KIND_GRAPH_NODE, node) : 0;

    if (id || !node || n->r != CUDA_SUCCESS)
        return id;
    if (n->used == n->room)
        return 0;
    id = n->candidates[n->used++];
    n->r = oh_put(OW_KIND_GRAPH_NODE, id, node);
    if (n->r == CUDA_SUCCESS)
        oh_set_data(OW_KIND_GRAPH_NODE, id, n->graph);
    return n->r == CUDA_SUCCESS ? id : 0;
}

void oh_graph_owned(uint64_t id, CUgraphNode node)
{
    oh_set_data(OW_KIND_GRAPH, id, node);
    atomic_fetch_add(&nr_owned, 1);
}

CUresult oh_name_graph(CUgraph graph, CUgraphNode owner, uint64_t candidate, uint64_t *id)
{
    CUresult r;

    *id = oh_find(OW_KIND_GRAPH, graph);
    if (*id)
        return CUDA_SUCCESS;
    *id = candidate;
    r = oh_put(OW_KIND_GRAPH, candidate, graph);
    if (r == CUDA_SUCCESS && owner)
        oh_graph_owned(candidate, owner);
    return r;
}

static void forget_owned(uint64_t id, void *real, void *data, void *node)
{
    if (data != node)
        return;
    atomic_fetch_sub(&nr_owned, 1);
    oh_del(OW_KIND_GRAPH, id);
    oh_graph_forget(real);
}

void oh_node_forget(uint64_t id, CUgraphNode node)
{
    oh_del(OW_KIND_GRAPH_NODE, id);
    if (atomic_load(&nr_owned))
        oh_each(OW_KIND_GRAPH, forget_owned, node);
}

static void forget_node(uint64_t id, void *real, void *data, void *graph)
{
    if (data == graph)
        oh_node_forget(id, real);
}

void oh_graph_forget(void *graph)
{
    uint64_t id = oh_find(OW_KIND_GRAPH, graph);

    if (id)
        oh_del(OW_KIND_GRAPH, id);
    oh_each(OW_KIND_GRAPH_NODE, forget_node, graph);
    oh_graph_memory_graph_ends(graph);
    oh_conditions_forget(graph);
}

CUresult oh_cuGraphDestroy(struct oh_twin *t, const struct ow_cuGraphDestroy_in *in, uint32_t bytes,
                           struct ow_cuGraphDestroy_out *out, uint32_t *out_bytes)
{
    void *graph;
    CUresult r = oh_get(OW_KIND_GRAPH, in->hGraph, &graph);

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (r == CUDA_SUCCESS && oh_data(OW_KIND_GRAPH, in->hGraph))
        r = CUDA_ERROR_INVALID_VALUE; /* a node's own */
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphDestroy, graph);
    if (r == CUDA_SUCCESS)
        oh_graph_forget(graph);
    return r;
}

CUresult oh_orion_clone_find(struct oh_twin *t, const struct ow_orion_clone_find_in *in, uint32_t bytes,
                             struct ow_orion_clone_find_out *out, uint32_t *out_bytes)
{
    struct oh_namer namer = { .candidates = &in->candidate, .room = 1 };
    CUgraphNode found = NULL;
    void *node, *graph;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->node, &node);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_GRAPH, in->graph, &graph);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphNodeFindInClone, &found, node, graph);
    if (r != CUDA_SUCCESS)
        return r;
    namer.graph = graph;
    out->found = oh_name_node(&namer, found);
    *out_bytes = sizeof(*out);
    return namer.r;
}

/* The driver tells it from CUDA 13.1 on; we know it anyway. */
CUresult oh_orion_node_graph(struct oh_twin *t, const struct ow_orion_node_graph_in *in, uint32_t bytes,
                             struct ow_orion_node_graph_out *out, uint32_t *out_bytes)
{
    void *node, *graph;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->node, &node);

    (void)t, (void)bytes;
    graph = oh_data(OW_KIND_GRAPH_NODE, in->node);
    if (r == CUDA_SUCCESS)
        r = graph ? oh_name_graph(graph, NULL, in->candidate, &out->graph) : CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

/* ---- executables ---- */

static CUresult make(CUgraph graph, const struct ow_orion_exec_make_in *in, struct oh_exec *exec,
                     CUDA_GRAPH_INSTANTIATE_PARAMS *params, CUgraphExec *made)
{
    CUresult r = exec ? oh_exec_book(exec) : CUDA_SUCCESS;

    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuGraphInstantiateWithParams, made, graph, params);
    if (exec)
        oh_exec_settle(exec, false);
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_put(OW_KIND_GRAPH_EXEC, in->exec, *made);
    if (r == CUDA_SUCCESS)
        oh_set_data(OW_KIND_GRAPH_EXEC, in->exec, exec);
    else
        OH_CALL(cuGraphExecDestroy, *made);
    return r;
}

/* The driver's answer travels as a value, since a failure has reasons. */
CUresult oh_orion_exec_make(struct oh_twin *t, const struct ow_orion_exec_make_in *in, uint32_t bytes,
                            struct ow_orion_exec_make_out *out, uint32_t *out_bytes)
{
    CUDA_GRAPH_INSTANTIATE_PARAMS params = { .flags = in->flags };
    struct oh_namer namer = { .candidates = &in->candidate, .room = 1 };
    struct oh_exec *exec = NULL;
    CUgraphExec made = NULL;
    void *graph, *stream;
    CUresult r = oh_get(OW_KIND_GRAPH, in->graph, &graph);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_STREAM, in->stream, &stream);
    if (r == CUDA_SUCCESS)
        r = oh_exec_make(graph, in->flags, &exec);
    if (r != CUDA_SUCCESS)
        return r;
    params.hUploadStream = stream;
    params.result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
    r = make(graph, in, exec, &params, &made);
    if (r == OH_FAULT)
        return r;
    if (r != CUDA_SUCCESS)
        oh_exec_free(exec);
    namer.graph = graph;
    out->answer = (uint32_t)r;
    out->allocates = r == CUDA_SUCCESS && exec;
    out->result = params.result_out;
    out->node = r == CUDA_SUCCESS ? 0 : oh_name_node(&namer, params.hErrNode_out);
    out->real = r == CUDA_SUCCESS && in->flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH ? (uintptr_t)made : 0;
    *out_bytes = sizeof(*out);
    return namer.r;
}

CUresult oh_cuGraphExecDestroy(struct oh_twin *t, const struct ow_cuGraphExecDestroy_in *in, uint32_t bytes,
                               struct ow_cuGraphExecDestroy_out *out, uint32_t *out_bytes)
{
    void *real, *exec;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (!oh_take(OW_KIND_GRAPH_EXEC, in->hGraphExec, &real, &exec))
        return CUDA_ERROR_INVALID_VALUE;
    oh_exec_free(exec);
    return OH_CALL(cuGraphExecDestroy, real);
}

static CUresult start(uint64_t id, uint64_t stream_id, bool launch)
{
    struct oh_exec *exec;
    void *real, *stream;
    CUresult r = oh_get(OW_KIND_GRAPH_EXEC, id, &real);

    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_STREAM, stream_id, &stream);
    if (r != CUDA_SUCCESS)
        return r;
    exec = oh_data(OW_KIND_GRAPH_EXEC, id);
    r = exec ? oh_exec_book(exec) : CUDA_SUCCESS;
    if (r != CUDA_SUCCESS)
        return r;
    r = launch ? OH_CALL(cuGraphLaunch, real, stream) : OH_CALL(cuGraphUpload, real, stream);
    if (exec)
        oh_exec_settle(exec, launch && r == CUDA_SUCCESS);
    return r;
}

CUresult oh_cuGraphLaunch(struct oh_twin *t, const struct ow_cuGraphLaunch_in *in, uint32_t bytes,
                          struct ow_cuGraphLaunch_out *out, uint32_t *out_bytes)
{
    (void)t, (void)bytes, (void)out, (void)out_bytes;
    return start(in->hGraph, in->hStream, true);
}

CUresult oh_cuGraphUpload(struct oh_twin *t, const struct ow_cuGraphUpload_in *in, uint32_t bytes,
                          struct ow_cuGraphUpload_out *out, uint32_t *out_bytes)
{
    (void)t, (void)bytes, (void)out, (void)out_bytes;
    return start(in->hGraph, in->hStream, false);
}

CUresult oh_orion_exec_update(struct oh_twin *t, const struct ow_orion_exec_update_in *in, uint32_t bytes,
                              struct ow_orion_exec_update_out *out, uint32_t *out_bytes)
{
    struct oh_namer namer = { .candidates = &in->candidate, .room = 2 }; /* the two lie side by side */
    CUgraphExecUpdateResultInfo info = { 0 };
    void *graph, *exec;
    CUresult r = oh_get(OW_KIND_GRAPH_EXEC, in->exec, &exec);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_GRAPH, in->graph, &graph);
    if (r != CUDA_SUCCESS)
        return r;
    namer.graph = graph;
    out->answer = (uint32_t)OH_CALL(cuGraphExecUpdate_v2, exec, graph, &info);
    out->result = info.result;
    out->node = oh_name_node(&namer, info.errorNode);
    out->from = oh_name_node(&namer, info.errorFromNode);
    *out_bytes = sizeof(*out);
    return namer.r;
}
_Static_assert(offsetof(struct ow_orion_exec_update_in, candidate_from) ==
                   offsetof(struct ow_orion_exec_update_in, candidate) + sizeof(uint64_t), "read as an array");
