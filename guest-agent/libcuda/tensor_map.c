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

    if (!tensorRank || tensorRank > OG_MAX_RANK || !globalStrides)
        return CUDA_ERROR_INVALID_VALUE;
    /* the innermost stride is implied: the application's array has one element less than the command's */
    memcpy(strides, globalStrides, (tensorRank - 1) * sizeof(strides[0]));
    return og_send_cuTensorMapEncodeTiled(tensorMap, tensorDataType, tensorRank, globalAddress, globalDim, strides,
                                          boxDim, elementStrides, interleave, swizzle, l2Promotion, oobFill);
}

OG_EXPORT CUresult cuTensorMapReplaceAddress(CUtensorMap *tensorMap, void *globalAddress)
{
    (void)tensorMap;
    (void)globalAddress;
    return og_unsupported("cuTensorMapReplaceAddress");
}
