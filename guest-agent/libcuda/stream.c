/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: what the client knows of each, and stream capture. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "graph.h"
#include "gen/send.h"

struct stream {
    uint64_t context, id;
    int device;
    bool green;             /* `context` stands for a green one */
    _Atomic bool capturing; /* a capture began here and has not ended */
};

_Atomic int og_captures;
static _Atomic uint64_t next_id = 1;
static _Thread_local bool own_capturing;          /* the same for this thread's stream 2 */
static _Thread_local CUstreamCaptureMode own_mode; /* cuThreadExchangeStreamCaptureMode */
static _Thread_local CUgraphNode *own_deps;       /* what cuStreamGetCaptureInfo points at */

static uint64_t number(CUstream stream)
{
    return (uint64_t)(uintptr_t)stream;
}

static bool is_builtin(CUstream stream)
{
    return number(stream) <= 2;
}

static struct stream *data_of(CUstream stream)
{
    return is_builtin(stream) ? NULL : og_data(number(stream));
}

bool og_stream_valid(uint64_t stream)
{
    return stream <= 2 || og_valid(OW_KIND_STREAM, stream);
}

uint64_t og_stream_id(uint64_t context, uint64_t stream)
{
    struct stream *s;

    if (stream <= 1)
        return og_context_number(context) << 2 | 1;
    if (stream == 2)
        return (og_context_number(context) << 16 | og_self()->slot) << 2 | 2;
    s = og_data(stream);
    return s ? s->id << 2 : stream;
}

static CUresult adopt(CUresult r, uint64_t context, CUstream *made)
{
    struct stream *s;

    if (r != CUDA_SUCCESS)
        return r;
    s = calloc(1, sizeof(*s));
    if (!s) {
        (void)cuStreamDestroy_v2(*made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    s->context = context;
    s->device = og_context(context) ? og_context(context)->device : -1;
    s->green = s->device >= 0 && og_context(context)->green;
    s->id = atomic_fetch_add(&next_id, 1);
    og_set_data(number(*made), s);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    return adopt(og_send_cuStreamCreate(phStream, Flags), og_current(), phStream);
}

OG_EXPORT CUresult cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority)
{
    return adopt(og_send_cuStreamCreateWithPriority(phStream, flags, priority), og_current(), phStream);
}

OG_EXPORT CUresult cuGreenCtxStreamCreate(CUstream *phStream, CUgreenCtx greenCtx, unsigned int flags, int priority)
{
    CUresult r = og_send_cuGreenCtxStreamCreate(phStream, greenCtx, flags, priority);

    return r == CUDA_SUCCESS ? adopt(r, og_green_context((uintptr_t)greenCtx), phStream) : r;
}

OG_EXPORT CUresult cuStreamDestroy_v2(CUstream hStream)
{
    struct stream *s;
    CUresult r;

    if (is_builtin(hStream))
        return CUDA_ERROR_INVALID_HANDLE;
    s = og_valid(OW_KIND_STREAM, number(hStream)) ? og_data(number(hStream)) : NULL;
    if (s && s->green && !og_context(s->context))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED; /* a green context ended before its stream */
    r = og_send_cuStreamDestroy_v2(hStream);
    if (r != CUDA_SUCCESS)
        return r;
    if (s && atomic_load(&s->capturing))
        atomic_fetch_sub(&og_captures, 1);
    og_set_data(number(hStream), NULL);
    og_unmint(OW_KIND_STREAM, number(hStream));
    free(s);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamDestroy(CUstream hStream)
{
    return cuStreamDestroy_v2(hStream);
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

OG_EXPORT CUresult cuStreamGetId(CUstream hStream, unsigned long long *streamId)
{
    CUresult r = check(hStream);

    if (r == CUDA_SUCCESS && !streamId)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        *streamId = og_stream_id(og_current(), number(hStream));
    return r;
}

OG_EXPORT CUresult cuStreamGetCtx(CUstream hStream, CUcontext *pctx)
{
    CUresult r = check(hStream);
    struct stream *s;

    if (r == CUDA_SUCCESS && !pctx)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    s = data_of(hStream);
    *pctx = (CUcontext)(uintptr_t)(s ? s->context : og_current());
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamGetDevice(CUstream hStream, CUdevice *device)
{
    CUresult r = check(hStream);
    struct stream *s;

    if (r == CUDA_SUCCESS && !device)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    s = data_of(hStream);
    *device = s ? s->device : og_self()->device;
    return CUDA_SUCCESS;
}

/* ---- capture ---- */

static void set_capturing(CUstream stream, bool on)
{
    struct stream *s = data_of(stream);
    bool was;

    if (s) {
        was = atomic_exchange(&s->capturing, on);
    } else {
        was = own_capturing;
        own_capturing = on;
    }
    if (was != on)
        atomic_fetch_add(&og_captures, on ? 1 : -1);
}

OG_EXPORT CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode)
{
    CUresult r;

    if (mode > 2)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_send_cuStreamBeginCapture_v2(hStream, mode);
    if (r == CUDA_SUCCESS)
        set_capturing(hStream, true);
    return r;
}

OG_EXPORT CUresult cuStreamBeginCapture(CUstream hStream)
{
    return cuStreamBeginCapture_v2(hStream, 0);
}

OG_EXPORT CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph)
{
    CUstreamCaptureStatus status = 1;
    CUresult r, asked;

    if (phGraph)
        *phGraph = NULL;
    r = og_send_cuStreamEndCapture(hStream, phGraph);
    if (r == CUDA_SUCCESS) {
        set_capturing(hStream, false);
        return r;
    }
    /* Most failures end the capture too, some (another thread's stream) do not: the host knows. */
    asked = og_send_cuStreamIsCapturing(hStream, &status);
    if (asked == CUDA_SUCCESS && status == 0)
        set_capturing(hStream, false);
    return r;
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
    CUgraph graph;
    uint64_t count;
};

/* Asks the host; it names the graph and up to `room` dependencies with our numbers where they have none. */
static CUresult ask(CUstream stream, uint64_t graph, struct og_nodes *nodes, struct capture *info)
{
    OG_ON(number(stream));
    struct ow_orion_capture_info_in *in;
    const struct ow_orion_capture_info_out *out;
    struct og_call c;
    CUresult r = og_begin(&c, OW_OP_orion_capture_info, (uint32_t)sizeof(*in) + nodes->room * 8u);

    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    in->stream = number(stream);
    in->graph = graph;
    in->room = nodes->room;
    memcpy(in + 1, nodes->handle, nodes->room * sizeof(nodes->handle[0]));
    r = og_call(&c);
    if (r != CUDA_SUCCESS)
        return r;
    out = c.out;
    info->status = out->status;
    info->id = out->id;
    info->graph = (CUgraph)(uintptr_t)out->graph_id;
    info->count = out->count;
    og_nodes_settle(nodes, &c, sizeof(*out));
    return CUDA_SUCCESS;
}

static CUresult keep_deps(const struct og_nodes *nodes, uint64_t count, const CUgraphNode **deps)
{
    if (count > nodes->count)
        return CUDA_ERROR_NOT_SUPPORTED; /* more dependencies than one reply names */
    free(own_deps);
    own_deps = calloc(count + 1, sizeof(*own_deps));
    if (!own_deps)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(own_deps, nodes->handle, count * sizeof(*own_deps));
    *deps = own_deps;
    return CUDA_SUCCESS;
}

static CUresult capture_info(CUstream stream, struct capture *info, const CUgraphNode **deps)
{
    struct og_nodes nodes;
    uint64_t graph;
    CUresult r;

    *info = (struct capture){ 0 };
    if (atomic_load_explicit(&og_captures, memory_order_acquire) == 0)
        return check(stream);
    graph = og_mint(OW_KIND_GRAPH);
    if (!graph)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_nodes_mint(&nodes, deps ? OG_NODES_A_CALL : 0);
    if (r == CUDA_SUCCESS)
        r = ask(stream, graph, &nodes, info);
    if (r != CUDA_SUCCESS)
        og_nodes_drop(&nodes);
    if ((uint64_t)(uintptr_t)info->graph != graph)
        og_unmint(OW_KIND_GRAPH, graph);
    return r == CUDA_SUCCESS && deps ? keep_deps(&nodes, info->count, deps) : r;
}

OG_EXPORT CUresult cuStreamGetCaptureInfo_v2(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                             cuuint64_t *id_out, CUgraph *graph_out,
                                             const CUgraphNode **dependencies_out, size_t *numDependencies_out)
{
    struct capture info;
    CUresult r;

    if (!captureStatus_out)
        return CUDA_ERROR_INVALID_VALUE;
    r = capture_info(hStream, &info, dependencies_out);
    if (r != CUDA_SUCCESS)
        return r;
    *captureStatus_out = info.status;
    if (info.status != 1) /* the rest is written for an active capture only */
        return CUDA_SUCCESS;
    if (id_out)
        *id_out = info.id;
    if (graph_out)
        *graph_out = info.graph;
    if (numDependencies_out)
        *numDependencies_out = info.count;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamGetCaptureInfo(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                          cuuint64_t *id_out)
{
    return cuStreamGetCaptureInfo_v2(hStream, captureStatus_out, id_out, NULL, NULL, NULL);
}

OG_EXPORT CUresult cuStreamGetCaptureInfo_v3(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                             cuuint64_t *id_out, CUgraph *graph_out,
                                             const CUgraphNode **dependencies_out,
                                             const CUgraphEdgeData **edgeData_out, size_t *numDependencies_out)
{
    if (edgeData_out)
        *edgeData_out = NULL; /* no capture of ours makes edges with data */
    return cuStreamGetCaptureInfo_v2(hStream, captureStatus_out, id_out, graph_out, dependencies_out,
                                     numDependencies_out);
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
