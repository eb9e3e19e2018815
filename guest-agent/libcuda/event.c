/* SPDX-License-Identifier: Apache-2.0 */
/* Events: records remember their place in the ring, so that queries are answered here where that suffices: one that
 * nobody has read cannot be complete, and what the GPU has marked is. */
#include "core.h"
#include "variable.h"
#include "gen/send.h"
#include "memory.h"

/* An event's client-side data: sequence of its newest record (0: none), and three bits. */
#define OWN 2ull    /* records of cuEventRecord alone make it complete, and no time is taken of it */
#define MARKED 1ull /* its records are followed by a mark, which costs the GPU 2 us (measured) */
#define BETWEEN 4ull /* other processes see it, too */
#define SEQ_SHIFT 3
#define BITS (OWN | MARKED | BETWEEN)
#define SLOW_NS 10000u /* a query that took longer found the host asleep, or behind a full ring: mark from now on */

static uint64_t id_of(CUevent event)
{
    return (uint64_t)(uintptr_t)event;
}

static void change(uint64_t event, uint64_t set, uint64_t clear)
{
    void *seen = og_data(event);

    while (!og_swap_data(event, &seen, (void *)(((uintptr_t)seen | set) & ~clear)))
        ;
}

void og_event_shared(uint64_t event)
{
    if (og_valid(OW_KIND_EVENT, event))
        change(event, 0, OWN);
}

void og_event_between(CUevent event)
{
    change(id_of(event), BETWEEN, OWN);
}

static void share(uint64_t event, void *data, void *arg)
{
    (void)data;
    (void)arg;
    og_event_shared(event);
}

static void context_died(uint64_t context)
{
    (void)context;
    og_each(OW_KIND_EVENT, share, NULL); /* the host knows which of them still live */
}

OG_EXPORT CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
    static _Atomic int watching;
    CUresult r;

    if ((Flags & 6u) == 4u) /* INTERPROCESS goes with DISABLE_TIMING only; known at once, as natively */
        return og_refuse(CUDA_ERROR_INVALID_VALUE);
    r = og_send_cuEventCreate(phEvent, Flags);

    /* DISABLE_TIMING, and not INTERPROCESS */
    if (r == CUDA_SUCCESS && (Flags & 6u) == 2u)
        og_set_data(id_of(*phEvent), (void *)OWN);
    if (!atomic_exchange(&watching, 1))
        og_on_context_death(context_died);
    return r;
}

static uint32_t mark_of(CUevent event)
{
    return og_index(id_of(event)) % OC_EVENT_MARKS; /* shared by several: then the newest is seen, the others are asked */
}

/* Of two threads that record it at once the later one in the ring counts. */
static void recorded(CUevent event, uint64_t seq)
{
    void *seen = og_data(id_of(event));

    while ((uintptr_t)seen >> SEQ_SHIFT < seq &&
           !og_swap_data(id_of(event), &seen, (void *)(seq << SEQ_SHIFT | ((uintptr_t)seen & BITS))))
        ;
}

/* What another process is told of must have happened: such an event's commands wait until they are read. A capture
 * may have been invalidated: then they are refused at once. */
static CUresult send(CUevent event, struct og_call *c)
{
    return (uintptr_t)og_data(id_of(event)) & BETWEEN || atomic_load(&og_captures) ? og_call(c) : og_post(c);
}

/* Sends a record, and its mark where the event has one. */
static CUresult send_record(CUevent event, CUstream stream, struct og_call *c)
{
    uint64_t data = (uintptr_t)og_data(id_of(event));
    bool mark = (data & (OWN | MARKED)) == (OWN | MARKED) && og_can_mark();
    CUresult r;

    c->more = mark;
    r = send(event, c);
    recorded(event, c->seq);
    if (mark)
        og_mark((uint64_t)(uintptr_t)stream, mark_of(event), c->seq);
    return r;
}

static CUresult check(CUevent event, CUstream stream)
{
    if (!og_valid(OW_KIND_EVENT, id_of(event)) || !og_stream_valid((uint64_t)(uintptr_t)stream))
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
    in->hEvent = id_of(hEvent);
    in->hStream = (uint64_t)(uintptr_t)hStream;
    return send_record(hEvent, hStream, &c);
}

OG_EXPORT CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
    OG_ON((uint64_t)(uintptr_t)hStream);
    struct ow_cuStreamWaitEvent_in *in;
    struct og_call c;
    CUresult r = check(hEvent, hStream);

    if (r == CUDA_SUCCESS && (Flags & ~1u))
        return og_refuse(CUDA_ERROR_INVALID_VALUE);
    if (r == CUDA_SUCCESS)
        r = og_begin(&c, OW_OP_cuStreamWaitEvent, (uint32_t)sizeof(*in));
    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    in->hEvent = id_of(hEvent);
    in->hStream = (uint64_t)(uintptr_t)hStream;
    in->Flags = Flags;
    return send(hEvent, &c);
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
    in->hEvent = id_of(hEvent);
    in->hStream = (uint64_t)(uintptr_t)hStream;
    in->flags = flags;
    if (flags)
        og_event_shared(id_of(hEvent)); /* in a capture: each launch of the graph records it */
    return send_record(hEvent, hStream, &c);
}

/* May this thread be told without a round trip? */
static bool answers_here(CUevent event)
{
    const struct og_thread *t = og_self();

    return atomic_load_explicit(&og_life, memory_order_acquire) == OG_CONNECTED && t->device >= 0 && !t->in_callback &&
           og_valid(OW_KIND_EVENT, id_of(event)) && !atomic_load(&og_captures) &&
           !atomic_load_explicit(&og_channel()->device_error[t->device], memory_order_relaxed);
}

/* True when the GPU has passed the newest record. */
static bool passed(CUevent event, uint64_t data)
{
    return (data & (OWN | MARKED)) == (OWN | MARKED) && og_marked(mark_of(event)) == data >> SEQ_SHIFT;
}

/* True when the newest record has not been read from the ring: then the event cannot be complete. Every call
 * that waits publishes the head first, so what such a call has seen is never denied afterwards. */
static bool unread(uint64_t data)
{
    return atomic_load_explicit(&og_channel()->head, memory_order_acquire) < data >> SEQ_SHIFT;
}

/* A mark that is missing proves nothing: it follows the event, which a call that waits may have seen complete. */
OG_EXPORT CUresult cuEventQuery(CUevent hEvent)
{
    uint64_t data, begin;
    CUresult r;

    if (!answers_here(hEvent))
        return og_send_cuEventQuery(hEvent);
    data = (uintptr_t)og_data(id_of(hEvent));
    if (passed(hEvent, data)) {
        if (og_has_variables())
            og_variables_after(OG_VARIABLES_NOW);
        return CUDA_SUCCESS;
    }
    if (unread(data))
        return CUDA_ERROR_NOT_READY;
    begin = og_now_ns();
    r = og_send_cuEventQuery(hEvent);
    if (og_now_ns() - begin > SLOW_NS && (data & (OWN | MARKED)) == OWN)
        change(id_of(hEvent), MARKED, 0);
    return r;
}

OG_EXPORT CUresult cuEventDestroy(CUevent hEvent)
{
    return cuEventDestroy_v2(hEvent);
}
