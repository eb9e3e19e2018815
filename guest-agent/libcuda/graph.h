/* SPDX-License-Identifier: Apache-2.0 */
/* Graph nodes in the client: handles minted in advance of an answer, and nodes with helpers before or after. */
#ifndef OG_GRAPH_H
#define OG_GRAPH_H

#include "memory.h"

#define OG_NODES_A_CALL 112u /* handles that a completion slot holds beside the fixed part */

/* Node handles sent as candidates; the host uses them for nodes that have no number yet. */
struct og_nodes {
    uint32_t room;  /* candidates sent */
    uint32_t count; /* of handle[] after og_nodes_settle: what the host answered */
    uint64_t handle[OG_NODES_A_CALL];
};
OG_MUST_CHECK CUresult og_nodes_mint(struct og_nodes *nodes, uint32_t room);
/* Takes the answer's handles, `fixed` bytes into the reply, and gives back the candidates not used. */
void og_nodes_settle(struct og_nodes *nodes, const struct og_call *c, uint64_t fixed);
void og_nodes_drop(struct og_nodes *nodes);

/* A copy of ordinary memory is two nodes: what goes before the copy attaches to `first`,
 * what depends on it to `last`. Other nodes are both themselves. */
uint64_t og_node_first(uint64_t node);
uint64_t og_node_last(uint64_t node);
OG_MUST_CHECK CUresult og_node_span(uint64_t node, uint64_t first, uint64_t last);
void og_node_forget(uint64_t node);

/* Adds a node: `blob` is the struct of its enum oc_node, `tail` more bytes of it. */
struct og_new_node {
    enum oc_node kind;
    CUgraph graph;
    CUcontext context;
    const CUgraphNode *deps;
    size_t nr_deps;
    const void *blob, *tail;
    uint32_t blob_bytes, tail_bytes;
};
OG_MUST_CHECK CUresult og_node_add(const struct og_new_node *new_node, CUgraphNode *node);

/* copy2d.c: a CUDA_MEMCPY3D as both sides see it; the wire form lacks the sides' addresses. */
struct og_box {
    struct oc_copy_nd nd;
    struct og_place dst, src;
};
OG_MUST_CHECK CUresult og_copy_box(const CUDA_MEMCPY3D *p, CUstream stream, bool sync, bool unaligned);
OG_MUST_CHECK CUresult og_box_of(const CUDA_MEMCPY3D *p, struct og_box *box);
/* Bytes between the first and the last byte that one side of the copy touches. */
uint64_t og_box_span(const struct og_box *box, bool of_dst);

#endif
