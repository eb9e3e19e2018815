/* SPDX-License-Identifier: Apache-2.0 */
/* Copies with attributes, one or many in a call: each goes its ordinary way, in the order of the list. */
#include "graph.h"
#include "gen/send.h"

enum { ORDER_STREAM = 1, ORDER_DURING_CALL = 2, ORDER_ANY = 3 }; /* CUmemcpySrcAccessOrder */
enum { POINTER = 1, ARRAY = 2 };                                  /* CUmemcpy3DOperandType */
#define OVERLAP 1u /* CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE: a hint */
#define LEGACY_STREAM ((CUstream)1)

static bool attributes_ok(unsigned order, unsigned flags)
{
    return order >= ORDER_STREAM && order <= ORDER_ANY && !(flags & ~OVERLAP);
}

/* Ordinary memory is read during the call: a source that the stream's own work may write waits for that. */
static CUresult source_ready(CUdeviceptr src, unsigned order, CUstream stream)
{
    if (order != ORDER_STREAM || !og_place_is_host(og_classify(src, 1, false)) || og_is_capturing(stream))
        return CUDA_SUCCESS;
    return og_copy_drain(stream);
}

static CUresult one(CUdeviceptr dst, CUdeviceptr src, size_t bytes, unsigned order, CUstream stream)
{
    CUresult r = source_ready(src, order, stream);

    return r == CUDA_SUCCESS ? cuMemcpyAsync(dst, src, bytes, stream) : r;
}

/* ---- batches of rows ---- */

static bool indexes_ok(const CUmemcpyAttributes *attrs, const size_t *indexes, size_t nr, size_t count)
{
    if (!attrs || !indexes || !nr || nr > count || indexes[0] != 0 || indexes[nr - 1] >= count)
        return false;
    for (size_t i = 0; i < nr; i++)
        if ((i && indexes[i] <= indexes[i - 1]) || !attributes_ok(attrs[i].srcAccessOrder, attrs[i].flags))
            return false;
    return true;
}

/* Batches are not for the legacy stream. */
static CUresult may_batch(const void *list, size_t count, CUstream stream)
{
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    return list && count && stream && stream != LEGACY_STREAM ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

OG_EXPORT CUresult cuMemcpyBatchAsync(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
                                      CUmemcpyAttributes *attrs, size_t *attrsIdxs, size_t numAttrs, size_t *failIdx,
                                      CUstream hStream)
{
    size_t at = 0;
    CUresult r = may_batch(dsts, count, hStream);

    if (failIdx)
        *failIdx = SIZE_MAX; /* no copy of the list is at fault */
    if (r == CUDA_SUCCESS && (!srcs || !sizes || !indexes_ok(attrs, attrsIdxs, numAttrs, count)))
        r = CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count && r == CUDA_SUCCESS; i++) {
        if (at + 1 < numAttrs && attrsIdxs[at + 1] == i)
            at++;
        r = one(dsts[i], srcs[i], sizes[i], attrs[at].srcAccessOrder, hStream);
        if (r != CUDA_SUCCESS && failIdx)
            *failIdx = i;
    }
    return r;
}

OG_EXPORT CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
                                         CUmemcpyAttributes *attrs, size_t *attrsIdxs, size_t numAttrs,
                                         CUstream hStream)
{
    return cuMemcpyBatchAsync(dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, NULL, hStream);
}

OG_EXPORT CUresult cuMemcpyWithAttributesAsync(CUdeviceptr dst, CUdeviceptr src, size_t size, CUmemcpyAttributes *attr,
                                               CUstream hStream)
{
    if (!attr || !attributes_ok(attr->srcAccessOrder, attr->flags))
        return CUDA_ERROR_INVALID_VALUE;
    return one(dst, src, size, attr->srcAccessOrder, hStream);
}

/* ---- boxes: extents, offsets and pitches are in elements of the array that takes part, else in bytes ---- */

static CUresult element_bytes(const CUmemcpy3DOperand *o, uint64_t *bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR d;
    CUresult r;

    *bytes = 0;
    if (o->type == POINTER)
        return CUDA_SUCCESS;
    if (o->type != ARRAY)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_send_cuArray3DGetDescriptor_v2(&d, o->op.array.array);
    if (r == CUDA_SUCCESS)
        *bytes = oc_texel_bytes(d.Format, d.NumChannels);
    return r;
}

static void fill_src(CUDA_MEMCPY3D *p, const CUmemcpy3DOperand *o, uint64_t element)
{
    if (o->type == ARRAY) {
        p->srcMemoryType = OC_MEMORY_ARRAY;
        p->srcArray = o->op.array.array;
        p->srcXInBytes = o->op.array.offset.x * element;
        p->srcY = o->op.array.offset.y;
        p->srcZ = o->op.array.offset.z;
        return;
    }
    p->srcMemoryType = OC_MEMORY_UNIFIED;
    p->srcDevice = o->op.ptr.ptr;
    p->srcPitch = o->op.ptr.rowLength * element;
    p->srcHeight = o->op.ptr.layerHeight;
}

static void fill_dst(CUDA_MEMCPY3D *p, const CUmemcpy3DOperand *o, uint64_t element)
{
    if (o->type == ARRAY) {
        p->dstMemoryType = OC_MEMORY_ARRAY;
        p->dstArray = o->op.array.array;
        p->dstXInBytes = o->op.array.offset.x * element;
        p->dstY = o->op.array.offset.y;
        p->dstZ = o->op.array.offset.z;
        return;
    }
    p->dstMemoryType = OC_MEMORY_UNIFIED;
    p->dstDevice = o->op.ptr.ptr;
    p->dstPitch = o->op.ptr.rowLength * element;
    p->dstHeight = o->op.ptr.layerHeight;
}

/* A pitch that is shorter than what it holds is wrong, 0 is packed. */
static bool operand_ok(const CUmemcpy3DOperand *o, const CUDA_MEMCPY3D_BATCH_OP *op)
{
    return o->type == ARRAY || ((!o->op.ptr.rowLength || o->op.ptr.rowLength >= op->extent.width) &&
                                (!o->op.ptr.layerHeight || o->op.ptr.layerHeight >= op->extent.height));
}

static CUresult one_box(const CUDA_MEMCPY3D_BATCH_OP *op, CUstream stream)
{
    CUDA_MEMCPY3D p = { .Height = op->extent.height, .Depth = op->extent.depth };
    uint64_t of_src, of_dst, element;
    CUresult r;

    if (!op->extent.width || !op->extent.height || !op->extent.depth || !attributes_ok(op->srcAccessOrder, op->flags) ||
        !operand_ok(&op->src, op) || !operand_ok(&op->dst, op))
        return CUDA_ERROR_INVALID_VALUE;
    r = element_bytes(&op->src, &of_src);
    if (r == CUDA_SUCCESS)
        r = element_bytes(&op->dst, &of_dst);
    if (r == CUDA_SUCCESS && of_src && of_dst && of_src != of_dst)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    element = of_src ? of_src : of_dst ? of_dst : 1;
    if (__builtin_mul_overflow(op->extent.width, element, &p.WidthInBytes))
        return CUDA_ERROR_INVALID_VALUE;
    fill_src(&p, &op->src, element);
    fill_dst(&p, &op->dst, element);
    if (op->src.type == POINTER)
        r = source_ready(op->src.op.ptr.ptr, op->srcAccessOrder, stream);
    return r == CUDA_SUCCESS ? og_copy_box(&p, stream, false, false) : r;
}

OG_EXPORT CUresult cuMemcpy3DBatchAsync(size_t numOps, CUDA_MEMCPY3D_BATCH_OP *opList, size_t *failIdx,
                                        unsigned long long flags, CUstream hStream)
{
    CUresult r = may_batch(opList, numOps, hStream);

    if (failIdx)
        *failIdx = SIZE_MAX;
    if (r == CUDA_SUCCESS && flags)
        r = CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < numOps && r == CUDA_SUCCESS; i++) {
        r = one_box(&opList[i], hStream);
        if (r != CUDA_SUCCESS && failIdx)
            *failIdx = i;
    }
    return r;
}

OG_EXPORT CUresult cuMemcpy3DBatchAsync_v2(size_t numOps, CUDA_MEMCPY3D_BATCH_OP *opList, unsigned long long flags,
                                           CUstream hStream)
{
    return cuMemcpy3DBatchAsync(numOps, opList, NULL, flags, hStream);
}

OG_EXPORT CUresult cuMemcpy3DWithAttributesAsync(CUDA_MEMCPY3D_BATCH_OP *op, unsigned long long flags, CUstream hStream)
{
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS)
        return r;
    return op && !flags ? one_box(op, hStream) : CUDA_ERROR_INVALID_VALUE;
}
