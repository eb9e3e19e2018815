/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs: the nodes that the application adds, instantiation, update, destruction. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "gen/send.h"

#define MAX_PARAMS_BYTES 32768u /* more than any kernel's parameters */
#define BUFFER_POINTER ((void *)1)
#define BUFFER_SIZE ((void *)2)

static CUresult simple(enum oc_node kind, CUgraphNode *node, CUgraph graph, const CUgraphNode *deps, size_t nr_deps,
                       const void *blob, uint32_t blob_bytes)
{
    struct og_new_node n = { .kind = kind, .graph = graph, .deps = deps, .nr_deps = nr_deps, .blob = blob,
                             .blob_bytes = blob_bytes, .context = (CUcontext)(uintptr_t)og_current() };

    return node ? og_node_add(&n, node) : CUDA_ERROR_INVALID_VALUE;
}

OG_EXPORT CUresult cuGraphAddEmptyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                       size_t numDependencies)
{
    return simple(OC_NODE_EMPTY, phGraphNode, hGraph, dependencies, numDependencies, NULL, 0);
}

OG_EXPORT CUresult cuGraphAddChildGraphNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                            size_t numDependencies, CUgraph childGraph)
{
    uint64_t child = (uint64_t)(uintptr_t)childGraph;

    return simple(OC_NODE_CHILD, phGraphNode, hGraph, dependencies, numDependencies, &child, sizeof(child));
}

OG_EXPORT CUresult cuGraphAddEventRecordNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                             size_t numDependencies, CUevent event)
{
    uint64_t id = (uint64_t)(uintptr_t)event;

    return simple(OC_NODE_RECORD, phGraphNode, hGraph, dependencies, numDependencies, &id, sizeof(id));
}

OG_EXPORT CUresult cuGraphAddEventWaitNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                           size_t numDependencies, CUevent event)
{
    uint64_t id = (uint64_t)(uintptr_t)event;

    return simple(OC_NODE_WAIT, phGraphNode, hGraph, dependencies, numDependencies, &id, sizeof(id));
}

OG_EXPORT CUresult cuGraphAddHostNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                      size_t numDependencies, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
    struct oc_node_host host;
    CUresult r;

    if (!nodeParams || !nodeParams->fn)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_callbacks_start();
    if (r != CUDA_SUCCESS)
        return r;
    host.fn = (uint64_t)(uintptr_t)nodeParams->fn;
    host.data = (uint64_t)(uintptr_t)nodeParams->userData;
    return simple(OC_NODE_HOST, phGraphNode, hGraph, dependencies, numDependencies, &host, sizeof(host));
}

/* ---- kernels ---- */

static CUresult pack_extra(void **extra, uint8_t *packed, uint32_t *bytes)
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
    memcpy(packed, from, *size);
    *bytes = (uint32_t)*size;
    return CUDA_SUCCESS;
}

static CUresult pack_params(const struct og_function *f, void **params, void **extra, uint8_t *packed, uint32_t *bytes)
{
    if (!params && extra)
        return pack_extra(extra, packed, bytes);
    *bytes = f->params_bytes;
    if (f->nr_params && !params)
        return CUDA_ERROR_INVALID_VALUE;
    memset(packed, 0, f->params_bytes);
    for (uint16_t i = 0; i < f->nr_params; i++)
        memcpy(packed + f->offset[i], params[i], f->size[i]);
    return CUDA_SUCCESS;
}

static CUresult kernel_of(const CUDA_KERNEL_NODE_PARAMS *p, struct oc_node_kernel *kernel, uint8_t *packed)
{
    uint64_t handle = (uint64_t)(uintptr_t)p->func;
    struct og_function *f;

    if (!handle)
        handle = (uint64_t)(uintptr_t)p->kern;
    f = og_function(handle);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    memset(kernel, 0, sizeof(*kernel));
    kernel->function = handle;
    kernel->is_kernel = og_valid(OW_KIND_KERNEL, handle);
    kernel->grid[0] = p->gridDimX;
    kernel->grid[1] = p->gridDimY;
    kernel->grid[2] = p->gridDimZ;
    kernel->block[0] = p->blockDimX;
    kernel->block[1] = p->blockDimY;
    kernel->block[2] = p->blockDimZ;
    kernel->shared_bytes = p->sharedMemBytes;
    return pack_params(f, p->kernelParams, p->extra, packed, &kernel->params_bytes);
}

static void widen(const CUDA_KERNEL_NODE_PARAMS_v1 *p, CUDA_KERNEL_NODE_PARAMS *q)
{
    memset(q, 0, sizeof(*q));
    memcpy(q, p, sizeof(*p)); /* version 2 begins with version 1 */
}

OG_EXPORT CUresult cuGraphAddKernelNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                           size_t numDependencies, const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    struct oc_node_kernel kernel;
    uint8_t packed[MAX_PARAMS_BYTES];
    struct og_new_node n = { .kind = OC_NODE_KERNEL, .graph = hGraph, .deps = dependencies,
                             .nr_deps = numDependencies, .blob = &kernel, .blob_bytes = sizeof(kernel),
                             .tail = packed };
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!phGraphNode || !nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    r = kernel_of(nodeParams, &kernel, packed);
    if (r != CUDA_SUCCESS)
        return r;
    n.tail_bytes = kernel.params_bytes;
    n.context = nodeParams->ctx ? nodeParams->ctx : (CUcontext)(uintptr_t)og_current();
    return og_node_add(&n, phGraphNode);
}

OG_EXPORT CUresult cuGraphAddKernelNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                        size_t numDependencies, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    CUDA_KERNEL_NODE_PARAMS wide;

    if (!nodeParams)
        return CUDA_ERROR_INVALID_VALUE;
    widen(nodeParams, &wide);
    return cuGraphAddKernelNode_v2(phGraphNode, hGraph, dependencies, numDependencies, &wide);
}

/* ---- copies and sets ---- */

static CUresult box_for_graph(const CUDA_MEMCPY3D *p, struct og_box *box)
{
    CUresult r = p ? og_box_of(p, box) : CUDA_ERROR_INVALID_VALUE;

    if (r == CUDA_SUCCESS && (!p->WidthInBytes || !p->Height || !p->Depth))
        return CUDA_ERROR_INVALID_VALUE;
    return r;
}

static CUresult host_node(struct og_new_node n, void (*fn)(void *), struct og_shadow *shadow, CUgraphNode *node)
{
    struct oc_node_host host = { (uint64_t)(uintptr_t)fn, (uint64_t)(uintptr_t)shadow };

    n.kind = OC_NODE_HOST;
    n.blob = &host;
    n.blob_bytes = sizeof(host);
    return og_node_add(&n, node);
}

/* A copy of ordinary memory: [host function that fills the shadow] -> copy -> [one that empties it]. */
static CUresult shadowed(struct og_new_node n, struct og_box *box, CUgraphNode *node)
{
    bool up = og_place_is_host(box->src);
    struct og_shadow *shadow;
    CUgraphNode helper = NULL;
    uint64_t at;
    void *region;
    CUresult r = og_callbacks_start();

    if (r == CUDA_SUCCESS)
        r = og_shadow_make((void *)(uintptr_t)(up ? box->src.addr : box->dst.addr), og_box_span(box, !up), &shadow,
                           &region);
    if (r != CUDA_SUCCESS)
        return r;
    at = (uint64_t)((uint8_t *)region - (uint8_t *)og_region());
    if (up) {
        box->nd.src = at;
        box->nd.src_side = OC_SIDE_REGION;
        r = host_node(n, og_shadow_gather, shadow, &helper);
        n.deps = &helper;
        n.nr_deps = 1;
    } else {
        box->nd.dst = at;
        box->nd.dst_side = OC_SIDE_REGION;
    }
    if (r == CUDA_SUCCESS)
        r = og_node_add(&n, node);
    if (r != CUDA_SUCCESS)
        return r;
    if (up)
        return og_node_span((uint64_t)(uintptr_t)*node, (uint64_t)(uintptr_t)helper, (uint64_t)(uintptr_t)*node);
    n.deps = node;
    n.nr_deps = 1;
    r = host_node(n, og_shadow_scatter, shadow, &helper);
    if (r != CUDA_SUCCESS)
        return r;
    return og_node_span((uint64_t)(uintptr_t)*node, (uint64_t)(uintptr_t)*node, (uint64_t)(uintptr_t)helper);
}

/* Rows of ordinary memory with gaps would be overwritten by the shadow's old bytes between them. */
static bool contiguous(const struct og_box *box, bool of_dst)
{
    return og_box_span(box, of_dst) == box->nd.width * box->nd.height * box->nd.depth;
}

OG_EXPORT CUresult cuGraphAddMemcpyNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                        size_t numDependencies, const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
    struct og_box box;
    struct og_new_node n = { .kind = OC_NODE_COPY, .graph = hGraph, .context = ctx, .deps = dependencies,
                             .nr_deps = numDependencies, .blob = &box.nd, .blob_bytes = sizeof(box.nd) };
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!phGraphNode)
        return CUDA_ERROR_INVALID_VALUE;
    r = box_for_graph(copyParams, &box);
    if (r != CUDA_SUCCESS)
        return r;
    if (!og_place_is_host(box.src) && !og_place_is_host(box.dst))
        return og_node_add(&n, phGraphNode);
    if ((og_place_is_host(box.src) && og_place_is_host(box.dst)) ||
        (og_place_is_host(box.dst) && !contiguous(&box, true))) {
        og_log("cuGraphAddMemcpyNode: this copy of ordinary host memory is not carried; use cuMemHostAlloc memory");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return shadowed(n, &box, phGraphNode);
}

static void memset_of(const CUDA_MEMSET_NODE_PARAMS *p, struct oc_node_memset *set)
{
    memset(set, 0, sizeof(*set));
    set->dst = p->dst;
    set->pitch = p->pitch;
    set->width = p->width;
    set->height = p->height;
    set->value = p->value;
    set->element_bytes = p->elementSize;
}

OG_EXPORT CUresult cuGraphAddMemsetNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                        size_t numDependencies, const CUDA_MEMSET_NODE_PARAMS *memsetParams,
                                        CUcontext ctx)
{
    struct oc_node_memset set;
    struct og_new_node n = { .kind = OC_NODE_MEMSET, .graph = hGraph, .context = ctx, .deps = dependencies,
                             .nr_deps = numDependencies, .blob = &set, .blob_bytes = sizeof(set) };

    if (!phGraphNode || !memsetParams)
        return CUDA_ERROR_INVALID_VALUE;
    memset_of(memsetParams, &set);
    return og_node_add(&n, phGraphNode);
}

/* ---- parameters of nodes ---- */

static CUresult set_params(CUgraphExec exec, CUgraphNode node, CUcontext ctx, const struct og_new_node *n)
{
    struct ow_orion_node_set_in *in;
    struct og_call c;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)node) ||
        (exec && !og_valid(OW_KIND_GRAPH_EXEC, (uint64_t)(uintptr_t)exec)))
        return CUDA_ERROR_INVALID_VALUE;
    r = og_begin(&c, OW_OP_orion_node_set, (uint32_t)sizeof(*in) + n->blob_bytes + n->tail_bytes);
    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    memset(in, 0, sizeof(*in));
    in->exec = (uint64_t)(uintptr_t)exec;
    in->node = (uint64_t)(uintptr_t)node;
    in->context = (uint64_t)(uintptr_t)ctx;
    in->kind = n->kind;
    memcpy(in + 1, n->blob, n->blob_bytes);
    if (n->tail_bytes)
        memcpy((uint8_t *)(in + 1) + n->blob_bytes, n->tail, n->tail_bytes);
    return og_call(&c);
}

static CUresult set_kernel(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS *p)
{
    struct oc_node_kernel kernel;
    uint8_t packed[MAX_PARAMS_BYTES];
    struct og_new_node n = { .kind = OC_NODE_KERNEL, .blob = &kernel, .blob_bytes = sizeof(kernel), .tail = packed };
    CUresult r = p ? kernel_of(p, &kernel, packed) : CUDA_ERROR_INVALID_VALUE;

    if (r != CUDA_SUCCESS)
        return r;
    n.tail_bytes = kernel.params_bytes;
    return set_params(exec, node, p->ctx ? p->ctx : (CUcontext)(uintptr_t)og_current(), &n);
}

static CUresult set_kernel_v1(CUgraphExec exec, CUgraphNode node, const CUDA_KERNEL_NODE_PARAMS_v1 *p)
{
    CUDA_KERNEL_NODE_PARAMS wide;

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    widen(p, &wide);
    return set_kernel(exec, node, &wide);
}

OG_EXPORT CUresult cuGraphKernelNodeSetParams(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    return set_kernel_v1(NULL, hNode, nodeParams);
}

OG_EXPORT CUresult cuGraphKernelNodeSetParams_v2(CUgraphNode hNode, const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    return set_kernel(NULL, hNode, nodeParams);
}

OG_EXPORT CUresult cuGraphExecKernelNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    return hGraphExec ? set_kernel_v1(hGraphExec, hNode, nodeParams) : CUDA_ERROR_INVALID_VALUE;
}

OG_EXPORT CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                     const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    return hGraphExec ? set_kernel(hGraphExec, hNode, nodeParams) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult set_copy(CUgraphExec exec, CUgraphNode node, const CUDA_MEMCPY3D *p, CUcontext ctx)
{
    struct og_box box;
    struct og_new_node n = { .kind = OC_NODE_COPY, .blob = &box.nd, .blob_bytes = sizeof(box.nd) };
    CUresult r = box_for_graph(p, &box);

    if (r != CUDA_SUCCESS)
        return r;
    if (og_place_is_host(box.src) || og_place_is_host(box.dst) || og_data((uint64_t)(uintptr_t)node)) {
        og_log("changing a graph's copy of ordinary host memory is not carried; use cuMemHostAlloc memory");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return set_params(exec, node, ctx, &n);
}

OG_EXPORT CUresult cuGraphMemcpyNodeSetParams(CUgraphNode hNode, const CUDA_MEMCPY3D *nodeParams)
{
    return set_copy(NULL, hNode, nodeParams, (CUcontext)(uintptr_t)og_current());
}

OG_EXPORT CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
    return hGraphExec ? set_copy(hGraphExec, hNode, copyParams, ctx) : CUDA_ERROR_INVALID_VALUE;
}

static CUresult set_memset(CUgraphExec exec, CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *p, CUcontext ctx)
{
    struct oc_node_memset set;
    struct og_new_node n = { .kind = OC_NODE_MEMSET, .blob = &set, .blob_bytes = sizeof(set) };

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    memset_of(p, &set);
    return set_params(exec, node, ctx, &n);
}

OG_EXPORT CUresult cuGraphMemsetNodeSetParams(CUgraphNode hNode, const CUDA_MEMSET_NODE_PARAMS *nodeParams)
{
    return set_memset(NULL, hNode, nodeParams, (CUcontext)(uintptr_t)og_current());
}

OG_EXPORT CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_MEMSET_NODE_PARAMS *memsetParams, CUcontext ctx)
{
    return hGraphExec ? set_memset(hGraphExec, hNode, memsetParams, ctx) : CUDA_ERROR_INVALID_VALUE;
}
