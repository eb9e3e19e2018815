/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs as wholes: clone, destroy, instantiate, update. */
#include <string.h>

#include "graph.h"
#include "gen/send.h"

OG_EXPORT CUresult cuGraphDestroy(CUgraph hGraph)
{
    CUresult r = og_send_cuGraphDestroy(hGraph);

    if (r == CUDA_SUCCESS)
        og_unmint(OW_KIND_GRAPH, (uint64_t)(uintptr_t)hGraph);
    return r;
}

OG_EXPORT CUresult cuGraphClone(CUgraph *phGraphClone, CUgraph originalGraph)
{
    return og_send_cuGraphClone(phGraphClone, originalGraph);
}

OG_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags)
{
    return og_send_cuGraphInstantiateWithFlags(phGraphExec, hGraph, flags);
}

/* The oldest form reports in text: the result says as much. */
OG_EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
                                         char *logBuffer, size_t bufferSize)
{
    if (phErrorNode)
        *phErrorNode = NULL;
    if (logBuffer && bufferSize)
        logBuffer[0] = '\0';
    return og_send_cuGraphInstantiateWithFlags(phGraphExec, hGraph, 0);
}

OG_EXPORT CUresult cuGraphInstantiate(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
                                      char *logBuffer, size_t bufferSize)
{
    return cuGraphInstantiate_v2(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize);
}

OG_EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph,
                                                CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    CUDA_GRAPH_INSTANTIATE_PARAMS *p = instantiateParams;
    uint32_t result = 0;
    uint64_t exec;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!phGraphExec || !p || !og_stream_valid((uint64_t)(uintptr_t)p->hUploadStream))
        return CUDA_ERROR_INVALID_VALUE;
    exec = og_mint(OW_KIND_GRAPH_EXEC);
    if (!exec)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_send_orion_graph_instantiate(hGraph, exec, p->flags, (uint64_t)(uintptr_t)p->hUploadStream, &result);
    p->hErrNode_out = NULL;
    p->result_out = r == CUDA_SUCCESS ? result : 1; /* CUDA_GRAPH_INSTANTIATE_ERROR */
    if (r != CUDA_SUCCESS)
        og_unmint(OW_KIND_GRAPH_EXEC, exec);
    else
        *phGraphExec = (CUgraphExec)(uintptr_t)exec;
    return r;
}

OG_EXPORT CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphExecUpdateResultInfo *resultInfo)
{
    uint64_t node = 0, from = 0;
    uint32_t result = 1; /* CU_GRAPH_EXEC_UPDATE_ERROR */
    uint32_t answer = 0;
    CUresult r;

    if (!resultInfo)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_send_orion_graph_update(hGraphExec, hGraph, &node, &from, &result, &answer);
    if (r != CUDA_SUCCESS)
        return r;
    resultInfo->result = result;
    resultInfo->errorNode = (CUgraphNode)(uintptr_t)node;
    resultInfo->errorFromNode = (CUgraphNode)(uintptr_t)from;
    return (CUresult)answer;
}

OG_EXPORT CUresult cuGraphExecUpdate(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphNode *hErrorNode_out,
                                     CUgraphExecUpdateResult *updateResult_out)
{
    CUgraphExecUpdateResultInfo info = { 0 };
    CUresult r = cuGraphExecUpdate_v2(hGraphExec, hGraph, &info);

    if (hErrorNode_out)
        *hErrorNode_out = info.errorNode;
    if (updateResult_out)
        *updateResult_out = info.result;
    return r;
}

OG_EXPORT CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
    CUresult r = og_send_cuGraphExecDestroy(hGraphExec);

    if (r == CUDA_SUCCESS)
        og_unmint(OW_KIND_GRAPH_EXEC, (uint64_t)(uintptr_t)hGraphExec);
    return r;
}

/* What was given to a node is in the application's hands already; asking for it back is rare. */
OG_EXPORT CUresult cuGraphKernelNodeGetParams(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    (void)hNode;
    (void)nodeParams;
    return og_unsupported("cuGraphKernelNodeGetParams");
}

OG_EXPORT CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    (void)hNode;
    (void)nodeParams;
    return og_unsupported("cuGraphKernelNodeGetParams_v2");
}

OG_EXPORT CUresult cuGraphMemcpyNodeGetParams(CUgraphNode hNode, CUDA_MEMCPY3D *nodeParams)
{
    (void)hNode;
    (void)nodeParams;
    return og_unsupported("cuGraphMemcpyNodeGetParams");
}

OG_EXPORT CUresult cuGraphMemsetNodeGetParams(CUgraphNode hNode, CUDA_MEMSET_NODE_PARAMS *nodeParams)
{
    (void)hNode;
    (void)nodeParams;
    return og_unsupported("cuGraphMemsetNodeGetParams");
}
