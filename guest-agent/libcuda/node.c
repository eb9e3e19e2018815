/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes of graphs: adding them, and the handles that queries name. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "gen/send.h"

struct span {
    uint64_t first, last;
};

CUresult og_nodes_mint(struct og_nodes *nodes, uint32_t room)
{
    nodes->room = nodes->count = 0;
    while (nodes->room < room) {
        uint64_t handle = og_mint(OW_KIND_GRAPH_NODE);

        if (!handle) {
            og_nodes_drop(nodes);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        nodes->handle[nodes->room++] = handle;
    }
    return CUDA_SUCCESS;
}

void og_nodes_drop(struct og_nodes *nodes)
{
    for (uint32_t i = 0; i < nodes->room; i++)
        og_unmint(OW_KIND_GRAPH_NODE, nodes->handle[i]);
    nodes->room = nodes->count = 0;
}

static bool in_list(uint64_t handle, const uint64_t *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == handle)
            return true;
    return false;
}

void og_nodes_settle(struct og_nodes *nodes, const struct og_call *c, uint64_t fixed)
{
    uint64_t answer[OG_NODES_A_CALL];
    uint64_t bytes = c->out_bytes > fixed ? c->out_bytes - fixed : 0;
    uint32_t count = (uint32_t)(bytes / sizeof(answer[0]));

    if (count > nodes->room)
        count = nodes->room;
    memcpy(answer, (const uint8_t *)c->out + fixed, count * sizeof(answer[0]));
    for (uint32_t i = 0; i < nodes->room; i++)
        if (!in_list(nodes->handle[i], answer, count))
            og_unmint(OW_KIND_GRAPH_NODE, nodes->handle[i]);
    memcpy(nodes->handle, answer, count * sizeof(answer[0]));
    nodes->count = count;
}

uint64_t og_node_first(uint64_t node)
{
    struct span *span = og_data(node);

    return span ? span->first : node;
}

uint64_t og_node_last(uint64_t node)
{
    struct span *span = og_data(node);

    return span ? span->last : node;
}

CUresult og_node_span(uint64_t node, uint64_t first, uint64_t last)
{
    struct span *span = malloc(sizeof(*span));

    if (!span)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *span = (struct span){ first, last };
    og_set_data(node, span);
    return CUDA_SUCCESS;
}

void og_node_forget(uint64_t node)
{
    free(og_data(node));
    og_set_data(node, NULL);
    og_unmint(OW_KIND_GRAPH_NODE, node);
}

static CUresult check_new(const struct og_new_node *new_node)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!og_valid(OW_KIND_GRAPH, (uint64_t)(uintptr_t)new_node->graph) || (new_node->nr_deps && !new_node->deps))
        return CUDA_ERROR_INVALID_VALUE;
    if (new_node->nr_deps > OG_MAX_PAYLOAD / 16)
        return CUDA_ERROR_NOT_SUPPORTED; /* more than one command names */
    for (size_t i = 0; i < new_node->nr_deps; i++)
        if (!og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)new_node->deps[i]))
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static void fill(struct ow_orion_graph_node_in *in, const struct og_new_node *n, uint64_t node)
{
    uint64_t *deps = (uint64_t *)(in + 1);
    uint8_t *blob = (uint8_t *)(deps + n->nr_deps);

    memset(in, 0, sizeof(*in));
    in->graph = (uint64_t)(uintptr_t)n->graph;
    in->node = node;
    in->context = (uint64_t)(uintptr_t)n->context;
    in->kind = n->kind;
    if (n->kind == OC_NODE_RECORD)
        og_event_shared(*(const uint64_t *)n->blob);
    in->count = (uint32_t)n->nr_deps;
    for (size_t i = 0; i < n->nr_deps; i++)
        deps[i] = og_node_last((uint64_t)(uintptr_t)n->deps[i]);
    if (n->blob_bytes)
        memcpy(blob, n->blob, n->blob_bytes);
    if (n->tail_bytes)
        memcpy(blob + n->blob_bytes, n->tail, n->tail_bytes);
}

CUresult og_node_add(const struct og_new_node *n, CUgraphNode *node)
{
    struct og_call c;
    CUresult r = check_new(n);
    uint64_t minted;

    if (r != CUDA_SUCCESS)
        return r;
    minted = og_mint(OW_KIND_GRAPH_NODE);
    if (!minted)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_begin(&c, OW_OP_orion_graph_node,
                 (uint32_t)(sizeof(struct ow_orion_graph_node_in) + n->nr_deps * 8) + n->blob_bytes + n->tail_bytes);
    if (r == CUDA_SUCCESS) {
        fill(c.in, n, minted);
        r = og_call(&c);
    }
    if (r != CUDA_SUCCESS)
        og_unmint(OW_KIND_GRAPH_NODE, minted);
    else
        *node = (CUgraphNode)(uintptr_t)minted;
    return r;
}

/* ---- queries ---- */

/* `what` as orion_graph_list's. Fills nodes[0..*count) and sets *count to how many there are if nodes is NULL. */
static CUresult list_part(uint64_t object, uint32_t what, uint64_t first, struct og_nodes *part, uint64_t *total)
{
    struct ow_orion_graph_list_in *in;
    struct og_call c;
    CUresult r = og_begin(&c, OW_OP_orion_graph_list, (uint32_t)sizeof(*in) + part->room * 8u);

    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    memset(in, 0, sizeof(*in));
    in->object = object;
    in->what = what;
    in->first = first;
    in->room = part->room;
    memcpy(in + 1, part->handle, part->room * sizeof(part->handle[0]));
    r = og_call(&c);
    if (r != CUDA_SUCCESS)
        return r;
    *total = ((const struct ow_orion_graph_list_out *)c.out)->count;
    og_nodes_settle(part, &c, sizeof(struct ow_orion_graph_list_out));
    return CUDA_SUCCESS;
}

static CUresult list(uint64_t object, uint32_t what, CUgraphNode *nodes, size_t *count)
{
    struct og_nodes part;
    uint64_t total = 0, got = 0, want;
    CUresult r;

    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    do {
        want = nodes ? *count - got : 0;
        r = og_nodes_mint(&part, want < OG_NODES_A_CALL ? (uint32_t)want : OG_NODES_A_CALL);
        if (r != CUDA_SUCCESS)
            return r;
        r = list_part(object, what, got, &part, &total);
        if (r != CUDA_SUCCESS) {
            og_nodes_drop(&part);
            return r;
        }
        for (uint32_t i = 0; i < part.count; i++)
            nodes[got + i] = (CUgraphNode)(uintptr_t)part.handle[i];
        got += part.count;
    } while (nodes && part.count && got < total && got < *count);
    for (uint64_t i = got; nodes && i < *count; i++)
        nodes[i] = NULL; /* as the driver does with room that was not needed */
    *count = nodes ? got : total;
    return CUDA_SUCCESS;
}

static CUresult list_graph(CUgraph graph, uint32_t what, CUgraphNode *nodes, size_t *count)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!og_valid(OW_KIND_GRAPH, (uint64_t)(uintptr_t)graph))
        return CUDA_ERROR_INVALID_VALUE;
    return list((uint64_t)(uintptr_t)graph, what, nodes, count);
}

static CUresult list_node(CUgraphNode node, uint32_t what, CUgraphNode *nodes, size_t *count)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)node))
        return CUDA_ERROR_INVALID_VALUE;
    return list((uint64_t)(uintptr_t)node, what, nodes, count);
}

OG_EXPORT CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode *nodes, size_t *numNodes)
{
    return list_graph(hGraph, 0, nodes, numNodes);
}

OG_EXPORT CUresult cuGraphGetRootNodes(CUgraph hGraph, CUgraphNode *rootNodes, size_t *numRootNodes)
{
    return list_graph(hGraph, 1, rootNodes, numRootNodes);
}

OG_EXPORT CUresult cuGraphNodeGetDependencies(CUgraphNode hNode, CUgraphNode *dependencies, size_t *numDependencies)
{
    return list_node(hNode, 2, dependencies, numDependencies);
}

OG_EXPORT CUresult cuGraphNodeGetDependentNodes(CUgraphNode hNode, CUgraphNode *dependentNodes,
                                                size_t *numDependentNodes)
{
    return list_node(hNode, 3, dependentNodes, numDependentNodes);
}

/* The edges of node after node: each node's dependents. */
static CUresult edges_of(CUgraphNode node, CUgraphNode *from, CUgraphNode *to, size_t room, size_t *at)
{
    size_t count = 0;
    CUresult r = list_node(node, 3, NULL, &count);

    if (r != CUDA_SUCCESS || !from) {
        *at += count;
        return r;
    }
    if (count > room - *at)
        count = room - *at;
    if (count)
        r = list_node(node, 3, to + *at, &count);
    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++)
        from[*at + i] = node;
    *at += count;
    return r;
}

OG_EXPORT CUresult cuGraphGetEdges(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, size_t *numEdges)
{
    size_t count = 0, at = 0;
    CUgraphNode *nodes;
    CUresult r;

    if (!numEdges || !from != !to)
        return CUDA_ERROR_INVALID_VALUE;
    r = cuGraphGetNodes(hGraph, NULL, &count);
    if (r != CUDA_SUCCESS)
        return r;
    nodes = calloc(count + 1, sizeof(*nodes));
    if (!nodes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = count ? cuGraphGetNodes(hGraph, nodes, &count) : CUDA_SUCCESS;
    for (size_t i = 0; r == CUDA_SUCCESS && i < count && (!from || at < *numEdges); i++)
        r = edges_of(nodes[i], from, to, *numEdges, &at);
    free(nodes);
    if (r == CUDA_SUCCESS)
        *numEdges = at;
    return r;
}

/* ---- edges ---- */

typedef CUresult change_edges(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count);

static CUresult edges(change_edges *change, CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t count)
{
    CUgraphNode *both;
    CUresult r;

    if (count && (!from || !to))
        return CUDA_ERROR_INVALID_VALUE;
    both = calloc(count + 1, 2 * sizeof(*both));
    if (!both)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < count; i++) {
        if (!og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)from[i]) ||
            !og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)to[i])) {
            free(both);
            return CUDA_ERROR_INVALID_VALUE;
        }
        both[i] = (CUgraphNode)(uintptr_t)og_node_last((uint64_t)(uintptr_t)from[i]);
        both[count + i] = (CUgraphNode)(uintptr_t)og_node_first((uint64_t)(uintptr_t)to[i]);
    }
    r = change(graph, both, both + count, count);
    free(both);
    return r;
}

OG_EXPORT CUresult cuGraphAddDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                          size_t numDependencies)
{
    return edges(og_send_cuGraphAddDependencies, hGraph, from, to, numDependencies);
}

OG_EXPORT CUresult cuGraphRemoveDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                             size_t numDependencies)
{
    return edges(og_send_cuGraphRemoveDependencies, hGraph, from, to, numDependencies);
}

OG_EXPORT CUresult cuGraphDestroyNode(CUgraphNode hNode)
{
    CUresult r = og_send_cuGraphDestroyNode(hNode);

    if (r == CUDA_SUCCESS)
        og_node_forget((uint64_t)(uintptr_t)hNode);
    return r;
}
