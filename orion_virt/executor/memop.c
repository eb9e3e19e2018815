/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of operations on memory in stream order: every address in them is the client's. */
#include "memory.h"
#include "gen/checks.h"

enum { WAIT_32 = 1, WRITE_32 = 2, FLUSH = 3, WAIT_64 = 4, WRITE_64 = 5, BARRIER = 6, ATOMIC = 8 };

/* Checks one operation, in our copy of it, and takes from it what is the driver's own. */
static CUresult check(CUstreamBatchMemOpParams *op)
{
    uint64_t bytes = op->operation == WAIT_32 || op->operation == WRITE_32 ? 4 : 8;

    switch (op->operation) {
    case WAIT_32:
    case WRITE_32:
    case WAIT_64:
    case WRITE_64:
        op->waitValue.alias = 0;
        return oh_touches(op->waitValue.address, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case ATOMIC:
        op->atomicReduction.alias = 0;
        return oh_touches(op->atomicReduction.address, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case FLUSH:
    case BARRIER:
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

typedef CUresult batch_fn(CUstream, unsigned, CUstreamBatchMemOpParams *, unsigned);

/* Both versions are one shape; `params` is the private copy behind the fixed part. */
static CUresult batch(batch_fn *function, const struct ow_cuStreamBatchMemOp_in *in, uint32_t bytes)
{
    CUstreamBatchMemOpParams *ops = (CUstreamBatchMemOpParams *)(uintptr_t)(in + 1);
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    if (r != CUDA_SUCCESS)
        return r;
    if (in->count > (bytes - sizeof(*in)) / sizeof(*ops))
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; r == CUDA_SUCCESS && i < in->count; i++)
        r = check(&ops[i]);
    if (r != CUDA_SUCCESS)
        return r;
    return function ? function(stream, in->count, ops, in->flags) : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult oh_cuStreamBatchMemOp(struct oh_twin *t, const struct ow_cuStreamBatchMemOp_in *in, uint32_t bytes,
                               struct ow_cuStreamBatchMemOp_out *out, uint32_t *out_bytes)
{
    (void)t, (void)out, (void)out_bytes;
    return batch(oh_drv.cuStreamBatchMemOp, in, bytes);
}

CUresult oh_cuStreamBatchMemOp_v2(struct oh_twin *t, const struct ow_cuStreamBatchMemOp_v2_in *in, uint32_t bytes,
                                  struct ow_cuStreamBatchMemOp_v2_out *out, uint32_t *out_bytes)
{
    _Static_assert(sizeof(*in) == sizeof(struct ow_cuStreamBatchMemOp_in), "one shape");
    (void)t, (void)out, (void)out_bytes;
    return batch(oh_drv.cuStreamBatchMemOp_v2, (const void *)in, bytes);
}

CUresult oh_cuMemBatchDecompressAsync(struct oh_twin *t, const struct ow_cuMemBatchDecompressAsync_in *in,
                                      uint32_t bytes, struct ow_cuMemBatchDecompressAsync_out *out, uint32_t *out_bytes)
{
    CUmemDecompressParams *p = (CUmemDecompressParams *)(uintptr_t)(in + 1);
    size_t wrong = 0;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)t;
    if (r != CUDA_SUCCESS)
        return r;
    if (in->count > (bytes - sizeof(*in)) / sizeof(*p))
        return CUDA_ERROR_INVALID_VALUE;
    for (uint64_t i = 0; i < in->count; i++)
        if (!oh_touches((uintptr_t)p[i].src, p[i].srcNumBytes) || !oh_touches((uintptr_t)p[i].dst, p[i].dstNumBytes) ||
            (p[i].dstActBytes && !oh_touches((uintptr_t)p[i].dstActBytes, sizeof(*p[i].dstActBytes))))
            return CUDA_ERROR_INVALID_VALUE;
    r = OH_CALL(cuMemBatchDecompressAsync, p, in->count, in->flags, &wrong, stream);
    out->errorIndex = wrong;
    *out_bytes = sizeof(*out);
    return r;
}
