/* SPDX-License-Identifier: Apache-2.0 */
/* Graph nodes of any kind: adding, changing and asking; the generic functions. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "gen/send.h"

static CUresult check_deps(CUgraph graph, const struct og_deps *deps)
{
    if (!og_valid(OW_KIND_GRAPH, (uint64_t)(uintptr_t)graph) || (deps->count && !deps->nodes))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < deps->count; i++)
        if (!og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)deps->nodes[i]))
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* Handles for the bodies of a condition, behind its struct in the blob. */
static CUresult mint_bodies(const CUgraphNodeParams *p, struct og_blob *b)
{
    uint32_t size = p->conditional.size;
    uint64_t handle;

    if ((sizeof(b->data) - b->bytes) / sizeof(handle) < size)
        return CUDA_ERROR_NOT_SUPPORTED; /* more than one command names */
    for (uint32_t i = 0; i < size; i++) {
        handle = og_mint(OW_KIND_GRAPH);
        memcpy(b->data + b->bytes, &handle, sizeof(handle));
        b->bytes += (uint32_t)sizeof(handle);
        if (!handle)
            return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

static const uint64_t *bodies_of(const struct og_blob *b)
{
    return (const uint64_t *)(const void *)(b->data + sizeof(struct oc_node_cond));
}

static void unmint_bodies(const struct og_blob *b)
{
    for (const uint64_t *h = bodies_of(b); (const uint8_t *)h < b->data + b->bytes; h++)
        og_unmint(OW_KIND_GRAPH, *h);
}

static CUresult send(uint64_t graph, uint64_t node, const struct og_deps *deps, const struct og_blob *b, uint64_t *ptr)
{
    uint32_t deps_bytes = (uint32_t)deps->count * 8, edges_bytes = deps->edges ? deps_bytes : 0;
    struct ow_orion_node_add_in *in;
    uint8_t *at;
    struct og_call c;
    CUresult r = og_begin(&c, OW_OP_orion_node_add, (uint32_t)sizeof(*in) + deps_bytes + edges_bytes + b->bytes);

    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    memset(in, 0, sizeof(*in));
    in->graph = graph;
    in->node = node;
    in->context = b->context;
    in->kind = b->kind;
    in->count = (uint32_t)deps->count;
    in->edges = deps->edges != NULL;
    at = (uint8_t *)(in + 1);
    og_put_part(at, deps->nodes, deps_bytes);
    og_put_part(at + deps_bytes, deps->edges, edges_bytes);
    og_put_part(at + deps_bytes + edges_bytes, b->data, b->bytes);
    r = og_call(&c);
    if (r == CUDA_SUCCESS && c.out_bytes >= sizeof(struct ow_orion_node_add_out))
        *ptr = ((const struct ow_orion_node_add_out *)c.out)->ptr;
    return r;
}

/* What the host answered goes into the application's struct, and what it will ask for again stays with the node. */
static CUresult made(CUgraphNode node, const struct og_blob *b, uint64_t ptr, CUgraphNodeParams *p)
{
    struct og_node *n = og_node(node);

    if (!n)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (b->kind == OC_NODE_COPY) {
        n->copied = true;
        n->copy = p->memcpy.copyParams;
    } else if (b->kind == OC_NODE_ALLOC) {
        p->alloc.dptr = ptr;
        og_device_keep(ptr, p->alloc.bytesize);
    } else if (b->kind == OC_NODE_CHILD && p->graph.ownership == 1) {
        og_graph_owned((uint64_t)(uintptr_t)p->graph.graph, node);
    } else if (b->kind == OC_NODE_COND) {
        n->bodies = calloc(p->conditional.size, sizeof(*n->bodies));
        for (uint32_t i = 0; n->bodies && i < p->conditional.size; i++) {
            n->bodies[i] = (CUgraph)(uintptr_t)bodies_of(b)[i];
            og_graph_owned(bodies_of(b)[i], node);
        }
        p->conditional.phGraph_out = n->bodies;
        n->condition = p->conditional;
        return n->bodies ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

/* What did not fit into the command that added the node. */
static CUresult rest_of_deps(CUgraph graph, CUgraphNode node, const struct og_deps *deps, size_t at)
{
    CUgraphNode *to;
    CUresult r;

    if (at >= deps->count)
        return CUDA_SUCCESS;
    to = calloc(deps->count - at, sizeof(*to));
    if (!to)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < deps->count - at; i++)
        to[i] = node;
    r = deps->edges ? cuGraphAddDependencies_v2(graph, deps->nodes + at, to, deps->edges + at, deps->count - at)
                    : cuGraphAddDependencies(graph, deps->nodes + at, to, deps->count - at);
    free(to);
    return r;
}

static CUresult add(CUgraphNode *node, CUgraph graph, struct og_deps deps, CUgraphNodeParams *p, struct og_blob *b)
{
    uint64_t handle = og_mint(OW_KIND_GRAPH_NODE), ptr = 0;
    size_t room = (OG_MAX_PAYLOAD - sizeof(struct ow_orion_node_add_in) - b->bytes) / (deps.edges ? 16 : 8);
    struct og_deps first = deps;
    CUresult r;

    if (!handle)
        return CUDA_ERROR_OUT_OF_MEMORY;
    first.count = deps.count < room ? deps.count : room;
    r = send((uint64_t)(uintptr_t)graph, handle, &first, b, &ptr);
    og_node_settle(handle, r == CUDA_SUCCESS ? handle : 0, (uint64_t)(uintptr_t)graph);
    if (r != CUDA_SUCCESS)
        return r;
    *node = (CUgraphNode)(uintptr_t)handle;
    b->shadow = NULL; /* the host's now: it says when it ends */
    r = made(*node, b, ptr, p);
    if (r == CUDA_SUCCESS)
        r = rest_of_deps(graph, *node, &deps, first.count);
    if (r != CUDA_SUCCESS)
        (void)cuGraphDestroyNode(*node);
    return r;
}

CUresult og_node_add(CUgraphNode *node, CUgraph graph, struct og_deps deps, CUgraphNodeParams *p)
{
    struct og_blob b;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!node || !p)
        return CUDA_ERROR_INVALID_VALUE;
    r = check_deps(graph, &deps);
    if (r != CUDA_SUCCESS)
        return r;
    r = og_blob_of(p, &b);
    if (r == CUDA_SUCCESS && b.kind == OC_NODE_COND)
        r = mint_bodies(p, &b);
    if (r == CUDA_SUCCESS)
        r = add(node, graph, deps, p, &b);
    if (r != CUDA_SUCCESS && p->type == CU_GRAPH_NODE_TYPE_CONDITIONAL && b.bytes)
        unmint_bodies(&b);
    if (b.shadow)
        og_shadow_free(b.shadow);
    return r;
}

/* ---- changing ---- */

static CUresult send_set(uint64_t exec, uint64_t node, const struct og_blob *b)
{
    struct ow_orion_node_set_in *in;
    struct og_call c;
    CUresult r = og_begin(&c, OW_OP_orion_node_set, (uint32_t)sizeof(*in) + b->bytes);

    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    memset(in, 0, sizeof(*in));
    in->exec = exec;
    in->node = node;
    in->context = b->context;
    in->kind = b->kind;
    og_put_part((uint8_t *)(in + 1), b->data, b->bytes);
    return og_call(&c);
}

CUresult og_node_set(CUgraphExec exec, CUgraphNode node, const CUgraphNodeParams *p)
{
    uint64_t executable = (uint64_t)(uintptr_t)og_exec(exec);
    struct og_node *n;
    struct og_blob b;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    n = og_node(node);
    if (!p || !n || (exec && !og_valid(OW_KIND_GRAPH_EXEC, executable)))
        return CUDA_ERROR_INVALID_VALUE;
    r = og_blob_of(p, &b);
    if (r == CUDA_SUCCESS)
        r = send_set(executable, (uint64_t)(uintptr_t)node, &b);
    if (r == CUDA_SUCCESS)
        b.shadow = NULL;
    if (b.shadow)
        og_shadow_free(b.shadow);
    if (r == CUDA_SUCCESS && !exec && b.kind == OC_NODE_COPY) {
        n->copied = true;
        n->copy = p->memcpy.copyParams;
    }
    return r;
}

/* ---- asking ---- */

struct answer {
    uint8_t *data;
    uint32_t total, got;
    enum oc_node kind;
};

/* One piece; *child becomes the handle of a graph that had none. */
static CUresult ask(CUgraphNode node, uint64_t child, struct answer *a)
{
    struct ow_orion_node_get_in *in;
    const struct ow_orion_node_get_out *out;
    struct og_call c;
    uint8_t *bigger;
    uint32_t part;
    CUresult r = og_begin(&c, OW_OP_orion_node_get, (uint32_t)sizeof(*in));

    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    memset(in, 0, sizeof(*in));
    in->node = (uint64_t)(uintptr_t)node;
    in->candidate = child;
    in->first = a->got;
    r = og_call(&c);
    if (r != CUDA_SUCCESS)
        return r;
    out = c.out;
    if (c.out_bytes < sizeof(*out))
        return CUDA_ERROR_UNKNOWN;
    part = c.out_bytes - (uint32_t)sizeof(*out);
    a->kind = (enum oc_node)out->kind;
    a->total = out->total;
    if (part > a->total || a->got > a->total - part || (!part && a->got < a->total))
        return CUDA_ERROR_UNKNOWN;
    bigger = realloc(a->data, a->total + 1u);
    if (!bigger)
        return CUDA_ERROR_OUT_OF_MEMORY;
    a->data = bigger;
    memcpy(a->data + a->got, out + 1, part);
    a->got += part;
    return CUDA_SUCCESS;
}

CUresult og_node_get(CUgraphNode node, CUgraphNodeParams *p)
{
    uint64_t child, named = 0;
    struct answer a = { 0 };
    struct og_node *n;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    n = og_node(node);
    if (!p || !n)
        return CUDA_ERROR_INVALID_VALUE;
    child = og_mint(OW_KIND_GRAPH);
    if (!child)
        return CUDA_ERROR_OUT_OF_MEMORY;
    do
        r = ask(node, child, &a);
    while (r == CUDA_SUCCESS && a.got < a.total);
    if (r == CUDA_SUCCESS && a.kind == OC_NODE_CHILD && a.total >= sizeof(named))
        memcpy(&named, a.data, sizeof(named));
    if (named == child)
        og_graph_owned(child, node);
    else
        og_unmint(OW_KIND_GRAPH, child);
    if (r == CUDA_SUCCESS)
        r = og_blob_open(n, a.data, a.total, a.kind, p);
    free(a.data);
    return r;
}

/* ---- the generic functions ---- */

OG_EXPORT CUresult cuGraphAddNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                     const CUgraphEdgeData *dependencyData, size_t numDependencies,
                                     CUgraphNodeParams *nodeParams)
{
    return og_node_add(phGraphNode, hGraph, (struct og_deps){ dependencies, dependencyData, numDependencies },
                       nodeParams);
}

OG_EXPORT CUresult cuGraphAddNode_v3(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                     const CUgraphEdgeData *dependencyData, size_t numDependencies,
                                     CUgraphNodeParams *nodeParams)
{
    return cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, dependencyData, numDependencies, nodeParams);
}

OG_EXPORT CUresult cuGraphAddNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                  size_t numDependencies, CUgraphNodeParams *nodeParams)
{
    return cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, NULL, numDependencies, nodeParams);
}

OG_EXPORT CUresult cuGraphNodeGetParams(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    return og_node_get(hNode, nodeParams);
}

OG_EXPORT CUresult cuGraphNodeSetParams(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    return og_node_set(NULL, hNode, nodeParams);
}

OG_EXPORT CUresult cuGraphNodeSetParams_v2(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    return og_node_set(NULL, hNode, nodeParams);
}

OG_EXPORT CUresult cuGraphExecNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    return hGraphExec ? og_node_set(hGraphExec, hNode, nodeParams) : CUDA_ERROR_INVALID_VALUE;
}

OG_EXPORT CUresult cuGraphNodeGetContainingGraph(CUgraphNode hNode, CUgraph *phGraph)
{
    uint64_t candidate, graph = 0;
    CUresult r;

    if (!phGraph)
        return CUDA_ERROR_INVALID_VALUE;
    candidate = og_mint(OW_KIND_GRAPH);
    if (!candidate)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_send_orion_node_graph(hNode, candidate, &graph);
    if (graph != candidate)
        og_unmint(OW_KIND_GRAPH, candidate);
    if (r == CUDA_SUCCESS)
        *phGraph = (CUgraph)(uintptr_t)graph;
    return r;
}

OG_EXPORT CUresult cuGraphNodeFindInClone(CUgraphNode *phNode, CUgraphNode hOriginalNode, CUgraph hClonedGraph)
{
    uint64_t candidate, found = 0;
    CUresult r;

    if (!phNode)
        return CUDA_ERROR_INVALID_VALUE;
    candidate = og_mint(OW_KIND_GRAPH_NODE);
    if (!candidate)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_send_orion_clone_find(hOriginalNode, hClonedGraph, candidate, &found);
    og_node_settle(candidate, found, (uint64_t)(uintptr_t)hClonedGraph);
    if (r == CUDA_SUCCESS)
        *phNode = (CUgraphNode)(uintptr_t)found;
    return r;
}

/* What the driver calls a node that device code may change comes back in the value, whatever the prototype says. */
OG_EXPORT CUresult cuGraphKernelNodeSetAttribute(CUgraphNode hNode, CUkernelNodeAttrID attr,
                                                 const CUkernelNodeAttrValue *value)
{
    uint64_t name = 0;
    CUresult r;

    if (!value || attr != CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE ||
        value->deviceUpdatableKernelNode.deviceUpdatable != 1)
        return og_send_cuGraphKernelNodeSetAttribute(hNode, attr, value);
    r = og_send_orion_node_updatable(hNode, &name);
    if (r == CUDA_SUCCESS)
        ((CUkernelNodeAttrValue *)(uintptr_t)value)->deviceUpdatableKernelNode.devNode = (void *)(uintptr_t)name;
    return r;
}

OG_EXPORT CUresult cuGraphNodeSetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int isEnabled)
{
    return og_send_cuGraphNodeSetEnabled(og_exec(hGraphExec), hNode, isEnabled);
}

OG_EXPORT CUresult cuGraphNodeGetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int *isEnabled)
{
    return og_send_cuGraphNodeGetEnabled(og_exec(hGraphExec), hNode, isEnabled);
}
