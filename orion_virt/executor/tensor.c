/* SPDX-License-Identifier: Apache-2.0 */
/* Tensor maps: the driver computes them, in memory aligned as it asks. What they name is checked by the card. */
#include <string.h>

#include "executor.h"
#include "gen/checks.h"
#include "gen/ops.h"

#define MAX_RANK 5u
enum { NEW_ADDRESS = 0, NEW_CLASS = 1 }; /* what of orion_tensor_map_change */

/* Arrays of a command; each is `tensorRank` elements long. */
struct dims {
    cuuint64_t size[MAX_RANK], stride[MAX_RANK];
    cuuint32_t step[MAX_RANK];
    union { cuuint32_t u[MAX_RANK]; int i[MAX_RANK]; } box[2];
};

static bool next_part(struct ow_cursor *parts, uint32_t got, uint32_t rank, void *to, uint32_t each)
{
    const void *p;

    if (rank > MAX_RANK || !oh_array(parts, got, false, rank * each, &p))
        return false;
    memcpy(to, p, rank * each);
    return true;
}

/* The map follows the answer's fixed part, whose last field is its length. */
static CUresult answer(CUresult r, const CUtensorMap *map, void *out, uint32_t fixed, uint32_t *out_bytes)
{
    if (r != CUDA_SUCCESS)
        return r;
    memcpy((uint8_t *)out + fixed, map, sizeof(*map));
    *out_bytes = fixed + (uint32_t)sizeof(*map);
    return CUDA_SUCCESS;
}

CUresult oh_cuTensorMapEncodeTiled(struct oh_twin *t, const struct ow_cuTensorMapEncodeTiled_in *in, uint32_t bytes,
                                   struct ow_cuTensorMapEncodeTiled_out *out, uint32_t *out_bytes)
{
    struct ow_cursor parts = { (const uint8_t *)(in + 1), bytes - sizeof(*in) };
    uint32_t rank = in->tensorRank;
    CUtensorMap map;
    struct dims d;
    CUresult r;

    if (!next_part(&parts, in->globalDim_bytes, rank, d.size, sizeof(d.size[0])) ||
        !next_part(&parts, in->globalStrides_bytes, rank, d.stride, sizeof(d.stride[0])) ||
        !next_part(&parts, in->boxDim_bytes, rank, d.box[0].u, sizeof(d.box[0].u[0])) ||
        !next_part(&parts, in->elementStrides_bytes, rank, d.step, sizeof(d.step[0])))
        return oh_fault(t, "a tensor map of rank %u is cut short", rank);
    r = OH_CALL(cuTensorMapEncodeTiled, &map, in->tensorDataType, rank, (void *)(uintptr_t)in->globalAddress, d.size,
                d.stride, d.box[0].u, d.step, in->interleave, in->swizzle, in->l2Promotion, in->oobFill);
    out->tensorMap_bytes = sizeof(map);
    return answer(r, &map, out, sizeof(*out), out_bytes);
}

CUresult oh_cuTensorMapEncodeIm2col(struct oh_twin *t, const struct ow_cuTensorMapEncodeIm2col_in *in, uint32_t bytes,
                                    struct ow_cuTensorMapEncodeIm2col_out *out, uint32_t *out_bytes)
{
    struct ow_cursor parts = { (const uint8_t *)(in + 1), bytes - sizeof(*in) };
    uint32_t rank = in->tensorRank;
    CUtensorMap map;
    struct dims d;
    CUresult r;

    if (!next_part(&parts, in->globalDim_bytes, rank, d.size, sizeof(d.size[0])) ||
        !next_part(&parts, in->globalStrides_bytes, rank, d.stride, sizeof(d.stride[0])) ||
        !next_part(&parts, in->pixelBoxLowerCorner_bytes, rank, d.box[0].i, sizeof(int)) ||
        !next_part(&parts, in->pixelBoxUpperCorner_bytes, rank, d.box[1].i, sizeof(int)) ||
        !next_part(&parts, in->elementStrides_bytes, rank, d.step, sizeof(d.step[0])))
        return oh_fault(t, "a tensor map of rank %u is cut short", rank);
    r = OH_CALL(cuTensorMapEncodeIm2col, &map, in->tensorDataType, rank, (void *)(uintptr_t)in->globalAddress, d.size,
                d.stride, d.box[0].i, d.box[1].i, in->channelsPerPixel, in->pixelsPerColumn, d.step, in->interleave,
                in->swizzle, in->l2Promotion, in->oobFill);
    out->tensorMap_bytes = sizeof(map);
    return answer(r, &map, out, sizeof(*out), out_bytes);
}

CUresult oh_cuTensorMapEncodeIm2colWide(struct oh_twin *t, const struct ow_cuTensorMapEncodeIm2colWide_in *in,
                                        uint32_t bytes, struct ow_cuTensorMapEncodeIm2colWide_out *out,
                                        uint32_t *out_bytes)
{
    struct ow_cursor parts = { (const uint8_t *)(in + 1), bytes - sizeof(*in) };
    uint32_t rank = in->tensorRank;
    CUtensorMap map;
    struct dims d;
    CUresult r;

    if (!next_part(&parts, in->globalDim_bytes, rank, d.size, sizeof(d.size[0])) ||
        !next_part(&parts, in->globalStrides_bytes, rank, d.stride, sizeof(d.stride[0])) ||
        !next_part(&parts, in->elementStrides_bytes, rank, d.step, sizeof(d.step[0])))
        return oh_fault(t, "a tensor map of rank %u is cut short", rank);
    r = OH_CALL(cuTensorMapEncodeIm2colWide, &map, in->tensorDataType, rank, (void *)(uintptr_t)in->globalAddress,
                d.size, d.stride, in->pixelBoxLowerCornerWidth, in->pixelBoxUpperCornerWidth, in->channelsPerPixel,
                in->pixelsPerColumn, d.step, in->interleave, in->mode, in->swizzle, in->l2Promotion, in->oobFill);
    out->tensorMap_bytes = sizeof(map);
    return answer(r, &map, out, sizeof(*out), out_bytes);
}

CUresult oh_orion_tensor_map_change(struct oh_twin *t, const struct ow_orion_tensor_map_change_in *in, uint32_t bytes,
                                    struct ow_orion_tensor_map_change_out *out, uint32_t *out_bytes)
{
    CUtensorMapAllocClass got = 0;
    CUtensorMap map;
    CUresult r;

    if (in->from_bytes != sizeof(map) || bytes < sizeof(*in) + sizeof(map))
        return oh_fault(t, "a tensor map of %u bytes", in->from_bytes);
    memcpy(&map, in + 1, sizeof(map));
    if (in->what == NEW_ADDRESS)
        r = OH_CALL(cuTensorMapReplaceAddress, &map, (void *)(uintptr_t)in->value);
    else
        r = OH_CALL(cuTensorMapSetAllocationClass, &map, (CUtensorMapAllocClass)in->value, &got);
    out->got = got;
    out->to_bytes = sizeof(map);
    return answer(r, &map, out, sizeof(*out), out_bytes);
}
