/* SPDX-License-Identifier: Apache-2.0 */
/* Taking graphs apart: edges and nodes removed, dependents listed; the older way to instantiate. */
#include <stdlib.h>

#include "sim.h"

static bool drop_dep(struct CUgraphNode_st *n, const struct CUgraphNode_st *dep)
{
    for (size_t i = 0; i < n->nr_deps; i++)
        if (n->deps[i] == dep) {
            n->deps[i] = n->deps[--n->nr_deps];
            return true;
        }
    return false;
}

SIM_API CUresult cuGraphRemoveDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to, size_t nr)
{
    if (!sim_valid(graph, SIM_GRAPH) || (nr && (!from || !to)))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < nr; i++)
        if (!sim_valid(to[i], SIM_NODE) || to[i]->graph != graph || !drop_dep(to[i], from[i]))
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphDestroyNode(CUgraphNode node)
{
    struct CUgraph_st *g;
    size_t at = 0;

    if (!sim_valid(node, SIM_NODE))
        return CUDA_ERROR_INVALID_VALUE;
    g = node->graph;
    for (size_t i = 0; i < g->nr_nodes; i++) {
        drop_dep(g->nodes[i], node);
        if (g->nodes[i] == node)
            at = i;
    }
    for (; at + 1 < g->nr_nodes; at++)
        g->nodes[at] = g->nodes[at + 1];
    g->nr_nodes--;
    sim_unregister(node);
    sim_work_clear(&node->work);
    if (node->child)
        sim_graph_destroy(node->child);
    free(node->deps);
    free(node);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphNodeGetDependentNodes(CUgraphNode node, CUgraphNode *out, size_t *nr)
{
    size_t have = 0;

    if (!nr || !sim_valid(node, SIM_NODE))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < node->graph->nr_nodes; i++)
        for (size_t d = 0; d < node->graph->nodes[i]->nr_deps; d++)
            if (node->graph->nodes[i]->deps[d] == node) {
                if (out && have < *nr)
                    out[have] = node->graph->nodes[i];
                have++;
            }
    if (!out || *nr > have)
        *nr = have;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphInstantiate_v2(CUgraphExec *out, CUgraph graph, CUgraphNode *error_node, char *log, size_t bytes)
{
    if (error_node)
        *error_node = NULL;
    if (log && bytes)
        *log = 0;
    return cuGraphInstantiateWithFlags(out, graph, 0);
}
