/* SPDX-License-Identifier: Apache-2.0 */
/* Handles of graph nodes: minted as candidates, bound to their graph, ended with it; lists of nodes and edges. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "gen/send.h"

static _Atomic uint32_t nr_owned; /* graphs that are a node's own */

CUresult og_nodes_mint(struct og_nodes *nodes, uint32_t room)
{
    nodes->room = 0;
    while (nodes->room < room) {
        uint64_t handle = og_mint(OW_KIND_GRAPH_NODE);

        if (!handle) {
            og_nodes_settle(nodes, NULL, 0, 0);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        nodes->handle[nodes->room++] = handle;
    }
    return CUDA_SUCCESS;
}

void og_node_settle(uint64_t candidate, uint64_t number, uint64_t graph)
{
    struct og_node *n;

    if (candidate != number) {
        og_unmint(OW_KIND_GRAPH_NODE, candidate);
        return;
    }
    n = calloc(1, sizeof(*n));
    if (n)
        n->graph = graph;
    og_set_data(candidate, n);
}

static bool in_list(uint64_t handle, const uint64_t *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == handle)
            return true;
    return false;
}

void og_nodes_settle(struct og_nodes *nodes, const uint64_t *numbers, uint32_t count, uint64_t graph)
{
    for (uint32_t i = 0; i < nodes->room; i++)
        og_node_settle(nodes->handle[i], in_list(nodes->handle[i], numbers, count) ? nodes->handle[i] : 0, graph);
    nodes->room = 0;
}

struct og_node *og_node(CUgraphNode node)
{
    uint64_t handle = (uint64_t)(uintptr_t)node;

    return og_valid(OW_KIND_GRAPH_NODE, handle) ? og_data(handle) : NULL;
}

uint64_t og_node_graph(CUgraphNode node)
{
    struct og_node *n = og_node(node);

    return n ? n->graph : 0;
}

void og_graph_owned(uint64_t graph, CUgraphNode node)
{
    og_set_data(graph, node);
    atomic_fetch_add(&nr_owned, 1);
}

static void owned_gone(uint64_t graph, void *owner, void *node)
{
    if (owner != node)
        return;
    atomic_fetch_sub(&nr_owned, 1);
    og_graph_gone(graph);
}

void og_node_gone(CUgraphNode node)
{
    uint64_t handle = (uint64_t)(uintptr_t)node;
    struct og_node *n = og_node(node);

    og_set_data(handle, NULL);
    og_unmint(OW_KIND_GRAPH_NODE, handle);
    if (n) {
        free(n->got);
        free(n->bodies);
    }
    free(n);
    if (atomic_load(&nr_owned))
        og_each(OW_KIND_GRAPH, owned_gone, node);
}

static void node_of_gone(uint64_t node, void *data, void *graph)
{
    struct og_node *n = data;

    if (n && n->graph == (uint64_t)(uintptr_t)graph)
        og_node_gone((CUgraphNode)(uintptr_t)node);
}

void og_graph_gone(uint64_t graph)
{
    og_each(OW_KIND_GRAPH_NODE, node_of_gone, (void *)(uintptr_t)graph);
    og_unmint(OW_KIND_GRAPH, graph);
}

/* ---- lists of nodes ---- */

/* `what` as orion_graph_list's. */
static CUresult list_part(uint64_t graph, uint32_t what, uint64_t first, uint32_t room, uint64_t *nodes, uint64_t *total)
{
    struct ow_orion_graph_list_in *in;
    struct og_nodes part;
    struct og_call c;
    CUresult r = og_nodes_mint(&part, room);

    if (r != CUDA_SUCCESS)
        return r;
    r = og_begin(&c, OW_OP_orion_graph_list, (uint32_t)sizeof(*in) + room * 8u);
    if (r == CUDA_SUCCESS) {
        in = c.in;
        memset(in, 0, sizeof(*in));
        in->object = graph;
        in->what = what;
        in->first = first;
        in->room = room;
        memcpy(in + 1, part.handle, room * sizeof(part.handle[0]));
        r = og_call(&c);
    }
    if (r == CUDA_SUCCESS) {
        *total = ((const struct ow_orion_graph_list_out *)c.out)->count;
        memset(nodes, 0, room * sizeof(*nodes));
        if (c.out_bytes > sizeof(struct ow_orion_graph_list_out))
            memcpy(nodes, (const struct ow_orion_graph_list_out *)c.out + 1,
                   c.out_bytes - sizeof(struct ow_orion_graph_list_out));
    }
    og_nodes_settle(&part, nodes, r == CUDA_SUCCESS ? room : 0, graph);
    return r;
}

static CUresult list(CUgraph graph, uint32_t what, CUgraphNode *nodes, size_t *count)
{
    uint64_t part[OG_NODES_A_CALL], total = 0, got = 0, left, handle = (uint64_t)(uintptr_t)graph;
    CUresult r = og_check_init();
    uint32_t room;

    if (r != CUDA_SUCCESS)
        return r;
    if (!count || !og_valid(OW_KIND_GRAPH, handle))
        return CUDA_ERROR_INVALID_VALUE;
    do {
        left = nodes ? *count - got : 0;
        room = left < OG_NODES_A_CALL ? (uint32_t)left : OG_NODES_A_CALL;
        r = list_part(handle, what, got, room, part, &total);
        if (r != CUDA_SUCCESS)
            return r;
        for (uint32_t i = 0; i < room && got < total; i++)
            nodes[got++] = (CUgraphNode)(uintptr_t)part[i];
    } while (room && got < total && got < *count);
    for (uint64_t i = got; nodes && i < *count; i++)
        nodes[i] = NULL; /* as the driver does with room that was not needed */
    *count = nodes ? got : total;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode *nodes, size_t *numNodes)
{
    return list(hGraph, 0, nodes, numNodes);
}

OG_EXPORT CUresult cuGraphGetRootNodes(CUgraph hGraph, CUgraphNode *rootNodes, size_t *numRootNodes)
{
    return list(hGraph, 1, rootNodes, numRootNodes);
}

/* ---- lists of edges ---- */

struct triples {
    uint64_t count;  /* that there are */
    uint32_t got;
    uint64_t number[OG_EDGES_A_CALL * 3]; /* from, to, data */
};

static CUresult edges_part(uint64_t object, uint32_t what, uint64_t first, uint32_t room, struct triples *t)
{
    uint64_t graph = what ? og_node_graph((CUgraphNode)(uintptr_t)object) : object;
    const uint32_t fixed = sizeof(struct ow_orion_graph_edges_out);
    struct ow_orion_graph_edges_in *in;
    struct og_nodes part;
    struct og_call c;
    CUresult r = og_nodes_mint(&part, 2 * room);

    t->got = 0;
    if (r != CUDA_SUCCESS)
        return r;
    r = og_begin(&c, OW_OP_orion_graph_edges, (uint32_t)sizeof(*in) + part.room * 8u);
    if (r == CUDA_SUCCESS) {
        in = c.in;
        memset(in, 0, sizeof(*in));
        in->object = object;
        in->what = what;
        in->first = first;
        in->room = room;
        memcpy(in + 1, part.handle, part.room * sizeof(part.handle[0]));
        r = og_call(&c);
    }
    if (r == CUDA_SUCCESS && c.out_bytes >= fixed) {
        t->count = ((const struct ow_orion_graph_edges_out *)c.out)->count;
        t->got = (c.out_bytes - fixed) / 24;
        t->got = t->got < room ? t->got : room;
        memcpy(t->number, (const uint8_t *)c.out + fixed, t->got * 24);
    }
    og_nodes_settle(&part, t->number, t->got * 3, graph); /* edge data is no node's number: it is below 2^24 */
    return r;
}

/* Where a list of edges goes; any array but the first asked for may be missing. */
struct edges {
    CUgraphNode *from, *to;
    CUgraphEdgeData *data;
    size_t *count;
    bool plain; /* the older interface: no data, and none may be there */
};

static CUresult put(const struct edges *e, size_t at, const uint64_t *number)
{
    if (e->from)
        e->from[at] = (CUgraphNode)(uintptr_t)number[0];
    if (e->to)
        e->to[at] = (CUgraphNode)(uintptr_t)number[1];
    if (e->data)
        memcpy(&e->data[at], &number[2], sizeof(e->data[at]));
    return e->plain && number[2] ? CUDA_ERROR_LOSSY_QUERY : CUDA_SUCCESS;
}

static CUresult list_edges(uint64_t object, uint32_t what, struct edges e)
{
    bool wanted = e.from || e.to;
    struct triples t;
    size_t got = 0;
    uint64_t left;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!e.count || !og_valid(what ? OW_KIND_GRAPH_NODE : OW_KIND_GRAPH, object) || (!wanted && e.data))
        return CUDA_ERROR_INVALID_VALUE;
    do {
        left = wanted ? *e.count - got : 0;
        r = edges_part(object, what, got, left < OG_EDGES_A_CALL ? (uint32_t)left : OG_EDGES_A_CALL, &t);
        for (uint32_t i = 0; i < t.got && r == CUDA_SUCCESS; i++)
            r = put(&e, got++, &t.number[3 * i]);
    } while (r == CUDA_SUCCESS && t.got && got < t.count && got < *e.count);
    if (r != CUDA_SUCCESS)
        return r;
    for (size_t i = got; wanted && i < *e.count; i++)
        (void)put(&e, i, (const uint64_t[3]){ 0, 0, 0 });
    *e.count = wanted ? got : t.count;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuGraphGetEdges_v2(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edgeData,
                                      size_t *numEdges)
{
    if (!from != !to)
        return CUDA_ERROR_INVALID_VALUE;
    return list_edges((uint64_t)(uintptr_t)hGraph, 0, (struct edges){ from, to, edgeData, numEdges, from && !edgeData });
}

OG_EXPORT CUresult cuGraphGetEdges(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, size_t *numEdges)
{
    return cuGraphGetEdges_v2(hGraph, from, to, NULL, numEdges);
}

OG_EXPORT CUresult cuGraphNodeGetDependencies_v2(CUgraphNode hNode, CUgraphNode *dependencies,
                                                 CUgraphEdgeData *edgeData, size_t *numDependencies)
{
    return list_edges((uint64_t)(uintptr_t)hNode, 1,
                      (struct edges){ dependencies, NULL, edgeData, numDependencies, dependencies && !edgeData });
}

OG_EXPORT CUresult cuGraphNodeGetDependencies(CUgraphNode hNode, CUgraphNode *dependencies, size_t *numDependencies)
{
    return cuGraphNodeGetDependencies_v2(hNode, dependencies, NULL, numDependencies);
}

OG_EXPORT CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode hNode, CUgraphNode *dependentNodes,
                                                   CUgraphEdgeData *edgeData, size_t *numDependentNodes)
{
    return list_edges((uint64_t)(uintptr_t)hNode, 2,
                      (struct edges){ NULL, dependentNodes, edgeData, numDependentNodes, dependentNodes && !edgeData });
}

OG_EXPORT CUresult cuGraphNodeGetDependentNodes(CUgraphNode hNode, CUgraphNode *dependentNodes,
                                                size_t *numDependentNodes)
{
    return cuGraphNodeGetDependentNodes_v2(hNode, dependentNodes, NULL, numDependentNodes);
}

/* ---- changes of edges: by commands of at most OG_DEPS_A_CALL ---- */

typedef CUresult change_edges(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *data,
                              size_t count);

static CUresult change(change_edges *send, CUgraph graph, struct edges e, size_t count)
{
    size_t part;
    CUresult r = CUDA_SUCCESS;

    if (count && (!e.from || !e.to))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++)
        if (!og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)e.from[i]) ||
            !og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)e.to[i]))
            return CUDA_ERROR_INVALID_VALUE;
    for (size_t at = 0; (at < count || !at) && r == CUDA_SUCCESS; at += part) {
        part = count - at < OG_DEPS_A_CALL ? count - at : OG_DEPS_A_CALL;
        r = send(graph, e.from + at, e.to + at, e.data ? e.data + at : NULL, part);
        if (!part)
            break;
    }
    return r;
}

static CUresult add_plain(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *data,
                          size_t count)
{
    (void)data;
    return og_send_cuGraphAddDependencies(graph, from, to, count);
}

static CUresult remove_plain(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *data,
                             size_t count)
{
    (void)data;
    return og_send_cuGraphRemoveDependencies(graph, from, to, count);
}

static struct edges given(const CUgraphNode *from, const CUgraphNode *to, const CUgraphEdgeData *data)
{
    return (struct edges){ .from = (CUgraphNode *)(uintptr_t)from, .to = (CUgraphNode *)(uintptr_t)to,
                           .data = (CUgraphEdgeData *)(uintptr_t)data };
}

OG_EXPORT CUresult cuGraphAddDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                          size_t numDependencies)
{
    return change(add_plain, hGraph, given(from, to, NULL), numDependencies);
}

OG_EXPORT CUresult cuGraphRemoveDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                             size_t numDependencies)
{
    return change(remove_plain, hGraph, given(from, to, NULL), numDependencies);
}

OG_EXPORT CUresult cuGraphAddDependencies_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                             const CUgraphEdgeData *edgeData, size_t numDependencies)
{
    return change(og_send_cuGraphAddDependencies_v2, hGraph, given(from, to, edgeData), numDependencies);
}

OG_EXPORT CUresult cuGraphRemoveDependencies_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                                const CUgraphEdgeData *edgeData, size_t numDependencies)
{
    return change(og_send_cuGraphRemoveDependencies_v2, hGraph, given(from, to, edgeData), numDependencies);
}

OG_EXPORT CUresult cuGraphDestroyNode(CUgraphNode hNode)
{
    CUresult r = og_send_cuGraphDestroyNode(hNode);

    if (r == CUDA_SUCCESS)
        og_node_gone(hNode);
    return r;
}
