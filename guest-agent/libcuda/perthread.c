/* SPDX-License-Identifier: Apache-2.0 */
/* Per-thread default stream variants of calls that name no stream: they act on the thread's own. */
#include "memory.h"

#define PER_THREAD ((CUstream)2)

OG_EXPORT CUresult cuMemsetD8_v2_ptds(CUdeviceptr dstDevice, unsigned char uc, size_t N)
{
    return cuMemsetD8Async(dstDevice, uc, N, PER_THREAD);
}

OG_EXPORT CUresult cuMemsetD16_v2_ptds(CUdeviceptr dstDevice, unsigned short us, size_t N)
{
    return cuMemsetD16Async(dstDevice, us, N, PER_THREAD);
}

OG_EXPORT CUresult cuMemsetD32_v2_ptds(CUdeviceptr dstDevice, unsigned int ui, size_t N)
{
    return cuMemsetD32Async(dstDevice, ui, N, PER_THREAD);
}

OG_EXPORT CUresult cuMemsetD2D8_v2_ptds(CUdeviceptr dstDevice, size_t dstPitch, unsigned char uc, size_t Width,
                                        size_t Height)
{
    return cuMemsetD2D8Async(dstDevice, dstPitch, uc, Width, Height, PER_THREAD);
}

OG_EXPORT CUresult cuMemsetD2D16_v2_ptds(CUdeviceptr dstDevice, size_t dstPitch, unsigned short us, size_t Width,
                                         size_t Height)
{
    return cuMemsetD2D16Async(dstDevice, dstPitch, us, Width, Height, PER_THREAD);
}

OG_EXPORT CUresult cuMemsetD2D32_v2_ptds(CUdeviceptr dstDevice, size_t dstPitch, unsigned int ui, size_t Width,
                                         size_t Height)
{
    return cuMemsetD2D32Async(dstDevice, dstPitch, ui, Width, Height, PER_THREAD);
}
