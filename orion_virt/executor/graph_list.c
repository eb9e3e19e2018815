/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of a graph's nodes and edges. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

#define MAX_LIST 1000000u /* nodes or edges of one graph that we list */
#define MAX_ROOM 112u     /* handles that a completion slot holds beside the fixed part */
#define MAX_EDGES 38u     /* edges, of three numbers each */

typedef CUresult list_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count);

static CUresult all(list_nodes *list, CUgraph graph, CUgraphNode **nodes, size_t *count)
{
    CUresult r = list ? list(graph, NULL, count) : CUDA_ERROR_NOT_SUPPORTED;

    *nodes = NULL;
    if (r != CUDA_SUCCESS || *count == 0)
        return r;
    if (*count > MAX_LIST)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *nodes = calloc(*count, sizeof(**nodes));
    return *nodes ? list(graph, *nodes, count) : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult oh_graph_nodes(CUgraph graph, CUgraphNode **nodes, size_t *count)
{
    *count = 0;
    return all(oh_drv.cuGraphGetNodes, graph, nodes, count);
}

CUresult oh_orion_graph_list(struct oh_twin *t, const struct ow_orion_graph_list_in *in, uint32_t bytes,
                             struct ow_orion_graph_list_out *out, uint32_t *out_bytes)
{
    struct oh_namer namer = { .candidates = (const uint64_t *)(in + 1), .room = in->room };
    uint64_t *answer = (uint64_t *)(out + 1);
    CUgraphNode *nodes = NULL;
    size_t count = 0, nr = 0;
    CUresult r = oh_get(OW_KIND_GRAPH, in->object, &namer.graph);

    (void)t;
    if (in->what > 1 || in->room > MAX_ROOM || bytes < sizeof(*in) + in->room * sizeof(uint64_t))
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = all(in->what ? oh_drv.cuGraphGetRootNodes : oh_drv.cuGraphGetNodes, namer.graph, &nodes, &count);
    if (r == CUDA_SUCCESS && in->first < count)
        nr = count - in->first < in->room ? count - in->first : in->room;
    for (size_t i = 0; i < nr; i++)
        answer[i] = oh_name_node(&namer, nodes[in->first + i]);
    free(nodes);
    out->count = count;
    *out_bytes = (uint32_t)(sizeof(*out) + nr * sizeof(uint64_t));
    return r != CUDA_SUCCESS ? r : namer.r;
}

/* ---- edges ---- */

struct edges {
    CUgraphNode *from, *to;
    CUgraphEdgeData *data;
    size_t count;
};

/* `what` as orion_graph_edges'. Without arrays only counts. */
static CUresult ask(uint32_t what, void *object, struct edges *e)
{
    switch (what) {
    case 0:
        return OH_CALL(cuGraphGetEdges_v2, object, e->from, e->to, e->data, &e->count);
    case 1:
        return OH_CALL(cuGraphNodeGetDependencies_v2, object, e->from, e->data, &e->count);
    default:
        return OH_CALL(cuGraphNodeGetDependentNodes_v2, object, e->to, e->data, &e->count);
    }
}

static CUresult fetch(uint32_t what, void *object, struct edges *e)
{
    CUresult r = ask(what, object, e);

    if (r != CUDA_SUCCESS || e->count == 0)
        return r;
    if (e->count > MAX_LIST)
        return CUDA_ERROR_OUT_OF_MEMORY;
    e->from = calloc(e->count, sizeof(*e->from));
    e->to = calloc(e->count, sizeof(*e->to));
    e->data = calloc(e->count, sizeof(*e->data));
    r = e->from && e->to && e->data ? ask(what, object, e) : CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; r == CUDA_SUCCESS && what && i < e->count; i++)
        *(what == 1 ? &e->to[i] : &e->from[i]) = object;
    return r;
}

CUresult oh_orion_graph_edges(struct oh_twin *t, const struct ow_orion_graph_edges_in *in, uint32_t bytes,
                              struct ow_orion_graph_edges_out *out, uint32_t *out_bytes)
{
    struct oh_namer namer = { .candidates = (const uint64_t *)(in + 1), .room = 2 * in->room };
    uint64_t *answer = (uint64_t *)(out + 1);
    struct edges e = { 0 };
    size_t nr = 0;
    void *object;
    CUresult r = oh_get(in->what ? OW_KIND_GRAPH_NODE : OW_KIND_GRAPH, in->object, &object);

    (void)t;
    if (in->what > 2 || in->room > MAX_EDGES || bytes < sizeof(*in) + 2 * in->room * sizeof(uint64_t))
        return CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    namer.graph = in->what ? oh_data(OW_KIND_GRAPH_NODE, in->object) : object;
    r = fetch(in->what, object, &e);
    if (r == CUDA_SUCCESS && in->first < e.count)
        nr = e.count - in->first < in->room ? e.count - in->first : in->room;
    for (size_t i = 0; i < nr; i++, answer += 3) {
        answer[0] = oh_name_node(&namer, e.from[in->first + i]);
        answer[1] = oh_name_node(&namer, e.to[in->first + i]);
        memcpy(&answer[2], &e.data[in->first + i], sizeof(answer[2]));
    }
    out->count = e.count;
    *out_bytes = (uint32_t)(sizeof(*out) + nr * 3 * sizeof(uint64_t));
    free(e.from);
    free(e.to);
    free(e.data);
    return r != CUDA_SUCCESS ? r : namer.r;
}
