/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: attributes that name no memory or handle, and capture. */
#include <stdlib.h>
#include <string.h>

#include "memory.h"

#define MAX_DEPS 112u /* what a completion slot holds beside the fixed part */

_Atomic int oh_captures;

/* Before the first capture of this client nothing can be captured: no question to the driver. */
bool oh_is_capturing(CUstream real)
{
    CUstreamCaptureStatus status = 0;

    if (atomic_load_explicit(&oh_captures, memory_order_relaxed) == 0)
        return false;
    return OH_CALL(cuStreamIsCapturing, real, &status) == CUDA_SUCCESS && status != 0;
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

/* A hint for the guest, no work of the application's: without it the guest asks. */
CUresult oh_orion_mark(struct oh_twin *t, const struct ow_orion_mark_in *in, uint32_t bytes,
                       struct ow_orion_mark_out *out, uint32_t *out_bytes)
{
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (in->index >= OC_NR_MARKS)
        return oh_fault(t, "mark %u of %u", in->index, OC_NR_MARKS);
    if (r == CUDA_SUCCESS && oh_config.region_fd >= 0 && !oh_is_capturing(stream))
        (void)OH_CALL(cuStreamWriteValue64_v2, stream, (CUdeviceptr)(uintptr_t)&oh_channel->marks[in->index],
                      in->value, 0);
    return r;
}

CUresult oh_cuStreamBeginCapture_v2(struct oh_twin *t, const struct ow_cuStreamBeginCapture_v2_in *in, uint32_t bytes,
                                    struct ow_cuStreamBeginCapture_v2_out *out, uint32_t *out_bytes)
{
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->hStream, &stream);

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (r != CUDA_SUCCESS)
        return r;
    atomic_store(&oh_captures, 1);
    return OH_CALL(cuStreamBeginCapture_v2, stream, in->mode);
}

CUresult oh_cuStreamEndCapture(struct oh_twin *t, const struct ow_cuStreamEndCapture_in *in, uint32_t bytes,
                               struct ow_cuStreamEndCapture_out *out, uint32_t *out_bytes)
{
    CUgraph graph = NULL;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->hStream, &stream);

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuStreamEndCapture, stream, &graph);
    if (r != CUDA_SUCCESS)
        return r;
    return graph ? oh_put(OW_KIND_GRAPH, in->phGraph, graph) : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

CUresult oh_orion_capture_mode(struct oh_twin *t, const struct ow_orion_capture_mode_in *in, uint32_t bytes,
                               struct ow_orion_capture_mode_out *out, uint32_t *out_bytes)
{
    CUstreamCaptureMode mode = in->mode;

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    return OH_CALL(cuThreadExchangeStreamCaptureMode, &mode);
}

/* Names the captured graph and its dependencies; candidates[] become the numbers of those without one. */
static CUresult name_capture(CUgraph graph, uint64_t graph_id, const CUgraphNode *deps, size_t nr_deps,
                             const uint64_t *candidates, uint32_t room, struct ow_orion_capture_info_out *out,
                             uint64_t *answer)
{
    CUresult r = CUDA_SUCCESS;
    uint32_t used = 0;

    out->graph_id = oh_find(OW_KIND_GRAPH, graph);
    if (!out->graph_id) {
        out->graph_id = graph_id;
        r = oh_put(OW_KIND_GRAPH, graph_id, graph);
    }
    for (size_t i = 0; i < nr_deps && i < room && r == CUDA_SUCCESS; i++) {
        answer[i] = oh_find(OW_KIND_GRAPH_NODE, deps[i]);
        if (answer[i])
            continue;
        answer[i] = candidates[used++];
        r = oh_put(OW_KIND_GRAPH_NODE, answer[i], deps[i]);
        if (r == CUDA_SUCCESS)
            oh_set_data(OW_KIND_GRAPH_NODE, answer[i], graph);
    }
    return r;
}

CUresult oh_orion_capture_info(struct oh_twin *t, const struct ow_orion_capture_info_in *in, uint32_t bytes,
                               struct ow_orion_capture_info_out *out, uint32_t *out_bytes)
{
    CUstreamCaptureStatus status = 0;
    const CUgraphNode *deps = NULL;
    CUgraph graph = NULL;
    cuuint64_t id = 0;
    size_t count = 0;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)t;
    if (in->room > MAX_DEPS || bytes < sizeof(*in) + in->room * sizeof(uint64_t))
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuStreamGetCaptureInfo_v2, stream, &status, &id, &graph, &deps, &count);
    if (r != CUDA_SUCCESS)
        return r;
    memset(out, 0, sizeof(*out));
    out->status = status;
    out->id = id;
    out->count = (uint32_t)count;
    *out_bytes = sizeof(*out);
    if (status != 1 || !graph)
        return CUDA_SUCCESS;
    *out_bytes += (uint32_t)(count < in->room ? count : in->room) * (uint32_t)sizeof(uint64_t);
    return name_capture(graph, in->graph, deps, count, (const uint64_t *)(in + 1), in->room, out,
                        (uint64_t *)(out + 1));
}

/* Those attributes of a stream that hold numbers only; the window's address is a hint, never followed. */
static bool attribute_carried(CUstreamAttrID attribute)
{
    switch (attribute) {
    case 1:  /* ACCESS_POLICY_WINDOW */
    case 3:  /* SYNCHRONIZATION_POLICY */
    case 8:  /* PRIORITY */
    case 9:  /* MEM_SYNC_DOMAIN_MAP */
    case 10: /* MEM_SYNC_DOMAIN */
        return true;
    default:
        return false;
    }
}

CUresult oh_cuStreamGetAttribute(struct oh_twin *t, const struct ow_cuStreamGetAttribute_in *in, uint32_t bytes,
                                 struct ow_cuStreamGetAttribute_out *out, uint32_t *out_bytes)
{
    CUstreamAttrValue value;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->hStream, &stream);

    (void)t;
    (void)bytes;
    memset(&value, 0, sizeof(value));
    if (r == CUDA_SUCCESS)
        r = attribute_carried(in->attr) ? OH_CALL(cuStreamGetAttribute, stream, in->attr, &value)
                                        : CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    out->value_bytes = sizeof(value);
    memcpy(out + 1, &value, sizeof(value));
    *out_bytes = (uint32_t)(sizeof(*out) + sizeof(value));
    return CUDA_SUCCESS;
}

CUresult oh_cuStreamSetAttribute(struct oh_twin *t, const struct ow_cuStreamSetAttribute_in *in, uint32_t bytes,
                                 struct ow_cuStreamSetAttribute_out *out, uint32_t *out_bytes)
{
    CUstreamAttrValue value;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->hStream, &stream);

    (void)t;
    (void)out;
    (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(value))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&value, in + 1, sizeof(value));
    if (r == CUDA_SUCCESS)
        r = attribute_carried(in->attr) ? OH_CALL(cuStreamSetAttribute, stream, in->attr, &value)
                                        : CUDA_ERROR_INVALID_VALUE;
    return r;
}
