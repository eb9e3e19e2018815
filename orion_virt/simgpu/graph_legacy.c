/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of one kind of node that the generic ones cover. */
#include <stdio.h>
#include <string.h>

#include "sim.h"

static CUgraphNodeParams of_event(CUgraphNodeType type, CUevent event)
{
    CUgraphNodeParams p = { .type = type };

    p.event.event = event;
    return p;
}

SIM_API CUresult cuGraphAddNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                CUgraphNodeParams *p)
{
    return cuGraphAddNode_v2(out, graph, deps, NULL, nr, p);
}

SIM_API CUresult cuGraphAddBatchMemOpNode(CUgraphNode *out, CUgraph graph, const CUgraphNode *deps, size_t nr,
                                          const CUDA_BATCH_MEM_OP_NODE_PARAMS *batch)
{
    CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP };

    if (!batch)
        return CUDA_ERROR_INVALID_VALUE;
    p.memOp = *batch;
    return cuGraphAddNode_v2(out, graph, deps, NULL, nr, &p);
}

SIM_API CUresult cuGraphBatchMemOpNodeSetParams(CUgraphNode node, const CUDA_BATCH_MEM_OP_NODE_PARAMS *batch)
{
    CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP };

    if (!batch)
        return CUDA_ERROR_INVALID_VALUE;
    p.memOp = *batch;
    return cuGraphNodeSetParams(node, &p);
}

SIM_API CUresult cuGraphExecBatchMemOpNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                                    const CUDA_BATCH_MEM_OP_NODE_PARAMS *batch)
{
    CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP };

    if (!batch)
        return CUDA_ERROR_INVALID_VALUE;
    p.memOp = *batch;
    return cuGraphExecNodeSetParams(exec, node, &p);
}

SIM_API CUresult cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node, const CUDA_HOST_NODE_PARAMS *host)
{
    CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_HOST };

    if (!host)
        return CUDA_ERROR_INVALID_VALUE;
    p.host = *host;
    return cuGraphExecNodeSetParams(exec, node, &p);
}

SIM_API CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec exec, CUgraphNode node, CUgraph child)
{
    CUgraphNodeParams p = { .type = CU_GRAPH_NODE_TYPE_GRAPH };

    p.graph.graph = child;
    return cuGraphExecNodeSetParams(exec, node, &p);
}

SIM_API CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode node, CUevent event)
{
    CUgraphNodeParams p = of_event(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);

    return cuGraphNodeSetParams(node, &p);
}

SIM_API CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode node, CUevent event)
{
    CUgraphNodeParams p = of_event(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);

    return cuGraphNodeSetParams(node, &p);
}

SIM_API CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event)
{
    CUgraphNodeParams p = of_event(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);

    return cuGraphExecNodeSetParams(exec, node, &p);
}

SIM_API CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec exec, CUgraphNode node, CUevent event)
{
    CUgraphNodeParams p = of_event(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);

    return cuGraphExecNodeSetParams(exec, node, &p);
}

SIM_API CUresult cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
    CUDA_KERNEL_NODE_PARAMS q;
    CUresult r = p ? cuGraphKernelNodeGetParams_v2(node, &q) : CUDA_ERROR_INVALID_VALUE;

    if (!r)
        memcpy(p, &q, sizeof(*p)); /* which begins so */
    return r;
}

SIM_API CUresult cuGraphDebugDotPrint(CUgraph graph, const char *path, unsigned flags)
{
    FILE *f;

    (void)flags;
    if (!path || !sim_valid(graph, SIM_GRAPH))
        return CUDA_ERROR_INVALID_VALUE;
    f = fopen(path, "w");
    if (!f)
        return CUDA_ERROR_OPERATING_SYSTEM;
    fprintf(f, "digraph dot {\n");
    for (size_t i = 0; i < graph->nr_nodes; i++) {
        fprintf(f, "\"%p\"[label=\"type %u\"];\n", (void *)graph->nodes[i], graph->nodes[i]->type);
        for (size_t d = 0; d < graph->nodes[i]->nr_deps; d++)
            fprintf(f, "\"%p\" -> \"%p\";\n", (void *)graph->nodes[i]->deps[d], (void *)graph->nodes[i]);
    }
    fprintf(f, "}\n");
    return fclose(f) ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_SUCCESS;
}
