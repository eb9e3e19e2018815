/* SPDX-License-Identifier: Apache-2.0 */
/* Graph nodes: adding one of any kind, changing its parameters, its attributes. */
#include <string.h>

#include "extra.h"
#include "graph.h"
#include "launch.h"
#include "gen/checks.h"

/* What a new node brings: an address, bodies, a graph that is its own now. */
static CUresult brings(void *graph, CUgraphNode node, const struct oh_params *p, uint64_t *ptr)
{
    CUresult r = CUDA_SUCCESS;

    if (p->kind == OC_NODE_ALLOC) {
        *ptr = p->np.alloc.dptr;
        oh_graph_memory_add(graph, p->np.alloc.dptr, p->np.alloc.bytesize, p->device);
    }
    for (uint32_t i = 0; p->kind == OC_NODE_COND && i < p->np.conditional.size && r == CUDA_SUCCESS; i++) {
        r = oh_put(OW_KIND_GRAPH, p->candidates[i], p->np.conditional.phGraph_out[i]);
        if (r == CUDA_SUCCESS)
            oh_graph_owned(p->candidates[i], node);
    }
    if (p->moved)
        oh_graph_owned(p->moved, node);
    return r;
}

CUresult oh_orion_node_add(struct oh_twin *t, const struct ow_orion_node_add_in *in, uint32_t bytes,
                           struct ow_orion_node_add_out *out, uint32_t *out_bytes)
{
    uint64_t *deps = (uint64_t *)(uintptr_t)(in + 1), deps_bytes = (uint64_t)in->count * sizeof(*deps);
    uint64_t edges_bytes = in->edges ? (uint64_t)in->count * sizeof(CUgraphEdgeData) : 0;
    const CUgraphEdgeData *edges = (const void *)((const uint8_t *)deps + deps_bytes);
    uint32_t extra = bytes - (uint32_t)sizeof(*in);
    struct oh_params *p = NULL;
    CUgraphNode node = NULL;
    void *graph;
    CUresult r = oh_get(OW_KIND_GRAPH, in->graph, &graph);

    (void)t;
    if (deps_bytes + edges_bytes > extra)
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = oh_get_array(OW_KIND_GRAPH_NODE, deps, (uint32_t)deps_bytes);
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_params_get(in->kind, in->context, (const uint8_t *)edges + edges_bytes,
                      extra - (uint32_t)(deps_bytes + edges_bytes), &p);
    if (r == CUDA_SUCCESS && in->kind == OC_NODE_ALLOC && oh_extra_measured()) /* a driver may take it now */
        r = oh_extra_more(p->device, p->np.alloc.bytesize);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphAddNode_v2, &node, graph, (const CUgraphNode *)deps, edges_bytes ? edges : NULL, in->count,
                    &p->np);
    oh_params_drop(p, r == CUDA_SUCCESS ? graph : NULL);
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_put(OW_KIND_GRAPH_NODE, in->node, node);
    if (r != CUDA_SUCCESS)
        return r;
    oh_set_data(OW_KIND_GRAPH_NODE, in->node, graph);
    out->ptr = 0;
    *out_bytes = sizeof(*out);
    return brings(graph, node, p, &out->ptr);
}

CUresult oh_orion_node_set(struct oh_twin *t, const struct ow_orion_node_set_in *in, uint32_t bytes,
                           struct ow_orion_node_set_out *out, uint32_t *out_bytes)
{
    struct oh_params *p = NULL;
    void *node, *exec = NULL;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->node, &node);

    (void)t, (void)out, (void)out_bytes;
    if (r == CUDA_SUCCESS && in->exec)
        r = oh_get(OW_KIND_GRAPH_EXEC, in->exec, &exec);
    if (r == CUDA_SUCCESS && (in->kind == OC_NODE_COND || in->kind == OC_NODE_ALLOC))
        r = CUDA_ERROR_NOT_SUPPORTED; /* the driver's answer too: nothing of them can change */
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_params_get(in->kind, in->context, (const uint8_t *)(in + 1), bytes - (uint32_t)sizeof(*in), &p);
    if (r == CUDA_SUCCESS && p->moved)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS && (p->shadow != NULL) != (oh_shadow_of(node) != NULL)) {
        oh_log("a copy node changes between ordinary and other memory: not carried");
        r = CUDA_ERROR_NOT_SUPPORTED;
    }
    if (r == CUDA_SUCCESS && p->shadow && !in->exec)
        r = oh_shadow_set(node, p);
    else if (r == CUDA_SUCCESS)
        r = in->exec ? OH_CALL(cuGraphExecNodeSetParams, exec, node, &p->np) : OH_CALL(cuGraphNodeSetParams, node, &p->np);
    oh_params_drop(p, r == CUDA_SUCCESS ? oh_data(OW_KIND_GRAPH_NODE, in->node) : NULL);
    return r;
}

/* The kind that the guest sees: a shadow is a copy. */
CUresult oh_cuGraphNodeGetType(struct oh_twin *t, const struct ow_cuGraphNodeGetType_in *in, uint32_t bytes,
                               struct ow_cuGraphNodeGetType_out *out, uint32_t *out_bytes)
{
    CUgraphNodeType type = 0;
    void *node;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->hNode, &node);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphNodeGetType, node, &type);
    if (r != CUDA_SUCCESS)
        return r;
    out->type = type == CU_GRAPH_NODE_TYPE_GRAPH && oh_shadow_of(node) ? CU_GRAPH_NODE_TYPE_MEMCPY : type;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_cuGraphDestroyNode(struct oh_twin *t, const struct ow_cuGraphDestroyNode_in *in, uint32_t bytes,
                               struct ow_cuGraphDestroyNode_out *out, uint32_t *out_bytes)
{
    void *node;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->hNode, &node);

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphDestroyNode, node);
    if (r == CUDA_SUCCESS)
        oh_node_forget(in->hNode, node);
    return r;
}

/* ---- attributes of kernel nodes ---- */

CUresult oh_cuGraphKernelNodeSetAttribute(struct oh_twin *t, const struct ow_cuGraphKernelNodeSetAttribute_in *in,
                                          uint32_t bytes, struct ow_cuGraphKernelNodeSetAttribute_out *out,
                                          uint32_t *out_bytes)
{
    CUlaunchAttribute given = { .id = in->attr }, attribute;
    uint32_t nr;
    void *node;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->hNode, &node);

    (void)t, (void)out, (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(given.value))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&given.value, in + 1, sizeof(given.value));
    if (r == CUDA_SUCCESS)
        r = oh_launch_attributes(&given, sizeof(given), &attribute, &nr);
    return r == CUDA_SUCCESS ? OH_CALL(cuGraphKernelNodeSetAttribute, node, in->attr, &attribute.value) : r;
}

/* What the driver calls the node comes back in the value, although cuda.h has it const. */
CUresult oh_orion_node_updatable(struct oh_twin *t, const struct ow_orion_node_updatable_in *in, uint32_t bytes,
                                 struct ow_orion_node_updatable_out *out, uint32_t *out_bytes)
{
    CUkernelNodeAttrValue value = { .deviceUpdatableKernelNode = { .deviceUpdatable = 1 } };
    void *node;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->node, &node);

    (void)t, (void)bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphKernelNodeSetAttribute, node, CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE, &value);
    if (r != CUDA_SUCCESS)
        return r;
    out->name = (uintptr_t)value.deviceUpdatableKernelNode.devNode;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_cuGraphKernelNodeGetAttribute(struct oh_twin *t, const struct ow_cuGraphKernelNodeGetAttribute_in *in,
                                          uint32_t bytes, struct ow_cuGraphKernelNodeGetAttribute_out *out,
                                          uint32_t *out_bytes)
{
    CUkernelNodeAttrValue value;
    void *node;
    CUresult r = oh_get(OW_KIND_GRAPH_NODE, in->hNode, &node);

    (void)t, (void)bytes;
    memset(&value, 0, sizeof(value));
    if (r == CUDA_SUCCESS && (in->attr == 7 || in->attr == 12)) /* events: of launches, not of nodes */
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphKernelNodeGetAttribute, node, in->attr, &value);
    if (r != CUDA_SUCCESS)
        return r;
    out->value_out_bytes = sizeof(value);
    memcpy(out + 1, &value, sizeof(value));
    *out_bytes = (uint32_t)(sizeof(*out) + sizeof(value));
    return CUDA_SUCCESS;
}
