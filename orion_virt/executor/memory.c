/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory: what is left of the quota, pitched allocations, ranges. */
#include "extra.h"
#include "memory.h"

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
    used = oh_extra_fresh(t->device);
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
