/* SPDX-License-Identifier: Apache-2.0 */
/* Events: records remember their place in the ring, so that a query need not ask about one that nobody has read. */
#include "gen/send.h"
#include "memory.h"

/* An event's client-side data is the sequence of its newest record command, 0: none. */
static void recorded(CUevent event, uint64_t seq)
{
    og_set_data((uint64_t)(uintptr_t)event, (void *)(uintptr_t)seq);
}

static CUresult check(CUevent event, CUstream stream)
{
    if (!og_valid(OW_KIND_EVENT, (uint64_t)(uintptr_t)event) || !og_stream_valid((uint64_t)(uintptr_t)stream))
        return og_refuse(CUDA_ERROR_INVALID_HANDLE);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuEventRecord(CUevent hEvent, CUstream hStream)
{
    OG_ON((uint64_t)(uintptr_t)hStream);
    struct ow_cuEventRecord_in *in;
    struct og_call c;
    CUresult r = check(hEvent, hStream);

    if (r == CUDA_SUCCESS)
        r = og_begin(&c, OW_OP_cuEventRecord, (uint32_t)sizeof(*in));
    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    in->hEvent = (uint64_t)(uintptr_t)hEvent;
    in->hStream = (uint64_t)(uintptr_t)hStream;
    r = og_post(&c);
    recorded(hEvent, c.seq);
    return r;
}

OG_EXPORT CUresult cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned int flags)
{
    OG_ON((uint64_t)(uintptr_t)hStream);
    struct ow_cuEventRecordWithFlags_in *in;
    struct og_call c;
    CUresult r = check(hEvent, hStream);

    if (r == CUDA_SUCCESS && (flags & ~1u))
        return og_refuse(CUDA_ERROR_INVALID_VALUE);
    if (r == CUDA_SUCCESS)
        r = og_begin(&c, OW_OP_cuEventRecordWithFlags, (uint32_t)sizeof(*in));
    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    in->hEvent = (uint64_t)(uintptr_t)hEvent;
    in->hStream = (uint64_t)(uintptr_t)hStream;
    in->flags = flags;
    r = og_post(&c);
    recorded(hEvent, c.seq);
    return r;
}

/* True when the newest record has not been read from the ring: then the event cannot be complete. Every call
 * that waits publishes the head first, so what such a call has seen is never denied afterwards. */
static bool unread(CUevent event)
{
    uint64_t seq = (uint64_t)(uintptr_t)og_data((uint64_t)(uintptr_t)event);

    return seq && atomic_load_explicit(&og_channel()->head, memory_order_acquire) < seq;
}

OG_EXPORT CUresult cuEventQuery(CUevent hEvent)
{
    const struct og_thread *t = og_self();

    if (atomic_load_explicit(&og_life, memory_order_acquire) == OG_CONNECTED && t->device >= 0 && !t->in_callback &&
        og_valid(OW_KIND_EVENT, (uint64_t)(uintptr_t)hEvent) && !atomic_load(&og_captures) &&
        !atomic_load_explicit(&og_channel()->device_error[t->device], memory_order_relaxed) && unread(hEvent))
        return CUDA_ERROR_NOT_READY;
    return og_send_cuEventQuery(hEvent);
}

OG_EXPORT CUresult cuEventDestroy(CUevent hEvent)
{
    return cuEventDestroy_v2(hEvent);
}
