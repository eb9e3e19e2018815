/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of ordinary guest memory in graphs: one node, which holds a small graph of the copy and a host function. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"

#define MAX_HELD (1ull << 30) /* bytes of our own memory for shadows over TCP, of one client */

struct oh_shadow {
    struct oc_node_shadow spec;
    CUDA_MEMCPY3D copy;
    CUcontext context;
    CUuserObject object;
    uint8_t *buffer;      /* over TCP: the packed rows; over shared memory they lie in the region */
    _Atomic bool disowned;
};

static _Atomic uint64_t held;
static pthread_mutex_t bounce_lock = PTHREAD_MUTEX_INITIALIZER; /* one piece serves all shadows */

static void move_pieces(struct oh_shadow *s)
{
    uint8_t *bounce = oh_region(s->spec.bounce_off, s->spec.bounce_bytes);
    struct oh_host_call call = { .fn = s->spec.fn, .data = s->spec.data, .kind = OC_CALLBACK_PIECE };

    pthread_mutex_lock(&bounce_lock);
    for (uint64_t off = 0; bounce && off < s->spec.bytes; off += s->spec.bounce_bytes) {
        uint64_t n = s->spec.bytes - off < s->spec.bounce_bytes ? s->spec.bytes - off : s->spec.bounce_bytes;

        call.stream = off;
        if (s->spec.way == OC_SHADOW_DOWN) {
            memcpy(bounce, s->buffer + off, n);
            oh_flush(s->spec.bounce_off, n);
        }
        oh_deliver(&call, (uint32_t)n, true);
        if (s->spec.way == OC_SHADOW_UP)
            memcpy(s->buffer + off, bounce, n);
    }
    pthread_mutex_unlock(&bounce_lock);
}

/* The host function of the small graph. */
static void run(void *shadow)
{
    struct oh_shadow *s = shadow;
    struct oh_host_call call = { .fn = s->spec.fn, .data = s->spec.data };

    if (s->buffer)
        move_pieces(s);
    else
        oh_deliver(&call, 0, true);
}

/* No graph uses it any more. */
static void end(void *shadow)
{
    struct oh_shadow *s = shadow;
    struct oh_host_call call = { .fn = s->spec.end, .data = s->spec.data, .kind = OC_CALLBACK_END };

    if (!atomic_load(&s->disowned))
        oh_deliver(&call, 0, false);
    if (s->buffer)
        atomic_fetch_sub(&held, s->spec.bytes);
    free(s->buffer);
    free(s);
}

/* Over TCP the packed side is ours: the other one is checked alone. */
static CUresult own_side(struct oh_shadow *s)
{
    bool up = s->spec.way == OC_SHADOW_UP;
    struct oc_copy_nd nd = s->spec.nd;
    CUresult r;

    if (!oh_region(s->spec.bounce_off, s->spec.bounce_bytes))
        return CUDA_ERROR_INVALID_VALUE;
    if (up) {
        nd.src = nd.dst, nd.src_pitch = nd.dst_pitch, nd.src_rows = nd.dst_rows, nd.src_side = nd.dst_side;
    } else {
        nd.dst = nd.src, nd.dst_pitch = nd.src_pitch, nd.dst_rows = nd.src_rows, nd.dst_side = nd.src_side;
    }
    r = oh_copy_nd_get(&nd, &s->copy);
    if (r != CUDA_SUCCESS)
        return r;
    if (atomic_fetch_add(&held, s->spec.bytes) + s->spec.bytes > MAX_HELD || !(s->buffer = malloc(s->spec.bytes))) {
        atomic_fetch_sub(&held, s->spec.bytes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (up) {
        s->copy.srcMemoryType = OC_MEMORY_HOST;
        s->copy.srcHost = s->buffer;
        s->copy.srcPitch = nd.width;
        s->copy.srcHeight = nd.height;
    } else {
        s->copy.dstMemoryType = OC_MEMORY_HOST;
        s->copy.dstHost = s->buffer;
        s->copy.dstPitch = nd.width;
        s->copy.dstHeight = nd.height;
    }
    return CUDA_SUCCESS;
}

static CUresult check(struct oh_shadow *s)
{
    const struct oc_copy_nd *nd = &s->spec.nd;
    uint64_t bytes;

    if (s->spec.way > OC_SHADOW_HOST || __builtin_mul_overflow(nd->width, nd->height, &bytes) ||
        __builtin_mul_overflow(bytes, nd->depth, &bytes) || bytes != s->spec.bytes || !bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (s->spec.way == OC_SHADOW_HOST)
        return CUDA_SUCCESS;
    return s->spec.bounce_bytes ? own_side(s) : oh_copy_nd_get(nd, &s->copy);
}

static CUresult build(struct oh_shadow *s, CUgraph graph)
{
    CUDA_HOST_NODE_PARAMS host = { .fn = run, .userData = s };
    bool up = s->spec.way == OC_SHADOW_UP;
    CUgraphNode copied, moved;
    CUresult r;

    if (s->spec.way == OC_SHADOW_HOST)
        return OH_CALL(cuGraphAddHostNode, &moved, graph, NULL, 0, &host);
    if (up) {
        r = OH_CALL(cuGraphAddHostNode, &moved, graph, NULL, 0, &host);
        return r == CUDA_SUCCESS ? OH_CALL(cuGraphAddMemcpyNode, &copied, graph, &moved, 1, &s->copy, s->context) : r;
    }
    r = OH_CALL(cuGraphAddMemcpyNode, &copied, graph, NULL, 0, &s->copy, s->context);
    return r == CUDA_SUCCESS ? OH_CALL(cuGraphAddHostNode, &moved, graph, &copied, 1, &host) : r;
}

CUresult oh_shadow_make(const uint8_t *blob, uint32_t bytes, CUcontext context, struct oh_shadow **shadow,
                        CUgraph *graph)
{
    struct oh_shadow *s = bytes < sizeof(s->spec) ? NULL : calloc(1, sizeof(*s));
    CUresult r;

    if (!s)
        return bytes < sizeof(s->spec) ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(&s->spec, blob, sizeof(s->spec));
    s->context = context;
    s->disowned = true; /* until it is made */
    r = check(s);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphCreate, graph, 0);
    if (r != CUDA_SUCCESS) {
        end(s);
        return r;
    }
    r = build(s, *graph);
    if (r == CUDA_SUCCESS && !oh_graph_keeps(*graph, s, end, &s->object))
        r = CUDA_ERROR_NOT_SUPPORTED;
    if (r != CUDA_SUCCESS) {
        OH_CALL(cuGraphDestroy, *graph);
        end(s);
        return r;
    }
    s->disowned = false;
    *shadow = s;
    return CUDA_SUCCESS;
}

void oh_shadow_disown(struct oh_shadow *s)
{
    atomic_store(&s->disowned, true);
}

uint64_t oh_shadow_data(const struct oh_shadow *s)
{
    return s->spec.data;
}

/* The nodes of the small graph, by type; false: it is another graph. */
static bool take_apart(CUgraph graph, CUgraphNode *copied, CUgraphNode *moved, struct oh_shadow **s)
{
    CUDA_HOST_NODE_PARAMS host = { 0 };
    CUgraphNode nodes[3] = { NULL, NULL, NULL };
    CUgraphNodeType type;
    size_t count = 3;

    *copied = *moved = NULL;
    if (OH_CALL(cuGraphGetNodes, graph, nodes, &count) != CUDA_SUCCESS || count < 1 || count > 2)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (OH_CALL(cuGraphNodeGetType, nodes[i], &type) != CUDA_SUCCESS)
            return false;
        if (type == CU_GRAPH_NODE_TYPE_HOST)
            *moved = nodes[i];
        else if (type == CU_GRAPH_NODE_TYPE_MEMCPY)
            *copied = nodes[i];
    }
    if (!*moved || OH_CALL(cuGraphHostNodeGetParams, *moved, &host) != CUDA_SUCCESS || host.fn != run)
        return false;
    *s = host.userData;
    return true;
}

struct oh_shadow *oh_shadow_of(CUgraphNode node)
{
    CUgraphNodeType type = 0;
    CUgraphNode copied, moved;
    struct oh_shadow *s;
    CUgraph graph = NULL;

    if (OH_CALL(cuGraphNodeGetType, node, &type) != CUDA_SUCCESS || type != CU_GRAPH_NODE_TYPE_GRAPH ||
        OH_CALL(cuGraphChildGraphNodeGetGraph, node, &graph) != CUDA_SUCCESS)
        return NULL;
    return take_apart(graph, &copied, &moved, &s) ? s : NULL;
}

CUresult oh_shadow_set(CUgraphNode node, struct oh_params *p)
{
    CUDA_HOST_NODE_PARAMS host = { .fn = run, .userData = p->shadow };
    struct oh_shadow *old;
    CUgraphNode copied, moved;
    CUgraph graph = NULL;
    CUresult r = OH_CALL(cuGraphChildGraphNodeGetGraph, node, &graph);

    if (r == CUDA_SUCCESS && (!take_apart(graph, &copied, &moved, &old) || old->spec.way != p->shadow->spec.way))
        r = CUDA_ERROR_INVALID_VALUE; /* as natively, where the kinds of memory may not change */
    if (r == CUDA_SUCCESS && copied)
        r = OH_CALL(cuGraphMemcpyNodeSetParams, copied, &p->shadow->copy);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphHostNodeSetParams, moved, &host);
    if (r == CUDA_SUCCESS) /* the old one is kept too: what was instantiated with it may run */
        r = OH_CALL(cuGraphRetainUserObject, graph, p->shadow->object, 1, 0);
    return r;
}

CUresult oh_orion_capture_shadow(struct oh_twin *t, const struct ow_orion_capture_shadow_in *in, uint32_t bytes,
                                 struct ow_orion_capture_shadow_out *out, uint32_t *out_bytes)
{
    CUstreamCaptureStatus status = 0;
    const CUgraphNode *deps = NULL;
    struct oh_params *p = NULL;
    CUgraph graph = NULL;
    CUgraphNode node;
    size_t count = 0;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)t, (void)out, (void)out_bytes;
    if (r != CUDA_SUCCESS)
        return r;
    r = oh_params_get(OC_NODE_SHADOW, 0, (const uint8_t *)(in + 1), bytes - (uint32_t)sizeof(*in), &p);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuStreamGetCaptureInfo_v2, stream, &status, NULL, &graph, &deps, &count);
    if (r == CUDA_SUCCESS && status != 1)
        r = status ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_ERROR_ILLEGAL_STATE;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuGraphAddChildGraphNode, &node, graph, deps, count, p->np.graph.graph);
    if (r == CUDA_SUCCESS) {
        r = OH_CALL(cuStreamUpdateCaptureDependencies_v2, stream, &node, NULL, 1, 1); /* SET */
        if (r != CUDA_SUCCESS)
            OH_CALL(cuGraphDestroyNode, node);
    }
    oh_params_drop(p, r == CUDA_SUCCESS ? graph : NULL);
    return r;
}
