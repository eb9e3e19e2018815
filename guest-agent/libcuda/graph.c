/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of one kind of graph node each, by way of the struct that holds any kind. */
#include <string.h>

#include "graph.h"
#include "gen/send.h"

static CUresult add(CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t nr_deps, CUgraphNodeParams *p)
{
    return og_node_add(node, graph, (struct og_deps){ deps, NULL, nr_deps }, p);
}

static CUresult set_exec(CUgraphExec exec, CUgraphNode node, const CUgraphNodeParams *p)
{
    return exec ? og_node_set(exec, node, p) : CUDA_ERROR_INVALID_VALUE;
}

/* The node must be of that type. */
static CUresult get(CUgraphNode node, CUgraphNodeType type, CUgraphNodeParams *p)
{
    CUresult r = og_node_get(node, p);

    return r == CUDA_SUCCESS && p->type != type ? CUDA_ERROR_INVALID_VALUE : r;
}

static CUgraphNodeParams of_type(CUgraphNodeType type)
{
    CUgraphNodeParams p;

    memset(&p, 0, sizeof(p));
    p.type = type;
    return p;
}

static CUgraphNodeParams of_event(CUgraphNodeType type, CUevent event)
{
    CUgraphNodeParams p = of_type(type);

    p.event.event = event;
    return p;
}

static CUgraphNodeParams of_child(CUgraph graph)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_GRAPH);

    p.graph.graph = graph;
    return p;
}

static CUgraphNodeParams of_kernel(const CUDA_KERNEL_NODE_PARAMS *kernel)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_KERNEL);

    p.kernel = *kernel;
    return p;
}

static CUgraphNodeParams of_kernel_v1(const CUDA_KERNEL_NODE_PARAMS_v1 *kernel)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_KERNEL);

    memcpy(&p.kernel, kernel, sizeof(*kernel)); /* version 2 begins with version 1 */
    return p;
}

static CUgraphNodeParams of_copy(const CUDA_MEMCPY3D *copy, CUcontext ctx)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_MEMCPY);

    p.memcpy.copyParams = *copy;
    p.memcpy.copyCtx = ctx;
    return p;
}

static CUgraphNodeParams of_memset(const CUDA_MEMSET_NODE_PARAMS *set, CUcontext ctx)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_MEMSET);

    p.memset.params = *set;
    p.memset.ctx = ctx;
    return p;
}

static CUgraphNodeParams of_host(const CUDA_HOST_NODE_PARAMS *host)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_HOST);

    p.host = *host;
    return p;
}

static CUgraphNodeParams of_batch(const CUDA_BATCH_MEM_OP_NODE_PARAMS *batch)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP);

    p.memOp = *batch;
    return p;
}

/* ---- empty nodes, child graphs, events ---- */

OG_EXPORT CUresult cuGraphAddEmptyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                       size_t numDependencies)
{
    CUgraphNodeParams p;

    p = of_type(CU_GRAPH_NODE_TYPE_EMPTY);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphAddChildGraphNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                            size_t numDependencies, CUgraph childGraph)
{
    CUgraphNodeParams p;

    p = of_child(childGraph);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphAddEventRecordNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                             size_t numDependencies, CUevent event)
{
    CUgraphNodeParams p;

    p = of_event(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphAddEventWaitNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                           size_t numDependencies, CUevent event)
{
    CUgraphNodeParams p;

    p = of_event(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode hNode, CUgraph *phGraph)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!phGraph)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_GRAPH, &p);
    if (r == CUDA_SUCCESS)
        *phGraph = p.graph.graph;
    return r;
}

OG_EXPORT CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode hNode, CUevent *event_out)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!event_out)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_EVENT_RECORD, &p);
    if (r == CUDA_SUCCESS)
        *event_out = p.event.event;
    return r;
}

OG_EXPORT CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode hNode, CUevent *event_out)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!event_out)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_WAIT_EVENT, &p);
    if (r == CUDA_SUCCESS)
        *event_out = p.event.event;
    return r;
}

OG_EXPORT CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraph childGraph)
{
    CUgraphNodeParams p;

    p = of_child(childGraph);
    return set_exec(hGraphExec, hNode, &p);
}

OG_EXPORT CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode hNode, CUevent event)
{
    CUgraphNodeParams p;

    p = of_event(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
    return og_node_set(NULL, hNode, &p);
}

OG_EXPORT CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode, CUevent event)
{
    CUgraphNodeParams p;

    p = of_event(CU_GRAPH_NODE_TYPE_EVENT_RECORD, event);
    return set_exec(hGraphExec, hNode, &p);
}

OG_EXPORT CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode hNode, CUevent event)
{
    CUgraphNodeParams p;

    p = of_event(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
    return og_node_set(NULL, hNode, &p);
}

OG_EXPORT CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode, CUevent event)
{
    CUgraphNodeParams p;

    p = of_event(CU_GRAPH_NODE_TYPE_WAIT_EVENT, event);
    return set_exec(hGraphExec, hNode, &p);
}

/* ---- kernels ---- */

OG_EXPORT CUresult cuGraphAddKernelNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                           size_t numDependencies, const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_kernel(nodeParams);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphAddKernelNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                        size_t numDependencies, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_kernel_v1(nodeParams);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphKernelNodeGetParams_v2(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_KERNEL, &p);
    if (r == CUDA_SUCCESS)
        *nodeParams = p.kernel;
    return r;
}

OG_EXPORT CUresult cuGraphKernelNodeGetParams(CUgraphNode hNode, CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_KERNEL, &p);
    if (r == CUDA_SUCCESS)
        memcpy(nodeParams, &p.kernel, sizeof(*nodeParams));
    return r;
}

OG_EXPORT CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_kernel(nodeParams);
    return og_node_set(NULL, hNode, &p);
}

OG_EXPORT CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                     const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_kernel(nodeParams);
    return set_exec(hGraphExec, hNode, &p);
}

OG_EXPORT CUresult cuGraphKernelNodeSetParams(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_kernel_v1(nodeParams);
    return og_node_set(NULL, hNode, &p);
}

OG_EXPORT CUresult cuGraphExecKernelNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_kernel_v1(nodeParams);
    return set_exec(hGraphExec, hNode, &p);
}

/* ---- copies and sets ---- */

OG_EXPORT CUresult cuGraphAddMemcpyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                        size_t numDependencies, const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
    CUgraphNodeParams p;

    if (!copyParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_copy(copyParams, ctx);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphMemcpyNodeGetParams(CUgraphNode hNode, CUDA_MEMCPY3D *nodeParams)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_MEMCPY, &p);
    if (r == CUDA_SUCCESS)
        *nodeParams = p.memcpy.copyParams;
    return r;
}

OG_EXPORT CUresult cuGraphMemcpyNodeSetParams(CUgraphNode hNode, const CUDA_MEMCPY3D *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_copy(nodeParams, NULL);
    return og_node_set(NULL, hNode, &p);
}

OG_EXPORT CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
    CUgraphNodeParams p;

    if (!copyParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_copy(copyParams, ctx);
    return set_exec(hGraphExec, hNode, &p);
}

OG_EXPORT CUresult cuGraphAddMemsetNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                        size_t numDependencies, const CUDA_MEMSET_NODE_PARAMS *memsetParams,
                                        CUcontext ctx)
{
    CUgraphNodeParams p;

    if (!memsetParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_memset(memsetParams, ctx);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphMemsetNodeGetParams(CUgraphNode hNode, CUDA_MEMSET_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_MEMSET, &p);
    if (r == CUDA_SUCCESS)
        *nodeParams = p.memset.params;
    return r;
}

OG_EXPORT CUresult cuGraphMemsetNodeSetParams(CUgraphNode hNode, const CUDA_MEMSET_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_memset(nodeParams, NULL);
    return og_node_set(NULL, hNode, &p);
}

OG_EXPORT CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_MEMSET_NODE_PARAMS *memsetParams, CUcontext ctx)
{
    CUgraphNodeParams p;

    if (!memsetParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_memset(memsetParams, ctx);
    return set_exec(hGraphExec, hNode, &p);
}

/* ---- host functions, operations on memory ---- */

OG_EXPORT CUresult cuGraphAddHostNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                      size_t numDependencies, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_host(nodeParams);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphHostNodeGetParams(CUgraphNode hNode, CUDA_HOST_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_HOST, &p);
    if (r == CUDA_SUCCESS)
        *nodeParams = p.host;
    return r;
}

OG_EXPORT CUresult cuGraphHostNodeSetParams(CUgraphNode hNode, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_host(nodeParams);
    return og_node_set(NULL, hNode, &p);
}

OG_EXPORT CUresult cuGraphExecHostNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                const CUDA_HOST_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_host(nodeParams);
    return set_exec(hGraphExec, hNode, &p);
}

OG_EXPORT CUresult cuGraphAddBatchMemOpNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                            size_t numDependencies, const CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_batch(nodeParams);
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphBatchMemOpNodeGetParams(CUgraphNode hNode, CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams_out)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!nodeParams_out)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, &p);
    if (r == CUDA_SUCCESS)
        *nodeParams_out = p.memOp;
    return r;
}

OG_EXPORT CUresult cuGraphBatchMemOpNodeSetParams(CUgraphNode hNode, const CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_batch(nodeParams);
    return og_node_set(NULL, hNode, &p);
}

OG_EXPORT CUresult cuGraphExecBatchMemOpNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                      const CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p = of_batch(nodeParams);
    return set_exec(hGraphExec, hNode, &p);
}

/* ---- memory ---- */

OG_EXPORT CUresult cuGraphAddMemAllocNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                          size_t numDependencies, CUDA_MEM_ALLOC_NODE_PARAMS *nodeParams)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_MEM_ALLOC);
    CUresult r;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    p.alloc = *nodeParams;
    r = add(phGraphNode, hGraph, dependencies, numDependencies, &p);
    if (r == CUDA_SUCCESS)
        nodeParams->dptr = p.alloc.dptr;
    return r;
}

OG_EXPORT CUresult cuGraphAddMemFreeNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                         size_t numDependencies, CUdeviceptr dptr)
{
    CUgraphNodeParams p = of_type(CU_GRAPH_NODE_TYPE_MEM_FREE);

    p.free.dptr = dptr;
    return add(phGraphNode, hGraph, dependencies, numDependencies, &p);
}

OG_EXPORT CUresult cuGraphMemAllocNodeGetParams(CUgraphNode hNode, CUDA_MEM_ALLOC_NODE_PARAMS *params_out)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!params_out)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_MEM_ALLOC, &p);
    if (r == CUDA_SUCCESS)
        *params_out = p.alloc;
    return r;
}

OG_EXPORT CUresult cuGraphMemFreeNodeGetParams(CUgraphNode hNode, CUdeviceptr *dptr_out)
{
    CUgraphNodeParams p;
    CUresult r;

    if (!dptr_out)
        return CUDA_ERROR_INVALID_VALUE;
    r = get(hNode, CU_GRAPH_NODE_TYPE_MEM_FREE, &p);
    if (r == CUDA_SUCCESS)
        *dptr_out = p.free.dptr;
    return r;
}

static CUresult memory_attribute(CUdevice device, CUgraphMem_attribute attr, uint64_t *value, bool set)
{
    CUresult r = og_connect();

    if (!value || attr > CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH)
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS && (device < 0 || device >= og_nr_devices()))
        r = CUDA_ERROR_INVALID_DEVICE;
    return r == CUDA_SUCCESS ? og_send_orion_graph_memory(device, attr, set, set ? *value : 0, value) : r;
}

OG_EXPORT CUresult cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
    return memory_attribute(device, attr, value, false);
}

OG_EXPORT CUresult cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attr, void *value)
{
    uint64_t given;

    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    given = *(const uint64_t *)value; /* which stays the application's */
    return memory_attribute(device, attr, &given, true);
}
