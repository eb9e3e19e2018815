/* SPDX-License-Identifier: Apache-2.0 */
/* Events: numbered records, waits and times. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "sim.h"

static void put_locked(struct CUevent_st *e)
{
    if (--e->refs)
        return;
    if (e->shared)
        sim_space_free((uint64_t)(uintptr_t)e->shared);
    free(e->cap_deps);
    free(e);
}

void sim_event_put(struct CUevent_st *e)
{
    pthread_mutex_lock(&sim_lock);
    put_locked(e);
    pthread_mutex_unlock(&sim_lock);
}

/* The number of a new record. */
static uint64_t next_record(struct CUevent_st *e)
{
    if (!e->shared)
        return ++e->recorded;
    e->shared->recorder = getpid();
    return ++e->shared->recorded;
}

static uint64_t newest(const struct CUevent_st *e)
{
    return e->shared ? e->shared->recorded : e->recorded;
}

static bool pending(const struct CUevent_st *e, uint64_t count)
{
    return e->shared ? sim_shared_pending(e->shared, count) : e->done < count;
}

/* Waits with sim_lock held; what another process records broadcasts nothing here. */
static void await_locked(struct CUevent_st *e, uint64_t count)
{
    struct timespec nap = { 0, 50000 };

    while (pending(e, count)) {
        if (!e->shared) {
            pthread_cond_wait(&sim_progress, &sim_lock);
            continue;
        }
        pthread_mutex_unlock(&sim_lock);
        nanosleep(&nap, NULL);
        pthread_mutex_lock(&sim_lock);
    }
}

void sim_event_reached(struct CUevent_st *e, uint64_t count)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    pthread_mutex_lock(&sim_lock);
    if (!count) /* a graph's record node: recorded when it runs */
        count = next_record(e);
    if (e->shared && e->shared->done < count)
        e->shared->done = count;
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
    await_locked(e, count ? count : newest(e));
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
    uint64_t at;
    struct CUevent_st *e = calloc(1, sizeof(*e));
    if (!e || !sim_register(e, SIM_EVENT)) {
        free(e);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    e->ctx = ctx;
    e->flags = flags;
    e->refs = 1;
    if (flags & CU_EVENT_INTERPROCESS) {
        r = sim_space_alloc(NULL, ctx->device, sizeof(*e->shared), SIM_MEM_GLOBAL, 0, &at);
        if (r) {
            sim_unregister(e);
            free(e);
            return r;
        }
        e->shared = (struct sim_shared_event *)(uintptr_t)at;
        *e->shared = (struct sim_shared_event){ 0 };
    }
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
    struct sim_work work = { .kind = SIM_WORK_RECORD, .mark = { e, next_record(e) } };
    e->refs++;
    pthread_mutex_unlock(&sim_lock);
    return sim_submit(s, &work);
}

/* CU_EVENT_RECORD_EXTERNAL: in a capture the record is a node, not an edge. */
static CUresult record_external(struct CUstream_st *s, struct CUevent_st *e)
{
    struct sim_work work = { .kind = SIM_WORK_RECORD, .mark = { e, 0 } };

    if (!s->capture)
        return CUDA_ERROR_INVALID_VALUE;
    __atomic_fetch_add(&e->refs, 1, __ATOMIC_SEQ_CST);
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
    return flags ? record_external(s, event) : record(s, event);
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
    if (flags) { /* CU_EVENT_WAIT_EXTERNAL: a node of the capture */
        struct sim_work external = { .kind = SIM_WORK_WAIT, .mark = { event, 0 } };

        if (!s->capture)
            return CUDA_ERROR_INVALID_VALUE;
        __atomic_fetch_add(&event->refs, 1, __ATOMIC_SEQ_CST);
        return sim_submit(s, &external);
    }
    pthread_mutex_lock(&sim_lock);
    bool captured = sim_capture_wait(s, event, &r);
    struct sim_work work = { .kind = SIM_WORK_WAIT, .mark = { event, newest(event) } };
    bool wait = !captured && !r && pending(event, work.mark.count);
    if (wait)
        event->refs++;
    pthread_mutex_unlock(&sim_lock);
    return wait ? sim_submit(s, &work) : r;
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
    else if (pending(event, newest(event)))
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
    if (!r)
        await_locked(event, newest(event));
    if (!r)
        r = (CUresult)event->ctx->error;
    put_locked(event);
    pthread_mutex_unlock(&sim_lock);
    sim_pools_release(ctx->device, false);
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
