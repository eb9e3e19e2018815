/* SPDX-License-Identifier: Apache-2.0 */
/* Stream capture: what is recorded belongs to twins and streams of the driver; we give it numbers. */
#include <stdlib.h>
#include <string.h>

#include "gen/checks.h"
#include "graph.h"

#define MAX_PAIRS 56u    /* dependencies with their edge data that a completion slot holds */

_Atomic int oh_captures;

/* Graphs that got a number while they were recorded: if the capture fails, the driver ends them. */
struct recorded {
    CUstream stream;
    CUgraph graph;
    struct recorded *next;
};
static struct recorded *recordings;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void remember(CUstream stream, CUgraph graph)
{
    struct recorded *r = calloc(1, sizeof(*r));

    if (!r)
        return;
    *r = (struct recorded){ stream, graph, NULL };
    pthread_mutex_lock(&lock);
    r->next = recordings;
    recordings = r;
    pthread_mutex_unlock(&lock);
}

/* The capture ended; `lost`: with it what was recorded. */
static void recall(CUstream stream, bool lost)
{
    struct recorded **at = &recordings, *r, *mine = NULL;

    pthread_mutex_lock(&lock);
    while ((r = *at)) {
        if (r->stream != stream) {
            at = &r->next;
            continue;
        }
        *at = r->next;
        r->next = mine;
        mine = r;
    }
    pthread_mutex_unlock(&lock);
    while ((r = mine)) {
        mine = r->next;
        if (lost)
            oh_graph_forget(r->graph);
        free(r);
    }
}

/* Before the first capture of this client nothing can be captured: no question to the driver. */
bool oh_is_capturing(CUstream real)
{
    CUstreamCaptureStatus status = 0;

    if (atomic_load_explicit(&oh_captures, memory_order_relaxed) == 0)
        return false;
    return OH_CALL(cuStreamIsCapturing, real, &status) == CUDA_SUCCESS && status != 0;
}

CUgraph oh_capture_graph(CUstream stream)
{
    CUstreamCaptureStatus status = 0;
    CUgraph graph = NULL;
    cuuint64_t id;

    if (!oh_is_capturing(stream))
        return NULL;
    if (OH_CALL(cuStreamGetCaptureInfo_v2, stream, &status, &id, &graph, NULL, NULL) != CUDA_SUCCESS || status != 1)
        return NULL;
    return graph;
}

CUstreamCaptureMode oh_relax(void)
{
    CUstreamCaptureMode mode = 2; /* RELAXED */

    if (atomic_load_explicit(&oh_captures, memory_order_relaxed))
        oh_drv.cuThreadExchangeStreamCaptureMode(&mode);
    return mode;
}

void oh_unrelax(CUstreamCaptureMode mode)
{
    if (mode != 2)
        oh_drv.cuThreadExchangeStreamCaptureMode(&mode);
}

CUresult oh_cuStreamBeginCapture_v2(struct oh_twin *t, const struct ow_cuStreamBeginCapture_v2_in *in, uint32_t bytes,
                                    struct ow_cuStreamBeginCapture_v2_out *out, uint32_t *out_bytes)
{
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->hStream, &stream);

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (r != CUDA_SUCCESS)
        return r;
    atomic_store(&oh_captures, 1);
    return OH_CALL(cuStreamBeginCapture_v2, stream, in->mode);
}

CUresult oh_cuStreamBeginCaptureToGraph(struct oh_twin *t, const struct ow_cuStreamBeginCaptureToGraph_in *in,
                                        uint32_t bytes, struct ow_cuStreamBeginCaptureToGraph_out *out,
                                        uint32_t *out_bytes)
{
    struct ow_cursor parts = { (const uint8_t *)(in + 1), bytes - (uint32_t)sizeof(*in) };
    const void *deps, *edges;
    void *stream, *graph;
    CUresult r = oh_get(OW_KIND_STREAM, in->hStream, &stream);

    (void)out, (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_GRAPH, in->hGraph, &graph);
    if (r != CUDA_SUCCESS)
        return r;
    if (!oh_array(&parts, in->dependencies_bytes, true, oh_array_bytes(in->numDependencies, sizeof(CUgraphNode)), &deps))
        return oh_fault(t, "bad length of dependencies");
    r = oh_get_array(OW_KIND_GRAPH_NODE, deps, in->dependencies_bytes);
    if (r != CUDA_SUCCESS)
        return r;
    if (!oh_array(&parts, in->dependencyData_bytes, true, oh_array_bytes(in->numDependencies, sizeof(CUgraphEdgeData)),
                  &edges))
        return oh_fault(t, "bad length of dependency data");
    atomic_store(&oh_captures, 1);
    return OH_CALL(cuStreamBeginCaptureToGraph, stream, graph, deps, edges, in->numDependencies, in->mode);
}

/* A graph that has a number keeps it: it was asked for meanwhile, or recorded into. */
CUresult oh_orion_capture_end(struct oh_twin *t, const struct ow_orion_capture_end_in *in, uint32_t bytes,
                              struct ow_orion_capture_end_out *out, uint32_t *out_bytes)
{
    CUstreamCaptureStatus status = 0;
    CUgraph graph = NULL;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)t, (void)bytes;
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuStreamEndCapture, stream, &graph);
    if (r == CUDA_SUCCESS && !graph)
        r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (r == CUDA_SUCCESS || (OH_CALL(cuStreamIsCapturing, stream, &status) == CUDA_SUCCESS && status == 0))
        recall(stream, r != CUDA_SUCCESS);
    if (r == CUDA_SUCCESS)
        r = oh_name_graph(graph, NULL, in->candidate, &out->graph);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_orion_capture_mode(struct oh_twin *t, const struct ow_orion_capture_mode_in *in, uint32_t bytes,
                               struct ow_orion_capture_mode_out *out, uint32_t *out_bytes)
{
    CUstreamCaptureMode mode = in->mode;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    return OH_CALL(cuThreadExchangeStreamCaptureMode, &mode);
}

struct state {
    CUstreamCaptureStatus status;
    cuuint64_t id;
    CUgraph graph;
    const CUgraphNode *deps;
    const CUgraphEdgeData *edges;
    size_t count;
};

static CUresult name_graph(CUstream stream, const struct state *s, uint64_t candidate, uint64_t *id)
{
    CUresult r = oh_name_graph(s->graph, NULL, candidate, id);

    if (r == CUDA_SUCCESS && *id == candidate)
        remember(stream, s->graph);
    return r;
}

CUresult oh_orion_capture_state(struct oh_twin *t, const struct ow_orion_capture_state_in *in, uint32_t bytes,
                                struct ow_orion_capture_state_out *out, uint32_t *out_bytes)
{
    struct oh_namer namer = { .candidates = (const uint64_t *)(in + 1), .room = in->room };
    uint64_t *answer = (uint64_t *)(out + 1);
    struct state s = { 0 };
    size_t nr = 0;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)t;
    if (in->room > MAX_PAIRS || bytes < sizeof(*in) + in->room * sizeof(uint64_t))
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuStreamGetCaptureInfo_v3, stream, &s.status, &s.id, &s.graph, &s.deps, &s.edges, &s.count);
    memset(out, 0, sizeof(*out));
    out->status = s.status;
    if (r == CUDA_SUCCESS && s.status == 1 && s.graph) {
        r = name_graph(stream, &s, in->candidate, &out->graph);
        out->id = s.id;
        out->count = (uint32_t)s.count;
        if (in->first < s.count)
            nr = s.count - in->first < in->room ? s.count - in->first : in->room;
    }
    namer.graph = s.graph;
    for (size_t i = 0; i < nr; i++, answer += 2) {
        answer[0] = oh_name_node(&namer, s.deps[in->first + i]);
        answer[1] = 0;
        if (s.edges)
            memcpy(&answer[1], &s.edges[in->first + i], sizeof(answer[1]));
    }
    *out_bytes = (uint32_t)(sizeof(*out) + nr * 2 * sizeof(uint64_t));
    return r != CUDA_SUCCESS ? r : namer.r;
}
