/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs in the client: handles minted in advance of an answer, nodes of every kind in one form, shadows. */
#ifndef OG_GRAPH_H
#define OG_GRAPH_H

#include <orion/nodes.h>

#include "memory.h"

#define OG_NODES_A_CALL 112u /* handles that a completion slot holds beside the fixed part */
#define OG_EDGES_A_CALL 38u  /* of three numbers each */
#define OG_DEPS_A_CALL 2048u /* in one command */

/* Data of a node. Data of a graph is the node whose own it is, or NULL. */
struct og_node {
    uint64_t graph;              /* 0: made before we knew it */
    void *got;                   /* what the last question for parameters points at */
    size_t got_bytes;
    CUgraph *bodies;             /* of a condition, as the application got them */
    CUDA_CONDITIONAL_NODE_PARAMS condition;
    bool copied;                 /* `copy` is as the application gave it */
    CUDA_MEMCPY3D copy;
};

/* ---- node.c ---- */
/* Node handles sent as candidates; the host uses them for nodes that have no number yet. */
struct og_nodes {
    uint32_t room;  /* candidates sent */
    uint64_t handle[OG_NODES_A_CALL];
};
OG_MUST_CHECK CUresult og_nodes_mint(struct og_nodes *nodes, uint32_t room);
/* The candidates that are among numbers[0..count) are nodes of `graph` now, the others go back. */
void og_nodes_settle(struct og_nodes *nodes, const uint64_t *numbers, uint32_t count, uint64_t graph);
/* One of them; the host answered `number`. */
void og_node_settle(uint64_t candidate, uint64_t number, uint64_t graph);
struct og_node *og_node(CUgraphNode node); /* NULL: no such node */
uint64_t og_node_graph(CUgraphNode node);
/* `graph` is `node`'s own from now on and ends with it. */
void og_graph_owned(uint64_t graph, CUgraphNode node);
/* The graph or node ended: so did the handles of what belonged to it. */
void og_graph_gone(uint64_t graph);
void og_node_gone(CUgraphNode node);

/* ---- graph_params.c ---- */
/* A node's parameters as they cross. */
struct og_blob {
    enum oc_node kind;
    uint64_t context;
    uint32_t bytes;
    struct og_shadow *shadow;    /* of a copy of ordinary memory: the host's, or og_shadow_free it */
    uint8_t data[40u << 10];
};
OG_MUST_CHECK CUresult og_blob_of(const CUgraphNodeParams *p, struct og_blob *blob);
/* The other way; pointers lead into memory of `node`. */
OG_MUST_CHECK CUresult og_blob_open(struct og_node *node, const uint8_t *data, uint32_t bytes, enum oc_node kind,
                                    CUgraphNodeParams *p);

/* ---- graph_node.c: any kind ---- */
struct og_deps {
    const CUgraphNode *nodes;
    const CUgraphEdgeData *edges; /* or NULL */
    size_t count;
};
OG_MUST_CHECK CUresult og_node_add(CUgraphNode *node, CUgraph graph, struct og_deps deps, CUgraphNodeParams *p);
OG_MUST_CHECK CUresult og_node_set(CUgraphExec exec, CUgraphNode node, const CUgraphNodeParams *p);
OG_MUST_CHECK CUresult og_node_get(CUgraphNode node, CUgraphNodeParams *p);

/* ---- graph_exec.c ---- */
/* What the application calls an executable: its handle, or the driver's own where device code launches it. */
CUgraphExec og_exec(CUgraphExec exec);

/* ---- copy2d.c: a CUDA_MEMCPY3D as both sides see it; the wire form lacks the sides' addresses. ---- */
struct og_box {
    struct oc_copy_nd nd;
    struct og_place dst, src;
};
OG_MUST_CHECK CUresult og_copy_box(const CUDA_MEMCPY3D *p, CUstream stream, bool sync, bool unaligned);
OG_MUST_CHECK CUresult og_box_of(const CUDA_MEMCPY3D *p, struct og_box *box);

/* ---- shadow.c ---- */
struct og_shadow;
/* What stands for the ordinary memory of a copy that a graph does. `params` is what the application is told of it. */
OG_MUST_CHECK CUresult og_shadow_make(const struct og_box *box, const CUDA_MEMCPY3D *params,
                                      struct oc_node_shadow *spec, struct og_shadow **shadow);
void og_shadow_free(struct og_shadow *shadow);
const CUDA_MEMCPY3D *og_shadow_params(const struct og_shadow *shadow);
/* The copy becomes a node of what `stream` records. */
OG_MUST_CHECK CUresult og_shadow_record(const struct og_box *box, const CUDA_MEMCPY3D *params, CUstream stream);

/* ---- stream.c ---- */
void og_stream_capturing(CUstream stream, bool on); /* a capture that began on it goes on */

#endif
