/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes of any kind by one function, and the parameters of the rarer kinds. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static CUresult batch_work(const CUDA_BATCH_MEM_OP_NODE_PARAMS *p, struct sim_work *work)
{
    *work = (struct sim_work){ .kind = SIM_WORK_BATCH, .nr_ops = p->count, .ops_flags = p->flags };
    if (!p->count || !p->paramArray || p->flags)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < p->count; i++) {
        const CUstreamBatchMemOpParams *op = &p->paramArray[i];
        unsigned bytes = op->operation > 2 ? 8 : 4;

        if (op->operation < 1 || op->operation > 6)
            return op->operation == 8 ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
        if (op->operation != 3 && op->operation != 6 &&
            (op->waitValue.address % bytes || sim_space_extent(op->waitValue.address) < bytes))
            return CUDA_ERROR_INVALID_VALUE;
    }
    work->ops = calloc(p->count, sizeof(*work->ops));
    if (!work->ops)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(work->ops, p->paramArray, p->count * sizeof(*work->ops));
    return CUDA_SUCCESS;
}

/* Of the kinds whose parameters can change. */
static CUresult make_work(const CUgraphNodeParams *p, struct sim_work *work)
{
    *work = (struct sim_work){ .kind = SIM_WORK_EMPTY };
    switch (p->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return sim_kernel_work(&p->kernel, work);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return sim_copy_work(&p->memcpy.copyParams, work);
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return sim_set_work(&p->memset.params, work);
    case CU_GRAPH_NODE_TYPE_HOST:
        *work = (struct sim_work){ .kind = SIM_WORK_HOST, .host = { .fn = p->host.fn, .data = p->host.userData } };
        return p->host.fn ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
        if (!sim_valid(p->event.event, SIM_EVENT))
            return CUDA_ERROR_INVALID_VALUE;
        __atomic_fetch_add(&p->event.event->refs, 1, __ATOMIC_SEQ_CST);
        *work = (struct sim_work){ .kind = p->type == CU_GRAPH_NODE_TYPE_WAIT_EVENT ? SIM_WORK_WAIT : SIM_WORK_RECORD,
                                   .mark = { p->event.event, 0 } };
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
        return batch_work(&p->memOp, work);
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

/* A graph that is given away keeps its handle, and ends with the node. */
static CUresult move_child(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr, CUgraph child)
{
    struct sim_work work = { .kind = SIM_WORK_EMPTY };
    CUresult r;

    if (!sim_valid(child, SIM_GRAPH) || child->owned || child == graph)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_GRAPH, &work);
    if (!r) {
        (*out)->child = child;
        child->owned = true;
    }
    return r;
}

static CUresult add(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr, CUgraphNodeParams *p)
{
    struct sim_work work;
    CUresult r;

    switch (p->type) {
    case CU_GRAPH_NODE_TYPE_EMPTY:
        return cuGraphAddEmptyNode(out, graph, deps, nr);
    case CU_GRAPH_NODE_TYPE_GRAPH:
        if (p->graph.ownership)
            return move_child(out, graph, deps, nr, p->graph.graph);
        return cuGraphAddChildGraphNode(out, graph, deps, nr, p->graph.graph);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        return cuGraphAddMemAllocNode(out, graph, deps, nr, &p->alloc);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return cuGraphAddMemFreeNode(out, graph, deps, nr, p->free.dptr);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
        return sim_condition_add(out, graph, deps, nr, &p->conditional);
    default:
        r = make_work(p, &work);
        return r ? r : sim_node_add(out, graph, deps, nr, p->type, &work);
    }
}

SIM_API CUresult cuGraphAddNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps,
                                   const CUgraphEdgeData *edges, size_t nr, CUgraphNodeParams *p)
{
    CUresult r;

    if (!out || !p)
        return CUDA_ERROR_INVALID_VALUE;
    r = add(out, graph, edges ? NULL : deps, edges ? 0 : nr, p);
    for (size_t i = 0; !r && edges && i < nr; i++) {
        r = cuGraphAddDependencies_v2(graph, &deps[i], out, &edges[i], 1);
        if (r)
            cuGraphDestroyNode(*out);
    }
    return r;
}

static struct CUgraphNode_st *typed(CUgraphNode node, CUgraphNodeType type)
{
    return sim_valid(node, SIM_NODE) && node->type == type ? node : NULL;
}

SIM_API CUresult cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams *p)
{
    struct sim_work work;
    CUresult r = p ? make_work(p, &work) : CUDA_ERROR_INVALID_VALUE;

    return r ? r : sim_node_replace(typed(node, p->type), r, &work);
}

/* A child graph takes the place of one of the same form. */
static CUresult set_child(CUgraphExec exec, CUgraphNode node, CUgraph graph)
{
    struct CUgraphNode_st *n = sim_exec_node(exec, node, CU_GRAPH_NODE_TYPE_GRAPH);
    CUgraph copy;

    if (!n || !sim_valid(graph, SIM_GRAPH) || graph->nr_nodes != n->child->nr_nodes)
        return CUDA_ERROR_INVALID_VALUE;
    copy = sim_graph_clone(graph);
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < copy->nr_nodes; i++)
        if (copy->nodes[i]->type != n->child->nodes[i]->type) {
            sim_graph_destroy(copy);
            return CUDA_ERROR_INVALID_VALUE;
        }
    copy->owned = true;
    sim_graph_destroy(n->child);
    n->child = copy;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraphNodeParams *p)
{
    struct sim_work work;
    CUresult r;

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->type == CU_GRAPH_NODE_TYPE_GRAPH)
        return set_child(exec, node, p->graph.graph);
    r = make_work(p, &work);
    return r ? r : sim_node_replace(sim_exec_node(exec, node, p->type), r, &work);
}

/* ---- what a node was given ---- */

/* Packed parameters as a list of pointers, which lives with the node. */
SIM_API CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *p)
{
    struct CUctx_st *ctx;
    struct sim_call *c;
    struct CUfunc_st *f;
    size_t offset, bytes;
    unsigned nr;
    void **list;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!p || !typed(node, CU_GRAPH_NODE_TYPE_KERNEL))
        return CUDA_ERROR_INVALID_VALUE;
    c = &node->work.call;
    r = sim_function(ctx, c->function, &f);
    if (r)
        return r;
    nr = ptx_nr_params(f->kernel);
    list = realloc(node->got, (nr + 1) * sizeof(*list));
    if (!list)
        return CUDA_ERROR_OUT_OF_MEMORY;
    node->got = list;
    for (unsigned i = 0; i < nr; i++)
        list[i] = ptx_param(f->kernel, i, &offset, &bytes) ? NULL : (char *)c->params + offset;
    *p = (CUDA_KERNEL_NODE_PARAMS){ .gridDimX = c->grid[0], .gridDimY = c->grid[1], .gridDimZ = c->grid[2],
                                    .blockDimX = c->block[0], .blockDimY = c->block[1], .blockDimZ = c->block[2],
                                    .sharedMemBytes = c->shared, .kernelParams = nr ? list : NULL, .ctx = ctx };
    if (!sim_valid(c->function, SIM_KERNEL)) {
        p->func = c->function;
        p->kern = c->kernel;
        return CUDA_SUCCESS;
    }
    p->kern = c->function;
    return cuKernelGetFunction(&p->func, p->kern);
}

SIM_API CUresult cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS *p)
{
    if (!p || !typed(node, CU_GRAPH_NODE_TYPE_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    *p = (CUDA_HOST_NODE_PARAMS){ node->work.host.fn, node->work.host.data };
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS *p)
{
    CUgraphNodeParams any = { .type = CU_GRAPH_NODE_TYPE_HOST };

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    any.host = *p;
    return cuGraphNodeSetParams(node, &any);
}

SIM_API CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *graph)
{
    if (!graph || !typed(node, CU_GRAPH_NODE_TYPE_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    *graph = node->child;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode node, CUevent *event)
{
    if (!event || !typed(node, CU_GRAPH_NODE_TYPE_EVENT_RECORD))
        return CUDA_ERROR_INVALID_VALUE;
    *event = node->work.mark.event;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode node, CUevent *event)
{
    if (!event || !typed(node, CU_GRAPH_NODE_TYPE_WAIT_EVENT))
        return CUDA_ERROR_INVALID_VALUE;
    *event = node->work.mark.event;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphBatchMemOpNodeGetParams(CUgraphNode node, CUDA_BATCH_MEM_OP_NODE_PARAMS *p)
{
    if (!p || !typed(node, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP) || node->work.kind != SIM_WORK_BATCH)
        return CUDA_ERROR_INVALID_VALUE;
    *p = (CUDA_BATCH_MEM_OP_NODE_PARAMS){ sim_current(), node->work.nr_ops, node->work.ops, node->work.ops_flags };
    return CUDA_SUCCESS;
}
