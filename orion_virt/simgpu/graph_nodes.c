/* SPDX-License-Identifier: Apache-2.0 */
/* Building graphs by hand: nodes of each type, their parameters, edges and queries. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static CUresult check_deps(CUgraph graph, const CUgraphNode *deps, size_t nr)
{
    if (!sim_valid(graph, SIM_GRAPH) || (nr && !deps))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < nr; i++)
        if (!sim_valid(deps[i], SIM_NODE) || deps[i]->graph != graph)
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* Adds a node that takes over `work`; on error the work is cleared. */
CUresult sim_node_add(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr, CUgraphNodeType type,
                      struct sim_work *work)
{
    CUresult r = out ? check_deps(graph, deps, nr) : CUDA_ERROR_INVALID_VALUE;
    struct CUgraphNode_st *n = r ? NULL : sim_graph_add(graph, type, deps, nr);

    if (!n) {
        sim_work_clear(work);
        return r ? r : CUDA_ERROR_OUT_OF_MEMORY;
    }
    n->work = *work;
    *out = n;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphCreate(CUgraph *out, unsigned flags)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out || flags)
        return CUDA_ERROR_INVALID_VALUE;
    *out = sim_graph_create();
    return *out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuGraphDestroy(CUgraph graph)
{
    if (!sim_valid(graph, SIM_GRAPH) || graph->owned)
        return CUDA_ERROR_INVALID_VALUE;
    sim_graph_destroy(graph);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphClone(CUgraph *out, CUgraph graph)
{
    if (!out || !sim_valid(graph, SIM_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    *out = sim_graph_clone(graph);
    return *out ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

SIM_API CUresult cuGraphAddEmptyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr)
{
    struct sim_work work = { .kind = SIM_WORK_EMPTY };

    return sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_EMPTY, &work);
}

SIM_API CUresult cuGraphAddChildGraphNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                          CUgraph child)
{
    struct sim_work work = { .kind = SIM_WORK_EMPTY };
    CUgraph copy = sim_valid(child, SIM_GRAPH) && child != graph ? sim_graph_clone(child) : NULL;
    CUresult r = copy ? sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_GRAPH, &work) : CUDA_ERROR_INVALID_VALUE;

    if (!r) {
        copy->owned = true;
        (*out)->child = copy;
    } else if (copy) {
        sim_graph_destroy(copy);
    }
    return r;
}

static CUresult add_event(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr, CUevent event, bool record)
{
    struct sim_work work = { .kind = record ? SIM_WORK_RECORD : SIM_WORK_WAIT, .mark = { event, 0 } };

    if (!sim_valid(event, SIM_EVENT))
        return CUDA_ERROR_INVALID_VALUE;
    __atomic_fetch_add(&event->refs, 1, __ATOMIC_SEQ_CST);
    return sim_node_add(out, graph, deps, nr, record ? CU_GRAPH_NODE_TYPE_EVENT_RECORD : CU_GRAPH_NODE_TYPE_WAIT_EVENT, &work);
}

SIM_API CUresult cuGraphAddEventRecordNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                           CUevent event)
{
    return add_event(out, graph, deps, nr, event, true);
}

SIM_API CUresult cuGraphAddEventWaitNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                         CUevent event)
{
    return add_event(out, graph, deps, nr, event, false);
}

CUresult sim_kernel_work(const CUDA_KERNEL_NODE_PARAMS *p, struct sim_work *work)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!p || (!p->func && !p->kern))
        return CUDA_ERROR_INVALID_VALUE;
    *work = (struct sim_work){
        .kind = SIM_WORK_KERNEL,
        .call = { .function = p->func ? (void *)p->func : (void *)p->kern, .kernel = p->kern,
                  .grid = { p->gridDimX, p->gridDimY, p->gridDimZ }, .block = { p->blockDimX, p->blockDimY, p->blockDimZ },
                  .shared = p->sharedMemBytes },
    };
    return sim_call_prepare(p->ctx && sim_context_valid(p->ctx) ? p->ctx : ctx, &work->call, p->kernelParams, p->extra);
}

static CUDA_KERNEL_NODE_PARAMS newer(const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
    CUDA_KERNEL_NODE_PARAMS q;

    memset(&q, 0, sizeof(q));
    memcpy(&q, p, sizeof(*p)); /* the newer struct only appends */
    return q;
}

SIM_API CUresult cuGraphAddKernelNode_v2(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                         const CUDA_KERNEL_NODE_PARAMS *p)
{
    struct sim_work work;
    CUresult r = sim_kernel_work(p, &work);

    return r ? r : sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_KERNEL, &work);
}

SIM_API CUresult cuGraphAddKernelNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                      const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
    CUDA_KERNEL_NODE_PARAMS q;

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    q = newer(p);
    return cuGraphAddKernelNode_v2(out, graph, deps, nr, &q);
}

CUresult sim_copy_work(const CUDA_MEMCPY3D *p, struct sim_work *work)
{
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    *work = (struct sim_work){ .kind = SIM_WORK_COPY, .copy_params = *p };
    return sim_copy_resolve(p, &work->copy);
}

SIM_API CUresult cuGraphAddMemcpyNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                      const CUDA_MEMCPY3D *p, CUcontext ctx)
{
    struct sim_work work;
    CUresult r = sim_copy_work(p, &work);

    (void)ctx;
    return r ? r : sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_MEMCPY, &work);
}

CUresult sim_set_work(const CUDA_MEMSET_NODE_PARAMS *p, struct sim_work *work)
{
    if (!p || (p->elementSize != 1 && p->elementSize != 2 && p->elementSize != 4) || !p->width || !p->height)
        return CUDA_ERROR_INVALID_VALUE;
    size_t last = (p->height - 1) * (p->height > 1 ? p->pitch : 0) + p->width * p->elementSize;
    if (p->dst % p->elementSize || sim_space_extent(p->dst) < last)
        return CUDA_ERROR_INVALID_VALUE;
    *work = (struct sim_work){
        .kind = SIM_WORK_SET, .set_params = *p,
        .set = { .dst = p->dst, .pitch = p->pitch, .width = p->width, .height = p->height, .value = p->value,
                 .element = p->elementSize },
    };
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphAddMemsetNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                      const CUDA_MEMSET_NODE_PARAMS *p, CUcontext ctx)
{
    struct sim_work work;
    CUresult r = sim_set_work(p, &work);

    (void)ctx;
    return r ? r : sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_MEMSET, &work);
}

SIM_API CUresult cuGraphAddHostNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                    const CUDA_HOST_NODE_PARAMS *p)
{
    struct sim_work work = { .kind = SIM_WORK_HOST };

    if (!p || !p->fn)
        return CUDA_ERROR_INVALID_VALUE;
    work.host.fn = p->fn;
    work.host.data = p->userData;
    return sim_node_add(out, graph, deps, nr, CU_GRAPH_NODE_TYPE_HOST, &work);
}

/* ---- changing and reading parameters ---- */

CUresult sim_node_replace(struct CUgraphNode_st *n, CUresult made, struct sim_work *work)
{
    if (made)
        return made;
    if (!n) {
        sim_work_clear(work);
        return CUDA_ERROR_INVALID_VALUE;
    }
    work->call.cooperative = n->work.call.cooperative; /* attributes stay */
    memcpy(work->call.cluster, n->work.call.cluster, sizeof(work->call.cluster));
    sim_work_clear(&n->work);
    n->work = *work;
    return CUDA_SUCCESS;
}

static struct CUgraphNode_st *typed(CUgraphNode node, CUgraphNodeType type)
{
    return sim_valid(node, SIM_NODE) && node->type == type ? node : NULL;
}

SIM_API CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p)
{
    struct sim_work work;
    CUresult r = sim_kernel_work(p, &work);

    return sim_node_replace(typed(node, CU_GRAPH_NODE_TYPE_KERNEL), r, &work);
}

SIM_API CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p)
{
    struct sim_work work;
    CUresult r = sim_kernel_work(p, &work);

    return sim_node_replace(r ? NULL : sim_exec_node(exec, node, CU_GRAPH_NODE_TYPE_KERNEL), r, &work);
}

SIM_API CUresult cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
    CUDA_KERNEL_NODE_PARAMS q;

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    q = newer(p);
    return cuGraphExecKernelNodeSetParams_v2(exec, node, &q);
}

SIM_API CUresult cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D *p)
{
    if (!p || !typed(node, CU_GRAPH_NODE_TYPE_MEMCPY))
        return CUDA_ERROR_INVALID_VALUE;
    *p = node->work.copy_params;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D *p)
{
    struct sim_work work;
    CUresult r = sim_copy_work(p, &work);

    return sim_node_replace(typed(node, CU_GRAPH_NODE_TYPE_MEMCPY), r, &work);
}

SIM_API CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D *p, CUcontext ctx)
{
    struct sim_work work;
    CUresult r = sim_copy_work(p, &work);

    (void)ctx;
    return sim_node_replace(r ? NULL : sim_exec_node(exec, node, CU_GRAPH_NODE_TYPE_MEMCPY), r, &work);
}

SIM_API CUresult cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS *p)
{
    if (!p || !typed(node, CU_GRAPH_NODE_TYPE_MEMSET))
        return CUDA_ERROR_INVALID_VALUE;
    *p = node->work.set_params;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *p)
{
    struct sim_work work;
    CUresult r = sim_set_work(p, &work);

    return sim_node_replace(typed(node, CU_GRAPH_NODE_TYPE_MEMSET), r, &work);
}

SIM_API CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *p,
                                                CUcontext ctx)
{
    struct sim_work work;
    CUresult r = sim_set_work(p, &work);

    (void)ctx;
    return sim_node_replace(r ? NULL : sim_exec_node(exec, node, CU_GRAPH_NODE_TYPE_MEMSET), r, &work);
}

/* ---- queries ---- */

/* Copies handles to an array of *nr, or only counts when there is none; unused room is NULLed. */
static CUresult give(CUgraphNode *out, size_t *nr, CUgraphNode *nodes, size_t have)
{
    for (size_t i = 0; out && i < *nr; i++)
        out[i] = i < have ? nodes[i] : NULL;
    if (!out || *nr > have)
        *nr = have;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *nr)
{
    if (!nr || !sim_valid(graph, SIM_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    return give(nodes, nr, graph->nodes, graph->nr_nodes);
}

SIM_API CUresult cuGraphGetRootNodes(CUgraph graph, CUgraphNode *nodes, size_t *nr)
{
    CUgraphNode *roots;
    size_t have = 0;

    if (!nr || !sim_valid(graph, SIM_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    roots = calloc(graph->nr_nodes + 1, sizeof(*roots));
    if (!roots)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < graph->nr_nodes; i++)
        if (!graph->nodes[i]->nr_deps)
            roots[have++] = graph->nodes[i];
    give(nodes, nr, roots, have);
    free(roots);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type)
{
    if (!type || !sim_valid(node, SIM_NODE))
        return CUDA_ERROR_INVALID_VALUE;
    *type = node->type;
    return CUDA_SUCCESS;
}
