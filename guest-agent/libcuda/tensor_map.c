/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor maps: the host's driver computes the 128 bytes, which travel in kernel parameters. */
#include <string.h>

#include "client.h"
#include "gen/send.h"

#define OG_MAX_RANK 5u

OG_EXPORT CUresult cuTensorMapEncodeTiled(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType,
                                          cuuint32_t tensorRank, void *globalAddress, const cuuint64_t *globalDim,
                                          const cuuint64_t *globalStrides, const cuuint32_t *boxDim,
                                          const cuuint32_t *elementStrides, CUtensorMapInterleave interleave,
                                          CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2Promotion,
                                          CUtensorMapFloatOOBfill oobFill)
{
    cuuint64_t strides[OG_MAX_RANK] = { 0 };

    if (!tensorRank || tensorRank > OG_MAX_RANK || (tensorRank > 1 && !globalStrides))
        return CUDA_ERROR_INVALID_VALUE;
    /* the innermost stride is implied: the application's array has one element less than the command's */
    if (tensorRank > 1)
        memcpy(strides, globalStrides, (tensorRank - 1) * sizeof(strides[0]));
    return og_send_cuTensorMapEncodeTiled(tensorMap, tensorDataType, tensorRank, globalAddress, globalDim, strides,
                                          boxDim, elementStrides, interleave, swizzle, l2Promotion, oobFill);
}

OG_EXPORT CUresult cuTensorMapEncodeIm2col(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType,
                                           cuuint32_t tensorRank, void *globalAddress, const cuuint64_t *globalDim,
                                           const cuuint64_t *globalStrides, const int *pixelBoxLowerCorner,
                                           const int *pixelBoxUpperCorner, cuuint32_t channelsPerPixel,
                                           cuuint32_t pixelsPerColumn, const cuuint32_t *elementStrides,
                                           CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                           CUtensorMapL2promotion l2Promotion, CUtensorMapFloatOOBfill oobFill)
{
    cuuint64_t strides[OG_MAX_RANK] = { 0 };
    int lower[OG_MAX_RANK] = { 0 }, upper[OG_MAX_RANK] = { 0 };

    if (tensorRank < 3 || tensorRank > OG_MAX_RANK || !globalStrides || !pixelBoxLowerCorner || !pixelBoxUpperCorner)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(strides, globalStrides, (tensorRank - 1) * sizeof(strides[0]));
    memcpy(lower, pixelBoxLowerCorner, (tensorRank - 2) * sizeof(lower[0])); /* none of batch and channels */
    memcpy(upper, pixelBoxUpperCorner, (tensorRank - 2) * sizeof(upper[0]));
    return og_send_cuTensorMapEncodeIm2col(tensorMap, tensorDataType, tensorRank, globalAddress, globalDim, strides,
                                           lower, upper, channelsPerPixel, pixelsPerColumn, elementStrides, interleave,
                                           swizzle, l2Promotion, oobFill);
}

OG_EXPORT CUresult cuTensorMapEncodeIm2colWide(CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType,
                                               cuuint32_t tensorRank, void *globalAddress, const cuuint64_t *globalDim,
                                               const cuuint64_t *globalStrides, int pixelBoxLowerCornerWidth,
                                               int pixelBoxUpperCornerWidth, cuuint32_t channelsPerPixel,
                                               cuuint32_t pixelsPerColumn, const cuuint32_t *elementStrides,
                                               CUtensorMapInterleave interleave, CUtensorMapIm2ColWideMode mode,
                                               CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2Promotion,
                                               CUtensorMapFloatOOBfill oobFill)
{
    cuuint64_t strides[OG_MAX_RANK] = { 0 };

    if (tensorRank < 3 || tensorRank > OG_MAX_RANK || !globalStrides)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(strides, globalStrides, (tensorRank - 1) * sizeof(strides[0]));
    return og_send_cuTensorMapEncodeIm2colWide(tensorMap, tensorDataType, tensorRank, globalAddress, globalDim, strides,
                                               pixelBoxLowerCornerWidth, pixelBoxUpperCornerWidth, channelsPerPixel,
                                               pixelsPerColumn, elementStrides, interleave, mode, swizzle, l2Promotion,
                                               oobFill);
}

enum { NEW_ADDRESS = 0, NEW_CLASS = 1 };

OG_EXPORT CUresult cuTensorMapReplaceAddress(CUtensorMap *tensorMap, void *globalAddress)
{
    uint32_t unused;

    return og_send_orion_tensor_map_change(tensorMap, NEW_ADDRESS, (uint64_t)(uintptr_t)globalAddress, &unused,
                                           tensorMap);
}

OG_EXPORT CUresult cuTensorMapSetAllocationClass(CUtensorMap *tensorMap, CUtensorMapAllocClass allocClass,
                                                 CUtensorMapAllocClass *outAllocClass)
{
    uint32_t got = 1; /* CU_TENSOR_MAP_ALLOC_CLASS_SMALL, also where it fails */
    CUresult r;

    if (outAllocClass)
        *outAllocClass = got;
    r = og_send_orion_tensor_map_change(tensorMap, NEW_CLASS, allocClass, &got, tensorMap);
    if (r == CUDA_SUCCESS && outAllocClass)
        *outAllocClass = got;
    return r;
}
