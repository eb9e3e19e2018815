/* SPDX-License-Identifier: Apache-2.0 */
/* One cooperative launch over several devices. */
#include <orion/bulk.h>
#include <stdlib.h>

#include "launch.h"

/* What follows in the command. */
struct rest {
    uint8_t *at;
    uint64_t left;
};

/* The next launch as the driver wants it, its parameters in our copy of the command; free(p->kernelParams). */
static CUresult next(struct oh_twin *t, struct rest *rest, CUDA_LAUNCH_PARAMS *p)
{
    struct oc_launch_one one;
    struct oh_function *f;
    void *real, *stream;
    CUresult r;

    if (rest->left < sizeof(one))
        return OH_FAULT;
    memcpy(&one, rest->at, sizeof(one));
    rest->at += sizeof(one);
    rest->left -= sizeof(one);
    if (ow_align(one.params_bytes) > rest->left)
        return OH_FAULT;
    r = oh_function_get(one.function, &real, &f);
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_STREAM, one.stream, &stream);
    if (r == CUDA_SUCCESS)
        r = oh_function_room(t->device, t->stack_slot, one.function, real, f);
    if (r == CUDA_SUCCESS && one.params_bytes < f->params_bytes)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    *p = (CUDA_LAUNCH_PARAMS){ real, one.grid[0], one.grid[1], one.grid[2], one.block[0], one.block[1], one.block[2],
                               one.shared_bytes, stream, calloc(f->nr_params + 1u, sizeof(void *)) };
    if (!p->kernelParams)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < f->nr_params; i++)
        p->kernelParams[i] = rest->at + f->offset[i];
    rest->at += ow_align(one.params_bytes);
    rest->left -= ow_align(one.params_bytes);
    return CUDA_SUCCESS;
}

CUresult oh_orion_launch_multi(struct oh_twin *t, const struct ow_orion_launch_multi_in *in, uint32_t bytes,
                               struct ow_orion_launch_multi_out *out, uint32_t *out_bytes)
{
    struct rest rest = { (uint8_t *)(uintptr_t)(in + 1), in->launches_bytes };
    CUDA_LAUNCH_PARAMS launches[OC_MAX_DEVICES] = { 0 };
    CUresult r = CUDA_SUCCESS;

    (void)out, (void)out_bytes;
    if (in->launches_bytes > bytes - sizeof(*in) || !in->count || in->count > OC_MAX_DEVICES)
        return oh_fault(t, "%u launches in %u bytes", in->count, in->launches_bytes);
    for (uint32_t i = 0; r == CUDA_SUCCESS && i < in->count; i++)
        r = next(t, &rest, &launches[i]);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuLaunchCooperativeKernelMultiDevice, launches, in->count, in->flags);
    else if (r == OH_FAULT)
        r = oh_fault(t, "a launch of %u beyond its command", in->count);
    for (uint32_t i = 0; i < in->count; i++)
        free(launches[i].kernelParams);
    return r;
}
