/* SPDX-License-Identifier: Apache-2.0 */
/* What the graph modules of the executor share: parameters of nodes, names, shadows, memory of graphs. */
#ifndef OH_GRAPH_H
#define OH_GRAPH_H

#include <orion/nodes.h>

#include "memory.h"
#include "modules.h"

#define OH_MAX_ACCESS 32u /* devices of one client */

/* ---- graph_params.c ---- */
/* Parameters of a node out of a command, checked; what they point at lies in the command or here. */
struct oh_params {
    uint32_t kind;               /* enum oc_node */
    CUcontext context;
    CUgraphNodeParams np;
    void *args[OH_MAX_PARAMS];   /* of a kernel */
    void *extra[5];
    size_t extra_bytes;
    CUmemAccessDesc access[OH_MAX_ACCESS];
    int device;                  /* of an allocation, the client's number */
    const uint64_t *candidates;  /* of the bodies of a conditional node */
    uint64_t moved;              /* handle of a graph that becomes the node's own */
    struct oh_host_call *call;   /* of a host node: to be kept by a graph, or freed */
    struct oh_shadow *shadow;    /* likewise; np is the graph that holds it */
};
/* The calling thread's; valid until its next command. oh_params_drop() ends the use, whatever this returned. */
OH_MUST_CHECK CUresult oh_params_get(uint32_t kind, uint64_t context, const uint8_t *blob, uint32_t bytes,
                                     struct oh_params **params);
/* `graph` is what keeps host function or shadow from now on; NULL: nothing took them. */
void oh_params_drop(struct oh_params *p, CUgraph graph);

/* ---- graph.c: names ---- */
/* Numbers for nodes: those that they have, else candidates of the guest's. */
struct oh_namer {
    void *graph;                 /* that the nodes belong to */
    const uint64_t *candidates;
    uint32_t room, used;
    CUresult r;                  /* of the first that went wrong */
};
uint64_t oh_name_node(struct oh_namer *n, CUgraphNode node);
/* Likewise of a graph that belongs to `owner`, a node, or NULL. */
OH_MUST_CHECK CUresult oh_name_graph(CUgraph graph, CUgraphNode owner, uint64_t candidate, uint64_t *id);
/* `id` names a graph that belongs to `node` and ends with it. */
void oh_graph_owned(uint64_t id, CUgraphNode node);
void oh_node_forget(uint64_t id, CUgraphNode node);
/* The graph ended: its number, those of its nodes and of their graphs name nothing any more. */
void oh_graph_forget(void *graph);
/* All nodes; free() them. */
OH_MUST_CHECK CUresult oh_graph_nodes(CUgraph graph, CUgraphNode **nodes, size_t *count);

/* ---- graph_shadow.c ---- */
struct oh_shadow;
OH_MUST_CHECK CUresult oh_shadow_make(const uint8_t *blob, uint32_t bytes, CUcontext context, struct oh_shadow **shadow,
                                      CUgraph *graph);
/* No node took it: its end is not told to the guest, which knows from the failure. */
void oh_shadow_disown(struct oh_shadow *shadow);
/* The shadow that a node stands for, NULL: it is another node. */
struct oh_shadow *oh_shadow_of(CUgraphNode node);
uint64_t oh_shadow_data(const struct oh_shadow *shadow); /* the guest's */
/* Gives the node of a shadow another one. */
OH_MUST_CHECK CUresult oh_shadow_set(CUgraphNode node, struct oh_params *p);

/* ---- graph_memory.c ---- */
void oh_graph_memory_add(void *graph, uint64_t ptr, uint64_t bytes, int device);
void oh_graph_memory_graph_ends(void *graph);
struct oh_exec; /* data of a GRAPH_EXEC that allocates, else NULL */
OH_MUST_CHECK CUresult oh_exec_make(CUgraph graph, uint64_t flags, struct oh_exec **exec);
void oh_exec_free(struct oh_exec *exec);
/* Around what may make the driver take memory for it. */
OH_MUST_CHECK CUresult oh_exec_book(struct oh_exec *exec);
void oh_exec_settle(struct oh_exec *exec, bool launched);

/* ---- graph_object.c ---- */
/* Memory that `graph`, its clones and executables use: `end(object)` runs when the last of them is gone. False: it
 * could not be tied to the graph and lives on. */
bool oh_graph_keeps(CUgraph graph, void *object, CUhostFn end, CUuserObject *made);
bool oh_condition_known(uint64_t handle);
void oh_conditions_forget(void *graph);

/* ---- capture.c ---- */
/* The graph that `stream` records, NULL: none. */
CUgraph oh_capture_graph(CUstream stream);

#endif
