/* SPDX-License-Identifier: Apache-2.0 */
/* Edges of graphs, added, removed and listed; nodes removed; the older way to instantiate. */
#include <string.h>

#include "sim.h"

static bool same(const CUgraphEdgeData *a, const CUgraphEdgeData *b)
{
    return !b || !memcmp(a, b, sizeof(*a));
}

static bool drop_dep(struct CUgraphNode_st *n, const struct CUgraphNode_st *dep, const CUgraphEdgeData *edge)
{
    for (size_t i = 0; i < n->nr_deps; i++)
        if (n->deps[i] == dep && same(&n->edges[i], edge)) {
            n->deps[i] = n->deps[--n->nr_deps];
            n->edges[i] = n->edges[n->nr_deps];
            return true;
        }
    return false;
}

SIM_API CUresult cuGraphRemoveDependencies_v2(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
                                              const CUgraphEdgeData *edges, size_t nr)
{
    static const CUgraphEdgeData plain;

    if (!sim_valid(graph, SIM_GRAPH) || (nr && (!from || !to)))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < nr; i++)
        if (!sim_valid(to[i], SIM_NODE) || to[i]->graph != graph ||
            !drop_dep(to[i], from[i], edges ? &edges[i] : &plain))
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphRemoveDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t nr)
{
    return cuGraphRemoveDependencies_v2(graph, from, to, NULL, nr);
}

/* Programmatic edges join kernels only, and only from the two other ports. */
static bool edge_ok(const struct CUgraphNode_st *from, const struct CUgraphNode_st *to, const CUgraphEdgeData *e)
{
    static const unsigned char none[5];

    if (!e)
        return true;
    if (e->type > 1 || e->from_port > 2 || e->to_port || memcmp(e->reserved, none, sizeof(none)) ||
        (e->type == 1) != (e->from_port != 0))
        return false;
    return !e->type || (from->type == CU_GRAPH_NODE_TYPE_KERNEL && to->type == CU_GRAPH_NODE_TYPE_KERNEL);
}

SIM_API CUresult cuGraphAddDependencies_v2(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
                                           const CUgraphEdgeData *edges, size_t nr)
{
    if (!sim_valid(graph, SIM_GRAPH) || (nr && (!from || !to)))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < nr; i++)
        if (!sim_valid(from[i], SIM_NODE) || !sim_valid(to[i], SIM_NODE) || from[i]->graph != graph ||
            to[i]->graph != graph || !edge_ok(from[i], to[i], edges ? &edges[i] : NULL))
            return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < nr; i++) {
        size_t d = 0;

        while (d < to[i]->nr_deps && to[i]->deps[d] != from[i])
            d++;
        if (d < to[i]->nr_deps)
            return CUDA_ERROR_INVALID_VALUE;
        if (!sim_dep_add(to[i], from[i], edges ? &edges[i] : NULL))
            return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t nr)
{
    return cuGraphAddDependencies_v2(graph, from, to, NULL, nr);
}

SIM_API CUresult cuGraphDestroyNode(CUgraphNode node)
{
    struct CUgraph_st *g;
    size_t at = 0;

    if (!sim_valid(node, SIM_NODE))
        return CUDA_ERROR_INVALID_VALUE;
    if (node->work.alloc)
        return CUDA_ERROR_NOT_SUPPORTED; /* nodes of memory stay */
    g = node->graph;
    for (size_t i = 0; i < g->nr_nodes; i++) {
        drop_dep(g->nodes[i], node, NULL);
        if (g->nodes[i] == node)
            at = i;
    }
    for (; at + 1 < g->nr_nodes; at++)
        g->nodes[at] = g->nodes[at + 1];
    g->nr_nodes--;
    sim_node_free(node);
    return CUDA_SUCCESS;
}

/* ---- lists of edges ---- */

struct list {
    CUgraphNode *from, *to;
    CUgraphEdgeData *edges;
    size_t room, have;
    bool lossy;
};

static void put(struct list *l, CUgraphNode to, size_t d)
{
    static const CUgraphEdgeData plain;

    if (l->have < l->room) {
        if (l->from)
            l->from[l->have] = to->deps[d];
        if (l->to)
            l->to[l->have] = to;
        if (l->edges)
            l->edges[l->have] = to->edges[d];
    }
    l->lossy |= !l->edges && !same(&to->edges[d], &plain);
    l->have++;
}

static CUresult done(struct list *l, size_t *nr)
{
    bool wanted = l->from || l->to;

    if (wanted && l->lossy)
        return CUDA_ERROR_LOSSY_QUERY;
    for (size_t i = l->have; wanted && i < l->room; i++) {
        if (l->from)
            l->from[i] = NULL;
        if (l->to)
            l->to[i] = NULL;
    }
    if (!wanted || *nr > l->have)
        *nr = l->have;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphGetEdges_v2(CUgraph graph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edges,
                                    size_t *nr)
{
    struct list l = { from, to, edges, nr ? *nr : 0, 0, false };

    if (!nr || !sim_valid(graph, SIM_GRAPH) || !from != !to)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < graph->nr_nodes; i++)
        for (size_t d = 0; d < graph->nodes[i]->nr_deps; d++)
            put(&l, graph->nodes[i], d);
    return done(&l, nr);
}

SIM_API CUresult cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *nr)
{
    return cuGraphGetEdges_v2(graph, from, to, NULL, nr);
}

SIM_API CUresult cuGraphNodeGetDependencies_v2(CUgraphNode node, CUgraphNode *deps, CUgraphEdgeData *edges, size_t *nr)
{
    struct list l = { deps, NULL, edges, nr ? *nr : 0, 0, false };

    if (!nr || !sim_valid(node, SIM_NODE))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t d = 0; d < node->nr_deps; d++)
        put(&l, node, d);
    return done(&l, nr);
}

SIM_API CUresult cuGraphNodeGetDependencies(CUgraphNode node, CUgraphNode *deps, size_t *nr)
{
    return cuGraphNodeGetDependencies_v2(node, deps, NULL, nr);
}

SIM_API CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode node, CUgraphNode *out, CUgraphEdgeData *edges, size_t *nr)
{
    struct list l = { NULL, out, edges, nr ? *nr : 0, 0, false };

    if (!nr || !sim_valid(node, SIM_NODE))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < node->graph->nr_nodes; i++)
        for (size_t d = 0; d < node->graph->nodes[i]->nr_deps; d++)
            if (node->graph->nodes[i]->deps[d] == node)
                put(&l, node->graph->nodes[i], d);
    return done(&l, nr);
}

SIM_API CUresult cuGraphNodeGetDependentNodes(CUgraphNode node, CUgraphNode *out, size_t *nr)
{
    return cuGraphNodeGetDependentNodes_v2(node, out, NULL, nr);
}

SIM_API CUresult cuGraphInstantiate_v2(CUgraphExec *out, CUgraph graph, CUgraphNode *error_node, char *log, size_t bytes)
{
    if (error_node)
        *error_node = NULL;
    if (log && bytes)
        *log = 0;
    return cuGraphInstantiateWithFlags(out, graph, 0);
}
