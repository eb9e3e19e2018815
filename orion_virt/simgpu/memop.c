/* SPDX-License-Identifier: Apache-2.0 */
/* Operations on memory in stream order: waits for and writes of values, alone and in batches. */
#include "sim.h"

#define BATCH_MAX 256u
enum { WAIT_32 = 1, WRITE_32 = 2, FLUSH = 3, WAIT_64 = 4, WRITE_64 = 5, BARRIER = 6 };

static CUresult value(CUstream stream, CUdeviceptr at, uint64_t v, unsigned flags, bool wide, bool wait)
{
    struct sim_work work = { .kind = SIM_WORK_VALUE,
                             .val = { .address = at, .value = v, .flags = flags, .wide = wide, .wait = wait } };
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    if (at % (wide ? 8 : 4) || sim_space_extent(at) < (wide ? 8u : 4u))
        return CUDA_ERROR_INVALID_VALUE;
    return sim_submit(s, &work);
}

SIM_API CUresult cuStreamWriteValue32_v2(CUstream s, CUdeviceptr at, cuuint32_t v, unsigned flags)
{
    return value(s, at, v, flags, false, false);
}

SIM_API CUresult cuStreamWriteValue64_v2(CUstream s, CUdeviceptr at, cuuint64_t v, unsigned flags)
{
    return value(s, at, v, flags, true, false);
}

SIM_API CUresult cuStreamWaitValue32_v2(CUstream s, CUdeviceptr at, cuuint32_t v, unsigned flags)
{
    return value(s, at, v, flags, false, true);
}

SIM_API CUresult cuStreamWaitValue64_v2(CUstream s, CUdeviceptr at, cuuint64_t v, unsigned flags)
{
    return value(s, at, v, flags, true, true);
}

/* Waits and writes; the operations are done one after the other, which orders them as barriers ask. */
static CUresult one(CUstream stream, const CUstreamBatchMemOpParams *op)
{
    bool wide = op->operation == WAIT_64 || op->operation == WRITE_64;
    bool wait = op->operation == WAIT_32 || op->operation == WAIT_64;
    uint64_t v = wide ? op->waitValue.value64 : op->waitValue.value;

    if (op->operation == FLUSH || op->operation == BARRIER)
        return CUDA_SUCCESS;
    return value(stream, op->waitValue.address, v, op->waitValue.flags, wide, wait);
}

SIM_API CUresult cuStreamBatchMemOp_v2(CUstream stream, unsigned count, CUstreamBatchMemOpParams *ops, unsigned flags)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    if (!ops || !count || count > BATCH_MAX || flags)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++)
        if (ops[i].operation < WAIT_32 || ops[i].operation > BARRIER)
            return CUDA_ERROR_NOT_SUPPORTED;
    for (unsigned i = 0; r == CUDA_SUCCESS && i < count; i++)
        r = one(stream, &ops[i]);
    return r;
}
