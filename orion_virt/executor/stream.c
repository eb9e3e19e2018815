/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: attributes that name no memory or handle. */
#include <stdlib.h>
#include <string.h>

#include "memory.h"

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
