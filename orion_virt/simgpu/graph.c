/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs: nodes with dependencies, their executable form, and launching it. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct CUgraphExec_st {
    _Atomic int refs;
    struct CUgraph_st *graph;   /* a clone in topological order: nodes come after what they depend on */
    unsigned long long flags;
};

struct CUgraph_st *sim_graph_create(void)
{
    struct CUgraph_st *g = calloc(1, sizeof(*g));

    if (g && !sim_register(g, SIM_GRAPH)) {
        free(g);
        return NULL;
    }
    return g;
}

static void node_free(struct CUgraphNode_st *n)
{
    sim_unregister(n);
    sim_work_clear(&n->work);
    if (n->child)
        sim_graph_destroy(n->child);
    for (unsigned i = 0; n->condition.phGraph_out && i < n->condition.size; i++)
        sim_graph_destroy(n->condition.phGraph_out[i]);
    free(n->condition.phGraph_out);
    free(n->got);
    free(n->edges);
    free(n->deps);
    free(n);
}

void sim_node_free(struct CUgraphNode_st *n)
{
    node_free(n);
}

bool sim_dep_add(struct CUgraphNode_st *n, struct CUgraphNode_st *dep, const CUgraphEdgeData *edge)
{
    void *deps = realloc(n->deps, (n->nr_deps + 1) * sizeof(*n->deps)), *edges;

    if (!deps)
        return false;
    n->deps = deps;
    edges = realloc(n->edges, (n->nr_deps + 1) * sizeof(*n->edges));
    if (!edges)
        return false;
    n->edges = edges;
    memset(&n->edges[n->nr_deps], 0, sizeof(n->edges[0]));
    if (edge)
        n->edges[n->nr_deps] = *edge;
    n->deps[n->nr_deps++] = dep;
    return true;
}

void sim_graph_destroy(struct CUgraph_st *g)
{
    sim_unregister(g);
    for (size_t i = 0; i < g->nr_nodes; i++)
        node_free(g->nodes[i]);
    free(g->nodes);
    sim_kept_drop(g);
    free(g);
}

struct CUgraphNode_st *sim_graph_add(struct CUgraph_st *g, CUgraphNodeType type, struct CUgraphNode_st *const *deps,
                                     size_t nr_deps)
{
    struct CUgraphNode_st *n = calloc(1, sizeof(*n));
    void *nodes = realloc(g->nodes, (g->nr_nodes + 1) * sizeof(*g->nodes));

    if (nodes)
        g->nodes = nodes;
    if (!n || !nodes || !sim_register(n, SIM_NODE)) {
        free(n);
        return NULL;
    }
    n->graph = g;
    n->type = type;
    for (size_t i = 0; i < nr_deps; i++) {
        size_t j = 0;
        while (j < n->nr_deps && n->deps[j] != deps[i])
            j++;
        if (j == n->nr_deps && !sim_dep_add(n, deps[i], NULL)) {
            node_free(n);
            return NULL;
        }
    }
    return g->nodes[g->nr_nodes++] = n;
}

/* Nodes of `g` in an order that respects dependencies; NULL when there is a cycle. */
static struct CUgraphNode_st **sorted(const struct CUgraph_st *g)
{
    struct CUgraphNode_st **order = calloc(g->nr_nodes + 1, sizeof(*order));
    bool *placed = calloc(g->nr_nodes + 1, 1);
    size_t nr = 0, before;

    if (!order || !placed)
        goto out;
    do {
        before = nr;
        for (size_t i = 0; i < g->nr_nodes; i++) {
            struct CUgraphNode_st *n = g->nodes[i];
            size_t d, k;
            for (d = 0; d < n->nr_deps && !placed[i]; d++) {
                for (k = 0; k < nr && order[k] != n->deps[d]; k++)
                    ;
                if (k == nr)
                    break;
            }
            if (placed[i] || d < n->nr_deps)
                continue;
            placed[i] = true;
            order[nr++] = n;
        }
    } while (nr > before);
out:
    free(placed);
    if (nr == g->nr_nodes && order)
        return order;
    free(order);
    return NULL;
}

static CUresult clone_inner(struct CUgraphNode_st *copy, const struct CUgraphNode_st *n)
{
    if (n->child) {
        copy->child = sim_graph_clone_whole(n->child);
        if (!copy->child)
            return CUDA_ERROR_OUT_OF_MEMORY;
        copy->child->owned = true;
    }
    copy->condition = n->condition;
    copy->condition.size = 0;
    copy->condition.phGraph_out = n->condition.phGraph_out ? calloc(n->condition.size + 1, sizeof(CUgraph)) : NULL;
    for (unsigned i = 0; copy->condition.phGraph_out && i < n->condition.size; i++) {
        CUgraph body = sim_graph_clone_whole(n->condition.phGraph_out[i]);

        if (!body)
            return CUDA_ERROR_OUT_OF_MEMORY;
        body->owned = true;
        copy->condition.phGraph_out[copy->condition.size++] = body;
    }
    return CUDA_SUCCESS;
}

static CUresult clone_node(struct CUgraph_st *to, const struct CUgraphNode_st *n)
{
    struct CUgraphNode_st *copy = sim_graph_add(to, n->type, NULL, 0);
    CUresult r;

    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    copy->origin = (struct CUgraphNode_st *)n;
    for (size_t d = 0; d < n->nr_deps; d++)
        for (size_t k = 0; k < to->nr_nodes; k++)
            if (to->nodes[k]->origin == n->deps[d] && !sim_dep_add(copy, to->nodes[k], &n->edges[d]))
                return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(copy->attrs, n->attrs, sizeof(n->attrs));
    copy->nr_attrs = n->nr_attrs;
    r = clone_inner(copy, n);
    return r ? r : sim_work_clone(&copy->work, &n->work);
}

struct CUgraph_st *sim_graph_clone_whole(const struct CUgraph_st *g)
{
    struct CUgraphNode_st **order = sorted(g);
    struct CUgraph_st *copy = order ? sim_graph_create() : NULL;

    for (size_t i = 0; copy && i < g->nr_nodes; i++)
        if (clone_node(copy, order[i])) {
            sim_graph_destroy(copy);
            copy = NULL;
        }
    if (copy && !sim_kept_clone(copy, g)) {
        sim_graph_destroy(copy);
        copy = NULL;
    }
    free(order);
    return copy;
}

/* Not with conditions, nor with memory: as the driver. */
struct CUgraph_st *sim_graph_clone(const struct CUgraph_st *g)
{
    for (size_t i = 0; i < g->nr_nodes; i++)
        if (g->nodes[i]->type == CU_GRAPH_NODE_TYPE_CONDITIONAL || g->nodes[i]->work.alloc)
            return NULL;
    return sim_graph_clone_whole(g);
}

struct CUgraph_st *sim_exec_graph(struct CUgraphExec_st *e)
{
    return e->graph;
}

void sim_exec_get(struct CUgraphExec_st *e)
{
    e->refs++;
}

void sim_exec_put(struct CUgraphExec_st *e)
{
    if (--e->refs)
        return;
    sim_graph_destroy(e->graph);
    free(e);
}

static CUresult run_nodes(struct CUctx_st *ctx, struct CUgraph_st *g)
{
    CUresult r = CUDA_SUCCESS;

    for (size_t i = 0; i < g->nr_nodes && !r; i++) {
        struct CUgraphNode_st *n = g->nodes[i];

        if (n->disabled)
            continue;
        if (n->condition.phGraph_out)
            r = sim_condition_run(ctx, n, run_nodes);
        else
            r = n->child ? run_nodes(ctx, n->child) : sim_work_run(ctx, &n->work);
    }
    return r;
}

CUresult sim_exec_run(struct CUctx_st *ctx, struct CUgraphExec_st *e)
{
    sim_condition_reset(e->graph);
    return run_nodes(ctx, e->graph);
}

static CUresult instantiate(CUgraphExec *out, CUgraph graph, unsigned long long flags)
{
    struct CUgraphExec_st *e;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out || !sim_valid(graph, SIM_GRAPH) || graph->owned || flags & ~15ull || (flags & 5) == 5)
        return CUDA_ERROR_INVALID_VALUE;
    e = calloc(1, sizeof(*e));
    if (!e)
        return CUDA_ERROR_OUT_OF_MEMORY;
    e->refs = 1;
    e->flags = flags;
    e->graph = sim_graph_clone_whole(graph);
    if (!e->graph || !sim_register(e, SIM_EXEC)) {
        if (e->graph)
            sim_graph_destroy(e->graph);
        free(e);
        return CUDA_ERROR_INVALID_VALUE; /* a cycle */
    }
    *out = e;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphInstantiateWithFlags(CUgraphExec *out, CUgraph graph, unsigned long long flags)
{
    return instantiate(out, graph, flags);
}

SIM_API CUresult cuGraphInstantiateWithParams(CUgraphExec *out, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    CUresult r;

    if (!params)
        return CUDA_ERROR_INVALID_VALUE;
    r = instantiate(out, graph, params->flags);
    params->hErrNode_out = NULL;
    params->result_out = r ? CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE : CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return r;
}

SIM_API CUresult cuGraphExecGetFlags(CUgraphExec exec, cuuint64_t *flags)
{
    if (!flags || !sim_valid(exec, SIM_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    *flags = exec->flags;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphExecDestroy(CUgraphExec exec)
{
    if (!sim_valid(exec, SIM_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    sim_unregister(exec);
    sim_exec_put(exec);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    struct sim_work work = { .kind = SIM_WORK_GRAPH };
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    if (!sim_valid(exec, SIM_EXEC))
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_graph_memory_launch(exec->graph, exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    if (r)
        return r;
    sim_exec_get(exec);
    work.exec = exec;
    return sim_submit(s, &work);
}

SIM_API CUresult cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    return sim_valid(exec, SIM_EXEC) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; /* nothing to move */
}

static struct CUgraphNode_st *find_node(struct CUgraphExec_st *exec, struct CUgraphNode_st *node)
{
    if (!sim_valid(exec, SIM_EXEC))
        return NULL;
    for (size_t i = 0; i < exec->graph->nr_nodes; i++)
        if (exec->graph->nodes[i]->origin == node)
            return exec->graph->nodes[i];
    return NULL;
}

/* An executable's nodes change only between launches: wait for those that run. */
struct CUgraphNode_st *sim_exec_node(struct CUgraphExec_st *exec, struct CUgraphNode_st *node, CUgraphNodeType type)
{
    struct CUgraphNode_st *n = find_node(exec, node);
    struct CUctx_st *ctx = sim_current();

    if (!n || n->type != type)
        return NULL;
    if (exec->refs > 1 && ctx)
        sim_context_wait(ctx);
    return n;
}
