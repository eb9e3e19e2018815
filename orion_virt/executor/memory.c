/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory: what is left of the quota, pitched allocations, arrays, ranges. */
#include "memory.h"
#include "gen/checks.h"

#define PITCH_ALIGN 512u /* what the driver rounds rows to, for the booking before it says so */

CUresult oh_cuMemGetInfo_v2(struct oh_twin *t, const struct ow_cuMemGetInfo_v2_in *in, uint32_t bytes,
                            struct ow_cuMemGetInfo_v2_out *out, uint32_t *out_bytes)
{
    struct oh_device *d;
    size_t real_free, real_total;
    uint64_t used, left;
    CUresult r;

    (void)in;
    (void)bytes;
    if (t->device < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    r = OH_CALL(cuMemGetInfo_v2, &real_free, &real_total);
    if (r != CUDA_SUCCESS)
        return r;
    d = &oh_devices[t->device];
    used = atomic_load(&d->used_bytes);
    left = used < d->limit_bytes ? d->limit_bytes - used : 0;
    out->total = d->limit_bytes;
    out->free = left < real_free ? left : real_free; /* a card that others fill has less than the quota */
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_cuMemAllocPitch_v2(struct oh_twin *t, const struct ow_cuMemAllocPitch_v2_in *in, uint32_t bytes,
                               struct ow_cuMemAllocPitch_v2_out *out, uint32_t *out_bytes)
{
    uint64_t row, booked;
    CUdeviceptr p = 0;
    size_t pitch = 0;
    CUresult r;

    (void)bytes;
    if (t->device < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (__builtin_add_overflow(in->WidthInBytes, PITCH_ALIGN - 1, &row) ||
        __builtin_mul_overflow(row & ~(uint64_t)(PITCH_ALIGN - 1), in->Height, &booked))
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = oh_book(t->device, booked);
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuMemAllocPitch_v2, &p, &pitch, in->WidthInBytes, in->Height, in->ElementSizeBytes);
    if (r != CUDA_SUCCESS) {
        oh_unbook(t->device, booked);
        return r;
    }
    oh_ledger_add(p, pitch * in->Height, t->device, booked);
    out->dptr = p;
    out->pPitch = pitch;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_cuMemGetAddressRange_v2(struct oh_twin *t, const struct ow_cuMemGetAddressRange_v2_in *in, uint32_t bytes,
                                    struct ow_cuMemGetAddressRange_v2_out *out, uint32_t *out_bytes)
{
    int device;

    (void)t;
    (void)bytes;
    if (!oh_ledger_find(in->dptr, &out->pbase, &out->psize, &device))
        return CUDA_ERROR_NOT_FOUND;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

/* Waits for everything, so that host memory may serve another purpose. Errors are the contexts' own
 * and reach the guest where it waits for its work. */
CUresult oh_orion_host_sync(struct oh_twin *t, const struct ow_orion_host_sync_in *in, uint32_t bytes,
                            struct ow_orion_host_sync_out *out, uint32_t *out_bytes)
{
    CUcontext current = NULL;

    (void)t;
    (void)in;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    OH_CALL(cuCtxGetCurrent, &current);
    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        if (!oh_devices[i].context)
            continue;
        if (oh_devices[i].context != current)
            OH_CALL(cuCtxSetCurrent, oh_devices[i].context);
        oh_drv.cuCtxSynchronize();
        if (oh_devices[i].context != current)
            OH_CALL(cuCtxSetCurrent, current);
    }
    return CUDA_SUCCESS;
}

/* ---- arrays: opaque, so the booking is the size of their texels ---- */

static uint64_t texel_bytes(unsigned format)
{
    switch (format) {
    case 0x01: /* UNSIGNED_INT8 */
    case 0x08: /* SIGNED_INT8 */
        return 1;
    case 0x02: /* UNSIGNED_INT16 */
    case 0x09: /* SIGNED_INT16 */
    case 0x10: /* HALF */
        return 2;
    case 0x03: /* UNSIGNED_INT32 */
    case 0x0a: /* SIGNED_INT32 */
    case 0x20: /* FLOAT */
        return 4;
    default:
        return 16; /* block formats: no more than this */
    }
}

/* Saturates: what overflows is over every quota. */
static uint64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    uint64_t bytes = texel_bytes(d->Format) * (d->NumChannels ? d->NumChannels : 1);

    bytes = oh_array_bytes(bytes, d->Width ? d->Width : 1);
    bytes = oh_array_bytes(bytes, d->Height ? d->Height : 1);
    return oh_array_bytes(bytes, d->Depth ? d->Depth : 1);
}

static CUresult array_keep(struct oh_twin *t, uint64_t id, CUresult made, CUarray array, uint64_t booked)
{
    CUresult r = made;

    if (r == CUDA_SUCCESS) {
        r = oh_put(OW_KIND_ARRAY, id, array);
        if (r != CUDA_SUCCESS)
            OH_CALL(cuArrayDestroy, array);
    }
    if (r != CUDA_SUCCESS)
        oh_unbook(t->device, booked);
    else /* device in the low bits: bookings are of whole texels, sizes below 2^48 */
        oh_set_data(OW_KIND_ARRAY, id, (void *)(uintptr_t)(booked << 8 | (uint64_t)(uint8_t)t->device));
    return r;
}

CUresult oh_cuArrayCreate_v2(struct oh_twin *t, const struct ow_cuArrayCreate_v2_in *in, uint32_t bytes,
                             struct ow_cuArrayCreate_v2_out *out, uint32_t *out_bytes)
{
    const CUDA_ARRAY_DESCRIPTOR *d = (const void *)(in + 1);
    CUDA_ARRAY3D_DESCRIPTOR wide = { 0 };
    CUarray array = NULL;
    CUresult r;

    (void)out;
    (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(*d) || t->device < 0)
        return CUDA_ERROR_INVALID_VALUE;
    wide.Width = d->Width;
    wide.Height = d->Height;
    wide.Format = d->Format;
    wide.NumChannels = d->NumChannels;
    r = oh_book(t->device, array_bytes(&wide));
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuArrayCreate_v2, &array, d);
    return array_keep(t, in->pHandle, r, array, array_bytes(&wide));
}

CUresult oh_cuArray3DCreate_v2(struct oh_twin *t, const struct ow_cuArray3DCreate_v2_in *in, uint32_t bytes,
                               struct ow_cuArray3DCreate_v2_out *out, uint32_t *out_bytes)
{
    const CUDA_ARRAY3D_DESCRIPTOR *d = (const void *)(in + 1);
    CUarray array = NULL;
    CUresult r;

    (void)out;
    (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(*d) || t->device < 0)
        return CUDA_ERROR_INVALID_VALUE;
    r = oh_book(t->device, array_bytes(d));
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuArray3DCreate_v2, &array, d);
    return array_keep(t, in->pHandle, r, array, array_bytes(d));
}

CUresult oh_cuArrayDestroy(struct oh_twin *t, const struct ow_cuArrayDestroy_in *in, uint32_t bytes,
                           struct ow_cuArrayDestroy_out *out, uint32_t *out_bytes)
{
    uint64_t booked = (uint64_t)(uintptr_t)oh_data(OW_KIND_ARRAY, in->hArray);
    void *array;
    CUresult r = oh_get(OW_KIND_ARRAY, in->hArray, &array);

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuArrayDestroy, array);
    if (r != CUDA_SUCCESS)
        return r;
    oh_del(OW_KIND_ARRAY, in->hArray);
    oh_unbook((int)(booked & 0xff), booked >> 8);
    return CUDA_SUCCESS;
}
