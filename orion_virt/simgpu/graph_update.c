/* SPDX-License-Identifier: Apache-2.0 */
/* Executables that change: updated from another graph, nodes switched off; nodes of clones; attributes of kernels. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static size_t index_of(const struct CUgraph_st *g, const struct CUgraphNode_st *n)
{
    size_t i = 0;

    while (i < g->nr_nodes && g->nodes[i] != n)
        i++;
    return i;
}

/* Both are in an order that respects dependencies, of nodes made in the same order. */
static CUgraphExecUpdateResult compare(const struct CUgraph_st *was, const struct CUgraph_st *is,
                                       CUgraphExecUpdateResultInfo *info)
{
    if (was->nr_nodes != is->nr_nodes)
        return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    for (size_t i = 0; i < is->nr_nodes; i++) {
        const struct CUgraphNode_st *a = was->nodes[i], *b = is->nodes[i];
        CUgraphExecUpdateResult r = CU_GRAPH_EXEC_UPDATE_SUCCESS;

        if (a->type != b->type)
            r = CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
        else if (a->nr_deps != b->nr_deps)
            r = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        else if (a->work.alloc || a->condition.phGraph_out)
            r = CU_GRAPH_EXEC_UPDATE_ERROR_NOT_SUPPORTED;
        for (size_t d = 0; !r && d < a->nr_deps; d++)
            if (index_of(was, a->deps[d]) != index_of(is, b->deps[d]))
                r = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        if (!r && a->child)
            r = compare(a->child, b->child, info);
        if (r && !info->errorNode)
            info->errorNode = b->origin;
        if (r)
            return r;
    }
    return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

static void take_over(struct CUgraph_st *to, struct CUgraph_st *from)
{
    struct sim_kept *kept = to->kept;

    for (size_t i = 0; i < to->nr_nodes; i++) {
        struct CUgraphNode_st *a = to->nodes[i], *b = from->nodes[i];
        struct sim_work work = a->work;

        a->work = b->work;
        b->work = work;
        memcpy(a->attrs, b->attrs, sizeof(a->attrs));
        a->nr_attrs = b->nr_attrs;
        if (a->child)
            take_over(a->child, b->child);
    }
    to->kept = from->kept;
    from->kept = kept;
}

SIM_API CUresult cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo *info)
{
    struct CUctx_st *ctx = sim_current();
    CUgraph copy;

    if (!info || !sim_valid(exec, SIM_EXEC) || !sim_valid(graph, SIM_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    *info = (CUgraphExecUpdateResultInfo){ .result = CU_GRAPH_EXEC_UPDATE_ERROR };
    copy = sim_graph_clone_whole(graph);
    if (!copy)
        return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
    if (ctx)
        sim_context_wait(ctx); /* launches go on with what they were submitted with */
    info->result = compare(sim_exec_graph(exec), copy, info);
    if (info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS)
        take_over(sim_exec_graph(exec), copy);
    sim_graph_destroy(copy);
    return info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS ? CUDA_SUCCESS : CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
}

/* Kernels, sets and copies only. */
static struct CUgraphNode_st *switchable(CUgraphExec exec, CUgraphNode node)
{
    if (!sim_valid(node, SIM_NODE) || node->type > CU_GRAPH_NODE_TYPE_MEMSET)
        return NULL;
    return sim_exec_node(exec, node, node->type);
}

SIM_API CUresult cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node, unsigned on)
{
    struct CUgraphNode_st *n = switchable(exec, node);

    if (!n)
        return CUDA_ERROR_INVALID_VALUE;
    n->disabled = !on;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode node, unsigned *on)
{
    struct CUgraphNode_st *n = switchable(exec, node);

    if (!n || !on)
        return CUDA_ERROR_INVALID_VALUE;
    *on = !n->disabled;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphNodeFindInClone(CUgraphNode *out, CUgraphNode node, CUgraph clone)
{
    if (!out || !sim_valid(node, SIM_NODE) || !sim_valid(clone, SIM_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < clone->nr_nodes; i++)
        if (clone->nodes[i]->origin == node) {
            *out = clone->nodes[i];
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

/* ---- attributes of kernel nodes ---- */

static bool kernel(CUgraphNode node)
{
    return sim_valid(node, SIM_NODE) && node->type == CU_GRAPH_NODE_TYPE_KERNEL;
}

static CUlaunchAttribute *find(struct CUgraphNode_st *n, CUlaunchAttributeID id)
{
    for (unsigned i = 0; i < n->nr_attrs; i++)
        if (n->attrs[i].id == id)
            return &n->attrs[i];
    return NULL;
}

SIM_API CUresult cuGraphKernelNodeSetAttribute(CUgraphNode node, CUkernelNodeAttrID id, const CUkernelNodeAttrValue *v)
{
    CUlaunchAttribute *a;

    if (!v || !kernel(node))
        return CUDA_ERROR_INVALID_VALUE;
    if (id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION) {
        memcpy(node->work.call.cluster, &v->clusterDim, sizeof(node->work.call.cluster));
        return CUDA_SUCCESS;
    }
    if (id != 1 && id != 2 && id != 5 && id != 8 && id != 9 && id != 10 && id != 13)
        return CUDA_ERROR_NOT_SUPPORTED;
    a = find(node, id);
    if (!a && node->nr_attrs == sizeof(node->attrs) / sizeof(node->attrs[0]))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!a)
        a = &node->attrs[node->nr_attrs++];
    a->id = id;
    a->value = *v;
    if (id == CU_LAUNCH_ATTRIBUTE_COOPERATIVE)
        node->work.call.cooperative = v->cooperative != 0;
    if (id == CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE) {
        a->value.deviceUpdatableKernelNode.devNode = node;
        ((CUkernelNodeAttrValue *)(uintptr_t)v)->deviceUpdatableKernelNode.devNode = node; /* as the driver does */
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphKernelNodeGetAttribute(CUgraphNode node, CUkernelNodeAttrID id, CUkernelNodeAttrValue *v)
{
    CUlaunchAttribute *a;

    if (!v || !kernel(node))
        return CUDA_ERROR_INVALID_VALUE;
    a = find(node, id);
    memset(v, 0, sizeof(*v));
    if (a)
        *v = a->value;
    if (id == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION)
        memcpy(&v->clusterDim, node->work.call.cluster, sizeof(node->work.call.cluster));
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphKernelNodeCopyAttributes(CUgraphNode to, CUgraphNode from)
{
    if (!kernel(to) || !kernel(from))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(to->attrs, from->attrs, sizeof(to->attrs));
    to->nr_attrs = from->nr_attrs;
    to->work.call.cooperative = from->work.call.cooperative;
    memcpy(to->work.call.cluster, from->work.call.cluster, sizeof(to->work.call.cluster));
    return CUDA_SUCCESS;
}
