/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA arrays in the client: parts of an array's storage have handles that end with it; copies of one row of one. */
#include "gen/send.h"
#include "graph.h"

#define LEGACY ((CUstream)0)

/* ---- parts: levels of mipmapped arrays, planes ---- */

/* The host names the part with our number if it has none yet; the number that was not needed goes back. */
static CUresult part_settle(CUresult r, uint64_t minted, CUarray answer, uint64_t owner, CUarray *part)
{
    if (r != CUDA_SUCCESS || (uint64_t)(uintptr_t)answer != minted)
        og_unmint(OW_KIND_ARRAY, minted);
    if (r != CUDA_SUCCESS)
        return r;
    og_set_data((uint64_t)(uintptr_t)answer, (void *)(uintptr_t)owner);
    *part = answer;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuMipmappedArrayGetLevel(CUarray *pLevelArray, CUmipmappedArray hMipmappedArray, unsigned int level)
{
    uint64_t minted = pLevelArray ? og_mint(OW_KIND_ARRAY) : 0;
    CUarray answer = (CUarray)(uintptr_t)minted;
    CUresult r;

    if (!minted)
        return pLevelArray ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    r = og_send_cuMipmappedArrayGetLevel(&answer, hMipmappedArray, level);
    return part_settle(r, minted, answer, (uint64_t)(uintptr_t)hMipmappedArray, pLevelArray);
}

OG_EXPORT CUresult cuArrayGetPlane(CUarray *pPlaneArray, CUarray hArray, unsigned int planeIdx)
{
    uint64_t minted = pPlaneArray ? og_mint(OW_KIND_ARRAY) : 0;
    CUarray answer = (CUarray)(uintptr_t)minted;
    CUresult r;

    if (!minted)
        return pPlaneArray ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    r = og_send_cuArrayGetPlane(&answer, hArray, planeIdx);
    return part_settle(r, minted, answer, (uint64_t)(uintptr_t)hArray, pPlaneArray);
}

static void forget_part(uint64_t handle, void *data, void *owner)
{
    if (data && data == owner)
        og_unmint(OW_KIND_ARRAY, handle);
}

OG_EXPORT CUresult cuArrayDestroy(CUarray hArray)
{
    CUresult r = og_send_cuArrayDestroy(hArray);

    if (r != CUDA_SUCCESS)
        return r;
    og_each(OW_KIND_ARRAY, forget_part, hArray);
    og_unmint(OW_KIND_ARRAY, (uint64_t)(uintptr_t)hArray);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray)
{
    CUresult r = og_send_cuMipmappedArrayDestroy(hMipmappedArray);

    if (r != CUDA_SUCCESS)
        return r;
    og_each(OW_KIND_ARRAY, forget_part, hMipmappedArray);
    og_unmint(OW_KIND_MIPMAPPED_ARRAY, (uint64_t)(uintptr_t)hMipmappedArray);
    return CUDA_SUCCESS;
}

/* A list longer than a command holds goes in parts, in its order. */
OG_EXPORT CUresult cuMemMapArrayAsync(CUarrayMapInfo *mapInfoList, unsigned int count, CUstream hStream)
{
    unsigned most = (unsigned)((OG_MAX_PAYLOAD - sizeof(struct ow_cuMemMapArrayAsync_in)) / sizeof(*mapInfoList));
    CUresult r;

    for (; count > most; count -= most, mapInfoList += most) {
        r = og_send_cuMemMapArrayAsync(mapInfoList, most, hStream);
        if (r != CUDA_SUCCESS)
            return r;
    }
    return og_send_cuMemMapArrayAsync(mapInfoList, count, hStream);
}

/* ---- copies of one row: a box of height 1 ---- */

static CUDA_MEMCPY3D row(size_t bytes)
{
    return (CUDA_MEMCPY3D){ .WidthInBytes = bytes, .Height = 1, .Depth = 1 };
}

static CUresult to_array(CUarray dst, size_t at, const void *host, size_t bytes, CUstream stream, bool sync)
{
    CUDA_MEMCPY3D p = row(bytes);

    p.srcMemoryType = OC_MEMORY_HOST;
    p.srcHost = host;
    p.dstMemoryType = OC_MEMORY_ARRAY;
    p.dstArray = dst;
    p.dstXInBytes = at;
    return og_copy_box(&p, stream, sync, false);
}

static CUresult from_array(void *host, CUarray src, size_t at, size_t bytes, CUstream stream, bool sync)
{
    CUDA_MEMCPY3D p = row(bytes);

    p.srcMemoryType = OC_MEMORY_ARRAY;
    p.srcArray = src;
    p.srcXInBytes = at;
    p.dstMemoryType = OC_MEMORY_HOST;
    p.dstHost = host;
    return og_copy_box(&p, stream, sync, false);
}

static CUresult device_to_array(CUarray dst, size_t at, CUdeviceptr src, size_t bytes, CUstream stream, bool sync)
{
    CUDA_MEMCPY3D p = row(bytes);

    p.srcMemoryType = OC_MEMORY_DEVICE;
    p.srcDevice = src;
    p.dstMemoryType = OC_MEMORY_ARRAY;
    p.dstArray = dst;
    p.dstXInBytes = at;
    return og_copy_box(&p, stream, sync, false);
}

static CUresult array_to_device(CUdeviceptr dst, CUarray src, size_t at, size_t bytes, CUstream stream, bool sync)
{
    CUDA_MEMCPY3D p = row(bytes);

    p.srcMemoryType = OC_MEMORY_ARRAY;
    p.srcArray = src;
    p.srcXInBytes = at;
    p.dstMemoryType = OC_MEMORY_DEVICE;
    p.dstDevice = dst;
    return og_copy_box(&p, stream, sync, false);
}

static CUresult array_to_array(const CUDA_MEMCPY3D *ends, size_t bytes, CUstream stream, bool sync)
{
    CUDA_MEMCPY3D p = row(bytes);

    p.srcMemoryType = p.dstMemoryType = OC_MEMORY_ARRAY;
    p.srcArray = ends->srcArray;
    p.srcXInBytes = ends->srcXInBytes;
    p.dstArray = ends->dstArray;
    p.dstXInBytes = ends->dstXInBytes;
    return og_copy_box(&p, stream, sync, false);
}

/* The exported functions, and what their variants for per-thread default streams do. */

OG_EXPORT CUresult cuMemcpyHtoA_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount)
{
    return to_array(dstArray, dstOffset, srcHost, ByteCount, LEGACY, true);
}

OG_EXPORT CUresult cuMemcpyHtoAAsync_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount,
                                        CUstream hStream)
{
    return to_array(dstArray, dstOffset, srcHost, ByteCount, hStream, false);
}

OG_EXPORT CUresult cuMemcpyAtoH_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
    return from_array(dstHost, srcArray, srcOffset, ByteCount, LEGACY, true);
}

OG_EXPORT CUresult cuMemcpyAtoHAsync_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount,
                                        CUstream hStream)
{
    return from_array(dstHost, srcArray, srcOffset, ByteCount, hStream, false);
}

OG_EXPORT CUresult cuMemcpyDtoA_v2(CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice, size_t ByteCount)
{
    return device_to_array(dstArray, dstOffset, srcDevice, ByteCount, LEGACY, true);
}

CUresult og_memcpy_DtoA_async(CUarray dst, size_t at, CUdeviceptr src, size_t bytes, CUstream stream)
{
    return device_to_array(dst, at, src, bytes, stream, false);
}

OG_EXPORT CUresult cuMemcpyAtoD_v2(CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
    return array_to_device(dstDevice, srcArray, srcOffset, ByteCount, LEGACY, true);
}

CUresult og_memcpy_AtoD_async(CUdeviceptr dst, CUarray src, size_t at, size_t bytes, CUstream stream)
{
    return array_to_device(dst, src, at, bytes, stream, false);
}

OG_EXPORT CUresult cuMemcpyAtoA_v2(CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset,
                                   size_t ByteCount)
{
    CUDA_MEMCPY3D ends = { .dstArray = dstArray, .dstXInBytes = dstOffset, .srcArray = srcArray,
                           .srcXInBytes = srcOffset };

    return array_to_array(&ends, ByteCount, LEGACY, true);
}

CUresult og_memcpy_AtoA_async(CUarray dst, size_t dst_at, CUarray src, size_t src_at, size_t bytes, CUstream stream)
{
    CUDA_MEMCPY3D ends = { .dstArray = dst, .dstXInBytes = dst_at, .srcArray = src, .srcXInBytes = src_at };

    return array_to_array(&ends, bytes, stream, false);
}

/* ---- of CUDA 3.0 ---- */

OG_EXPORT CUresult cuMemcpyHtoA(CUarray dstArray, unsigned int dstOffset, const void *srcHost, unsigned int ByteCount)
{
    return cuMemcpyHtoA_v2(dstArray, dstOffset, srcHost, ByteCount);
}

OG_EXPORT CUresult cuMemcpyHtoAAsync(CUarray dstArray, unsigned int dstOffset, const void *srcHost,
                                     unsigned int ByteCount, CUstream hStream)
{
    return cuMemcpyHtoAAsync_v2(dstArray, dstOffset, srcHost, ByteCount, hStream);
}

OG_EXPORT CUresult cuMemcpyAtoH(void *dstHost, CUarray srcArray, unsigned int srcOffset, unsigned int ByteCount)
{
    return cuMemcpyAtoH_v2(dstHost, srcArray, srcOffset, ByteCount);
}

OG_EXPORT CUresult cuMemcpyAtoHAsync(void *dstHost, CUarray srcArray, unsigned int srcOffset, unsigned int ByteCount,
                                     CUstream hStream)
{
    return cuMemcpyAtoHAsync_v2(dstHost, srcArray, srcOffset, ByteCount, hStream);
}

OG_EXPORT CUresult cuMemcpyAtoA(CUarray dstArray, unsigned int dstOffset, CUarray srcArray, unsigned int srcOffset,
                                unsigned int ByteCount)
{
    return cuMemcpyAtoA_v2(dstArray, dstOffset, srcArray, srcOffset, ByteCount);
}

OG_EXPORT CUresult cuArrayCreate(CUarray *pHandle, const CUDA_ARRAY_DESCRIPTOR_v1 *pAllocateArray)
{
    const CUDA_ARRAY_DESCRIPTOR_v1 *d = pAllocateArray;
    CUDA_ARRAY_DESCRIPTOR wide;

    if (!d)
        return CUDA_ERROR_INVALID_VALUE;
    wide = (CUDA_ARRAY_DESCRIPTOR){ .Width = d->Width, .Height = d->Height, .Format = d->Format,
                                    .NumChannels = d->NumChannels };
    return cuArrayCreate_v2(pHandle, &wide);
}

OG_EXPORT CUresult cuArray3DCreate(CUarray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR_v1 *pAllocateArray)
{
    const CUDA_ARRAY3D_DESCRIPTOR_v1 *d = pAllocateArray;
    CUDA_ARRAY3D_DESCRIPTOR wide;

    if (!d)
        return CUDA_ERROR_INVALID_VALUE;
    wide = (CUDA_ARRAY3D_DESCRIPTOR){ .Width = d->Width, .Height = d->Height, .Depth = d->Depth, .Format = d->Format,
                                      .NumChannels = d->NumChannels, .Flags = d->Flags };
    return cuArray3DCreate_v2(pHandle, &wide);
}

OG_EXPORT CUresult cuArray3DGetDescriptor(CUDA_ARRAY3D_DESCRIPTOR_v1 *pArrayDescriptor, CUarray hArray)
{
    CUDA_ARRAY3D_DESCRIPTOR wide;
    CUresult r = pArrayDescriptor ? cuArray3DGetDescriptor_v2(&wide, hArray) : CUDA_ERROR_INVALID_VALUE;

    if (r != CUDA_SUCCESS)
        return r;
    *pArrayDescriptor = (CUDA_ARRAY3D_DESCRIPTOR_v1){ (unsigned)wide.Width, (unsigned)wide.Height, (unsigned)wide.Depth,
                                                      wide.Format, wide.NumChannels, wide.Flags };
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuArrayGetDescriptor(CUDA_ARRAY_DESCRIPTOR_v1 *pArrayDescriptor, CUarray hArray)
{
    CUDA_ARRAY3D_DESCRIPTOR_v1 deep;
    CUresult r = pArrayDescriptor ? cuArray3DGetDescriptor(&deep, hArray) : CUDA_ERROR_INVALID_VALUE;

    if (r == CUDA_SUCCESS)
        *pArrayDescriptor = (CUDA_ARRAY_DESCRIPTOR_v1){ deep.Width, deep.Height, deep.Format, deep.NumChannels };
    return r;
}
