/* SPDX-License-Identifier: Apache-2.0 */
/* One cooperative launch over several devices: all of it in one command, so that the driver starts it as one. */
#include <string.h>

#include <orion/bulk.h>

#include "gen/send.h"
#include "launch.h"

/* Room that one launch takes; 0: something in it cannot be. */
static uint64_t og_one_bytes(const CUDA_LAUNCH_PARAMS *p, CUresult *r)
{
    const struct og_function *f = og_function((uintptr_t)p->function);

    *r = !f ? og_no_function() : !og_stream_valid((uintptr_t)p->hStream) ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
    if (*r == CUDA_SUCCESS && f->nr_params && !p->kernelParams)
        *r = CUDA_ERROR_INVALID_VALUE;
    return *r == CUDA_SUCCESS ? sizeof(struct oc_launch_one) + ow_align(f->params_bytes) : 0;
}

static uint8_t *og_one_put(const CUDA_LAUNCH_PARAMS *p, uint8_t *to)
{
    const struct og_function *f = og_function((uintptr_t)p->function);
    struct oc_launch_one one = { .function = f->handle,
                                 .stream = (uintptr_t)p->hStream,
                                 .grid = { p->gridDimX, p->gridDimY, p->gridDimZ },
                                 .block = { p->blockDimX, p->blockDimY, p->blockDimZ },
                                 .shared_bytes = p->sharedMemBytes,
                                 .params_bytes = f->params_bytes };

    memcpy(to, &one, sizeof(one));
    to += sizeof(one);
    memset(to, 0, ow_align(f->params_bytes));
    for (unsigned i = 0; i < f->nr_params; i++)
        memcpy(to + f->offset[i], p->kernelParams[i], f->size[i]);
    return to + ow_align(f->params_bytes);
}

OG_EXPORT CUresult cuLaunchCooperativeKernelMultiDevice(CUDA_LAUNCH_PARAMS *launchParamsList, unsigned int numDevices,
                                                        unsigned int flags)
{
    uint8_t all[OG_MAX_PAYLOAD], *end = all;
    uint64_t bytes = 0;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!launchParamsList || !numDevices || numDevices > OC_MAX_DEVICES)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; r == CUDA_SUCCESS && i < numDevices; i++)
        bytes += og_one_bytes(&launchParamsList[i], &r);
    if (r == CUDA_SUCCESS && bytes > sizeof(all) - sizeof(struct ow_orion_launch_multi_in))
        r = CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; r == CUDA_SUCCESS && i < numDevices; i++)
        end = og_one_put(&launchParamsList[i], end);
    return r == CUDA_SUCCESS ? og_send_orion_launch_multi(numDevices, flags, (uint32_t)bytes, all) : r;
}
