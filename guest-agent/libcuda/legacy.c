/* SPDX-License-Identifier: Apache-2.0 */
/* The launch interface of CUDA 3, where a function holds its next launch, and 32-bit questions, over today's. */
#include <stdlib.h>
#include <string.h>

#include "modules.h"

#define OG_LEGACY_PARAMS 4096u /* what a kernel of those days could take */

struct og_legacy {
    unsigned block[3], shared, params_bytes;
    uint8_t params[OG_LEGACY_PARAMS];
};

static unsigned og_clamp(size_t value)
{
    return value < UINT32_MAX ? (unsigned)value : UINT32_MAX;
}

OG_EXPORT CUresult cuDeviceTotalMem(unsigned int *bytes, CUdevice dev)
{
    size_t all = 0;
    CUresult r = cuDeviceTotalMem_v2(bytes ? &all : NULL, dev);

    if (r == CUDA_SUCCESS)
        *bytes = og_clamp(all);
    return r;
}

OG_EXPORT CUresult cuMemGetInfo(unsigned int *free, unsigned int *total)
{
    size_t f = 0, t = 0;
    CUresult r = cuMemGetInfo_v2(free ? &f : NULL, total ? &t : NULL);

    if (r == CUDA_SUCCESS) {
        *free = og_clamp(f);
        *total = og_clamp(t);
    }
    return r;
}

OG_EXPORT CUresult cuMemAllocHost(void **pp, unsigned int bytesize)
{
    return cuMemAllocHost_v2(pp, bytesize);
}

/* The next launch of a function, made at its first mention. */
static struct og_legacy *og_legacy(CUfunction f, CUresult *r)
{
    struct og_entry *e;

    *r = og_check_init();
    if (*r != CUDA_SUCCESS)
        return NULL;
    e = og_entry((uintptr_t)f);
    *r = e ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    if (!e)
        return NULL;
    pthread_mutex_lock(&og_modules_lock);
    if (!e->legacy)
        e->legacy = calloc(1, sizeof(*e->legacy));
    if (!e->legacy)
        *r = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_unlock(&og_modules_lock);
    return e->legacy;
}

OG_EXPORT CUresult cuFuncSetBlockShape(CUfunction hfunc, int x, int y, int z)
{
    CUresult r;
    struct og_legacy *l = og_legacy(hfunc, &r);

    if (!l)
        return r;
    if (x < 1 || y < 1 || z < 1)
        return CUDA_ERROR_INVALID_VALUE;
    l->block[0] = (unsigned)x;
    l->block[1] = (unsigned)y;
    l->block[2] = (unsigned)z;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuFuncSetSharedSize(CUfunction hfunc, unsigned int bytes)
{
    CUresult r;
    struct og_legacy *l = og_legacy(hfunc, &r);

    if (l)
        l->shared = bytes;
    return r;
}

OG_EXPORT CUresult cuParamSetSize(CUfunction hfunc, unsigned int numbytes)
{
    CUresult r;
    struct og_legacy *l = og_legacy(hfunc, &r);

    if (!l)
        return r;
    if (numbytes > OG_LEGACY_PARAMS)
        return CUDA_ERROR_INVALID_VALUE;
    l->params_bytes = numbytes;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuParamSetv(CUfunction hfunc, int offset, void *ptr, unsigned int numbytes)
{
    CUresult r;
    struct og_legacy *l = og_legacy(hfunc, &r);

    if (!l)
        return r;
    if (offset < 0 || !ptr || numbytes > OG_LEGACY_PARAMS || (unsigned)offset > OG_LEGACY_PARAMS - numbytes)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(l->params + offset, ptr, numbytes);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuParamSeti(CUfunction hfunc, int offset, unsigned int value)
{
    return cuParamSetv(hfunc, offset, &value, sizeof(value));
}

OG_EXPORT CUresult cuParamSetf(CUfunction hfunc, int offset, float value)
{
    return cuParamSetv(hfunc, offset, &value, sizeof(value));
}

OG_EXPORT CUresult cuLaunchGridAsync(CUfunction f, int grid_width, int grid_height, CUstream hStream)
{
    CUresult r;
    struct og_legacy *l = og_legacy(f, &r);
    size_t bytes;
    void *extra[5];

    if (!l)
        return r;
    if (grid_width < 1 || grid_height < 1 || !l->block[0])
        return CUDA_ERROR_INVALID_VALUE;
    bytes = l->params_bytes;
    extra[0] = (void *)1; /* buffer */
    extra[1] = l->params;
    extra[2] = (void *)2; /* its size */
    extra[3] = &bytes;
    extra[4] = NULL;
    return cuLaunchKernel(f, (unsigned)grid_width, (unsigned)grid_height, 1, l->block[0], l->block[1], l->block[2],
                          l->shared, hStream, NULL, bytes ? extra : NULL);
}

OG_EXPORT CUresult cuLaunchGrid(CUfunction f, int grid_width, int grid_height)
{
    return cuLaunchGridAsync(f, grid_width, grid_height, NULL);
}

OG_EXPORT CUresult cuLaunch(CUfunction f)
{
    return cuLaunchGrid(f, 1, 1);
}
