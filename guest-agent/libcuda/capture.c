/* SPDX-License-Identifier: Apache-2.0 */
/* Stream capture: begun and ended by the twin of the thread that does; what is recorded lies on the host. */
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "gen/send.h"

#define PAIRS_A_CALL 56u /* dependencies with their edge data */

static _Thread_local CUstreamCaptureMode own_mode; /* cuThreadExchangeStreamCaptureMode */
static _Thread_local CUgraphNode *own_deps;        /* what cuStreamGetCaptureInfo points at */
static _Thread_local CUgraphEdgeData *own_edges;

static uint64_t number(CUstream stream)
{
    return (uint64_t)(uintptr_t)stream;
}

OG_EXPORT CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode)
{
    CUresult r;

    if (mode > 2)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_send_cuStreamBeginCapture_v2(hStream, mode);
    if (r == CUDA_SUCCESS)
        og_stream_capturing(hStream, true);
    return r;
}

OG_EXPORT CUresult cuStreamBeginCapture(CUstream hStream)
{
    return cuStreamBeginCapture_v2(hStream, 0);
}

OG_EXPORT CUresult cuStreamBeginCaptureToGraph(CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies,
                                               const CUgraphEdgeData *dependencyData, size_t numDependencies,
                                               CUstreamCaptureMode mode)
{
    CUresult r;

    if (mode > 2 || (numDependencies && !dependencies))
        return og_refuse(CUDA_ERROR_INVALID_VALUE);
    for (size_t i = 0; i < numDependencies; i++)
        if (!og_valid(OW_KIND_GRAPH_NODE, (uint64_t)(uintptr_t)dependencies[i]))
            return og_refuse(CUDA_ERROR_INVALID_VALUE);
    r = og_send_cuStreamBeginCaptureToGraph(hStream, hGraph, dependencies, dependencyData, numDependencies, mode);
    if (r == CUDA_SUCCESS)
        og_stream_capturing(hStream, true);
    return r;
}

OG_EXPORT CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph)
{
    CUstreamCaptureStatus status = 1;
    uint64_t candidate, graph = 0;
    CUresult r, asked;

    if (!phGraph) { /* a stream that does not capture is the greater mistake */
        r = cuStreamIsCapturing(hStream, &status);
        return r != CUDA_SUCCESS ? r : status ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_ILLEGAL_STATE;
    }
    *phGraph = NULL;
    candidate = og_mint(OW_KIND_GRAPH);
    if (!candidate)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_send_orion_capture_end(hStream, candidate, &graph);
    if (graph != candidate)
        og_unmint(OW_KIND_GRAPH, candidate);
    if (r == CUDA_SUCCESS) {
        og_stream_capturing(hStream, false);
        *phGraph = (CUgraph)(uintptr_t)graph;
        return r;
    }
    /* Most failures end the capture too, some (another thread's stream) do not: the host knows. */
    asked = og_send_cuStreamIsCapturing(hStream, &status);
    if (asked == CUDA_SUCCESS && status == 0)
        og_stream_capturing(hStream, false);
    return r;
}

/* For answers from the client: a context is current and the handle is one. */
static CUresult check(CUstream stream)
{
    OG_ON(number(stream));
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    return og_stream_valid(number(stream)) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

OG_EXPORT CUresult cuStreamIsCapturing(CUstream hStream, CUstreamCaptureStatus *captureStatus)
{
    CUresult r;

    if (atomic_load_explicit(&og_captures, memory_order_acquire) > 0)
        return og_send_cuStreamIsCapturing(hStream, captureStatus);
    r = check(hStream);
    if (r == CUDA_SUCCESS && !captureStatus)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        *captureStatus = 0;
    return r;
}

struct capture {
    CUstreamCaptureStatus status;
    cuuint64_t id;
    uint64_t graph, count;
    uint64_t pairs[2 * PAIRS_A_CALL]; /* node, edge data */
    uint32_t got;
};

/* Asks the host; it names the graph and up to `room` dependencies with our numbers where they have none. */
static CUresult ask(CUstream stream, uint32_t first, uint32_t room, struct capture *c)
{
    OG_ON(number(stream));
    const uint32_t fixed = sizeof(struct ow_orion_capture_state_out);
    const struct ow_orion_capture_state_out *out;
    struct ow_orion_capture_state_in *in;
    uint64_t candidate = og_mint(OW_KIND_GRAPH);
    struct og_nodes nodes;
    struct og_call call;
    CUresult r = og_nodes_mint(&nodes, room);

    memset(c, 0, sizeof(*c));
    if (r == CUDA_SUCCESS)
        r = og_begin(&call, OW_OP_orion_capture_state, (uint32_t)sizeof(*in) + room * 8u);
    if (r == CUDA_SUCCESS) {
        in = call.in;
        memset(in, 0, sizeof(*in));
        in->stream = number(stream);
        in->candidate = candidate;
        in->first = first;
        in->room = room;
        memcpy(in + 1, nodes.handle, room * sizeof(nodes.handle[0]));
        r = og_call(&call);
    }
    if (r == CUDA_SUCCESS && call.out_bytes >= fixed) {
        out = call.out;
        *c = (struct capture){ .status = out->status, .id = out->id, .graph = out->graph, .count = out->count };
        c->got = (call.out_bytes - fixed) / 16;
        c->got = c->got < room ? c->got : room;
        memcpy(c->pairs, out + 1, c->got * 16);
    }
    og_nodes_settle(&nodes, c->pairs, c->got * 2, c->graph);
    if (c->graph != candidate)
        og_unmint(OW_KIND_GRAPH, candidate);
    return r;
}

static bool room_for(uint64_t count)
{
    void *deps = realloc(own_deps, (count + 1) * sizeof(*own_deps)), *edges;

    own_deps = deps ? deps : own_deps;
    edges = deps ? realloc(own_edges, (count + 1) * sizeof(*own_edges)) : NULL;
    own_edges = edges ? edges : own_edges;
    return edges != NULL;
}

/* All dependencies, into memory of this thread's. */
static CUresult dependencies(CUstream stream, struct capture *c, bool *plain)
{
    uint64_t done = 0, data;
    CUresult r = CUDA_SUCCESS;

    *plain = true;
    do {
        r = ask(stream, (uint32_t)done, PAIRS_A_CALL, c);
        if (r == CUDA_SUCCESS && !room_for(c->count))
            r = CUDA_ERROR_OUT_OF_MEMORY;
        for (uint32_t i = 0; i < c->got && r == CUDA_SUCCESS && done < c->count; i++, done++) {
            own_deps[done] = (CUgraphNode)(uintptr_t)c->pairs[2 * i];
            data = c->pairs[2 * i + 1];
            memcpy(&own_edges[done], &data, sizeof(own_edges[0]));
            *plain &= data == 0;
        }
    } while (r == CUDA_SUCCESS && c->got && done < c->count);
    return r;
}

OG_EXPORT CUresult cuStreamGetCaptureInfo_v3(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                             cuuint64_t *id_out, CUgraph *graph_out,
                                             const CUgraphNode **dependencies_out,
                                             const CUgraphEdgeData **edgeData_out, size_t *numDependencies_out)
{
    struct capture c = { 0 };
    bool plain = true;
    CUresult r;

    if (!captureStatus_out)
        return CUDA_ERROR_INVALID_VALUE;
    if (atomic_load_explicit(&og_captures, memory_order_acquire) == 0)
        r = check(hStream);
    else
        r = dependencies_out ? dependencies(hStream, &c, &plain) : ask(hStream, 0, 0, &c);
    if (r == CUDA_SUCCESS && dependencies_out && !edgeData_out && !plain)
        r = CUDA_ERROR_LOSSY_QUERY;
    if (r != CUDA_SUCCESS)
        return r;
    *captureStatus_out = c.status;
    if (c.status != 1) /* the rest is written for an active capture only */
        return CUDA_SUCCESS;
    if (id_out)
        *id_out = c.id;
    if (graph_out)
        *graph_out = (CUgraph)(uintptr_t)c.graph;
    if (dependencies_out)
        *dependencies_out = own_deps;
    if (edgeData_out)
        *edgeData_out = plain ? NULL : own_edges;
    if (numDependencies_out)
        *numDependencies_out = c.count;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamGetCaptureInfo_v2(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                             cuuint64_t *id_out, CUgraph *graph_out,
                                             const CUgraphNode **dependencies_out, size_t *numDependencies_out)
{
    return cuStreamGetCaptureInfo_v3(hStream, captureStatus_out, id_out, graph_out, dependencies_out, NULL,
                                     numDependencies_out);
}

OG_EXPORT CUresult cuStreamGetCaptureInfo(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                          cuuint64_t *id_out)
{
    return cuStreamGetCaptureInfo_v2(hStream, captureStatus_out, id_out, NULL, NULL, NULL);
}

OG_EXPORT CUresult cuStreamUpdateCaptureDependencies(CUstream hStream, CUgraphNode *dependencies, size_t numDependencies,
                                                     unsigned int flags)
{
    return cuStreamUpdateCaptureDependencies_v2(hStream, dependencies, NULL, numDependencies, flags);
}

/* The mode is the thread's: remembered here, told to its twin one way. */
OG_EXPORT CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    CUstreamCaptureMode old = own_mode;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!mode || *mode > 2)
        return CUDA_ERROR_INVALID_VALUE;
    if (*mode != old)
        r = og_send_orion_capture_mode(*mode);
    if (r != CUDA_SUCCESS)
        return r;
    own_mode = *mode;
    *mode = old;
    return CUDA_SUCCESS;
}
