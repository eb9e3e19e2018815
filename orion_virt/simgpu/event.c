/* SPDX-License-Identifier: Apache-2.0 */
/* Events: numbered records, waits and times. */
#include <stdlib.h>
#include <time.h>

#include "sim.h"

static void put_locked(struct CUevent_st *e)
{
    if (--e->refs)
        return;
    free(e->cap_deps);
    free(e);
}

void sim_event_put(struct CUevent_st *e)
{
    pthread_mutex_lock(&sim_lock);
    put_locked(e);
    pthread_mutex_unlock(&sim_lock);
}

void sim_event_reached(struct CUevent_st *e, uint64_t count)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    pthread_mutex_lock(&sim_lock);
    if (!count) /* a graph's record node: recorded when it runs */
        count = ++e->recorded;
    if (e->done < count) {
        e->done = count;
        e->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    pthread_cond_broadcast(&sim_progress);
    pthread_mutex_unlock(&sim_lock);
}

void sim_event_await(struct CUevent_st *e, uint64_t count)
{
    pthread_mutex_lock(&sim_lock);
    if (!count)
        count = e->recorded;
    while (e->done < count)
        pthread_cond_wait(&sim_progress, &sim_lock);
    pthread_mutex_unlock(&sim_lock);
}

static CUresult check(CUevent event, struct CUctx_st **ctx)
{
    CUresult r = sim_enter_for(sim_valid(event, SIM_EVENT) ? event->ctx : NULL, ctx);

    if (r)
        return r;
    return sim_valid(event, SIM_EVENT) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

SIM_API CUresult cuEventCreate(CUevent *out, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    /* An interprocess event must not time: that is the driver's rule. */
    if (!out || flags & ~7u || (flags & CU_EVENT_INTERPROCESS && !(flags & CU_EVENT_DISABLE_TIMING)))
        return CUDA_ERROR_INVALID_VALUE;
    struct CUevent_st *e = calloc(1, sizeof(*e));
    if (!e || !sim_register(e, SIM_EVENT)) {
        free(e);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    e->ctx = ctx;
    e->flags = flags;
    e->refs = 1;
    *out = e;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuEventDestroy_v2(CUevent event)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!sim_valid(event, SIM_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    sim_unregister(event);
    sim_event_put(event);
    return CUDA_SUCCESS;
}

/* The lock is held over numbering and queueing, so that a later wait sees either all or nothing. */
static CUresult record(struct CUstream_st *s, struct CUevent_st *e)
{
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&sim_lock);
    if (sim_capture_record(s, e, &r) || r) {
        pthread_mutex_unlock(&sim_lock);
        return r;
    }
    e->capture = NULL;
    struct sim_work work = { .kind = SIM_WORK_RECORD, .mark = { e, ++e->recorded } };
    e->refs++;
    pthread_mutex_unlock(&sim_lock);
    return sim_submit(s, &work);
}

SIM_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned flags)
{
    struct CUctx_st *ctx;
    struct CUstream_st *s;
    CUresult r = check(event, &ctx);

    if (!r)
        r = sim_stream(stream, &s);
    if (r)
        return r;
    if (flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    if (event->ctx != s->ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    return record(s, event);
}

SIM_API CUresult cuEventRecord(CUevent event, CUstream stream)
{
    return cuEventRecordWithFlags(event, stream, 0);
}

SIM_API CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    struct CUctx_st *ctx;
    struct CUstream_st *s;
    CUresult r = check(event, &ctx);

    if (!r)
        r = sim_stream(stream, &s);
    if (r)
        return r;
    if (flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sim_lock);
    bool captured = sim_capture_wait(s, event, &r);
    struct sim_work work = { .kind = SIM_WORK_WAIT, .mark = { event, event->recorded } };
    bool pending = !captured && !r && event->recorded > event->done;
    if (pending)
        event->refs++;
    pthread_mutex_unlock(&sim_lock);
    return pending ? sim_submit(s, &work) : r;
}

SIM_API CUresult cuEventQuery(CUevent event)
{
    struct CUctx_st *ctx;
    CUresult r = check(event, &ctx);

    if (r)
        return r;
    pthread_mutex_lock(&sim_lock);
    if (event->capture)
        r = CUDA_ERROR_CAPTURED_EVENT;
    else if (event->done < event->recorded)
        r = CUDA_ERROR_NOT_READY;
    else
        r = (CUresult)event->ctx->error;
    pthread_mutex_unlock(&sim_lock);
    return r;
}

SIM_API CUresult cuEventSynchronize(CUevent event)
{
    struct CUctx_st *ctx;
    CUresult r = check(event, &ctx);

    if (r)
        return r;
    pthread_mutex_lock(&sim_lock);
    if (event->capture)
        r = CUDA_ERROR_CAPTURED_EVENT;
    event->refs++;
    for (uint64_t count = event->recorded; !r && event->done < count;)
        pthread_cond_wait(&sim_progress, &sim_lock);
    if (!r)
        r = (CUresult)event->ctx->error;
    put_locked(event);
    pthread_mutex_unlock(&sim_lock);
    sim_output_show(ctx);
    return r;
}

SIM_API CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end)
{
    struct CUctx_st *ctx;
    CUresult r = check(start, &ctx);

    if (!r)
        r = check(end, &ctx);
    if (!r && !ms)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r)
        return r;
    pthread_mutex_lock(&sim_lock);
    if ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING || !start->recorded || !end->recorded)
        r = CUDA_ERROR_INVALID_HANDLE;
    else if (start->done < start->recorded || end->done < end->recorded)
        r = CUDA_ERROR_NOT_READY;
    else
        *ms = (float)((double)(int64_t)(end->time_ns - start->time_ns) / 1e6);
    pthread_mutex_unlock(&sim_lock);
    return r;
}

SIM_API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    return cuEventElapsedTime_v2(ms, start, end);
}
