/* SPDX-License-Identifier: Apache-2.0 */
/* Streams: one thread and one queue each, with the ordering rules of the legacy default stream. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "sim.h"

struct dependency {
    struct CUstream_st *stream;
    uint64_t seq;
};
struct sim_item {
    struct sim_item *next;
    uint64_t seq;
    struct sim_work work;
    size_t nr_deps;
    struct dependency deps[];
};
pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t sim_progress = PTHREAD_COND_INITIALIZER;
__thread bool sim_in_callback;
static _Atomic uint64_t next_id = 1;

/* Per-thread default streams of the calling thread, one for each context incarnation. */
static __thread struct { struct CUctx_st *ctx; uint64_t id; struct CUstream_st *stream; } per_thread[4];

static void put_locked(struct CUstream_st *s)
{
    if (--s->refs)
        return;
    pthread_cond_destroy(&s->arrived);
    free(s->cap_deps);
    free(s);
}

CUresult sim_stream_create(struct CUctx_st *ctx, unsigned flags, int priority, struct CUstream_st **out)
{
    struct CUstream_st *s = calloc(1, sizeof(*s));

    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->ctx = ctx;
    s->flags = flags;
    s->priority = priority < -5 ? -5 : priority > 0 ? 0 : priority;
    s->id = next_id++;
    s->refs = 1;
    pthread_cond_init(&s->arrived, NULL);
    pthread_mutex_lock(&sim_lock);
    s->next_in_context = ctx->streams;
    ctx->streams = s;
    pthread_mutex_unlock(&sim_lock);
    *out = s;
    return CUDA_SUCCESS;
}

static void finish_item(struct CUstream_st *s, struct sim_item *item)
{
    sim_work_clear(&item->work);
    pthread_mutex_lock(&sim_lock);
    s->completed = item->seq;
    for (size_t i = 0; i < item->nr_deps; i++)
        put_locked(item->deps[i].stream);
    pthread_cond_broadcast(&sim_progress);
    free(item);
}

static void run_item(struct CUstream_st *s, struct sim_item *item)
{
    struct CUctx_st *ctx = s->ctx;
    enum sim_work_kind kind = item->work.kind;

    for (size_t i = 0; i < item->nr_deps; i++)
        while (item->deps[i].stream->completed < item->deps[i].seq)
            pthread_cond_wait(&sim_progress, &sim_lock);
    pthread_mutex_unlock(&sim_lock);
    /* After a sticky error only what somebody waits for still happens. */
    if (!ctx->error || kind == SIM_WORK_RECORD || kind == SIM_WORK_HOST) {
        CUresult r = sim_work_run(ctx, &item->work);
        if (r)
            sim_poison(ctx, r);
    }
    finish_item(s, item);
}

/* Out of its context's list; true: the list's reference is the caller's now. */
static bool unlink_locked(struct CUstream_st *s)
{
    struct CUstream_st **at = &s->ctx->streams;

    while (*at && *at != s)
        at = &(*at)->next_in_context;
    if (!*at)
        return false;
    *at = s->next_in_context;
    return true;
}

static void *stream_main(void *arg)
{
    struct CUstream_st *s = arg;
    struct sim_item *item;

    pthread_mutex_lock(&sim_lock);
    for (;;) {
        while (!s->head && !s->closing)
            pthread_cond_wait(&s->arrived, &sim_lock);
        if (!(item = s->head))
            break;
        s->head = item->next;
        run_item(s, item);
    }
    s->refs -= unlink_locked(s);
    put_locked(s);
    pthread_mutex_unlock(&sim_lock);
    return NULL;
}

static CUresult start_locked(struct CUstream_st *s)
{
    if (s->started)
        return CUDA_SUCCESS;
    if (pthread_create(&s->thread, NULL, stream_main, s))
        return CUDA_ERROR_OPERATING_SYSTEM;
    pthread_detach(s->thread);
    s->started = true;
    s->refs++;
    return CUDA_SUCCESS;
}

static bool blocking(const struct CUstream_st *s)
{
    return !(s->flags & CU_STREAM_NON_BLOCKING);
}

/* What the work has to wait for beyond its own stream: everything for the legacy stream, the legacy
 * stream's work for the others. */
static size_t find_deps(struct CUstream_st *s, struct dependency *deps)
{
    size_t nr = 0;

    if (!blocking(s))
        return 0;
    for (struct CUstream_st *t = s->ctx->streams; t; t = t->next_in_context) {
        if (t == s || !blocking(t) || (!s->legacy && !t->legacy) || t->submitted == t->completed)
            continue;
        if (deps) {
            deps[nr] = (struct dependency){ t, t->submitted };
            t->refs++;
        }
        nr++;
    }
    return nr;
}

static CUresult append_locked(struct CUstream_st *s, struct sim_work *work)
{
    size_t nr = find_deps(s, NULL);
    CUresult r = start_locked(s);
    struct sim_item *item = r ? NULL : calloc(1, sizeof(*item) + nr * sizeof(item->deps[0]));

    if (!item)
        return r ? r : CUDA_ERROR_OUT_OF_MEMORY;
    item->nr_deps = find_deps(s, item->deps);
    item->work = *work;
    item->seq = ++s->submitted;
    if (s->head)
        s->tail->next = item;
    else
        s->head = item;
    s->tail = item;
    pthread_cond_signal(&s->arrived);
    return CUDA_SUCCESS;
}

CUresult sim_submit(struct CUstream_st *s, struct sim_work *work)
{
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&sim_lock);
    if (s->closing)
        r = CUDA_ERROR_INVALID_HANDLE;
    else if (!sim_capture_work(s, work, &r) && !r)
        r = append_locked(s, work);
    pthread_mutex_unlock(&sim_lock);
    if (r)
        sim_work_clear(work);
    return r;
}

static CUresult wait_locked(struct CUstream_st *s, uint64_t target)
{
    struct CUctx_st *ctx = s->ctx;

    s->refs++;
    while (s->completed < target)
        pthread_cond_wait(&sim_progress, &sim_lock);
    put_locked(s);
    return (CUresult)ctx->error;
}

CUresult sim_submit_wait(struct CUstream_st *s, struct sim_work *work)
{
    struct CUctx_st *ctx = s->ctx;
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&sim_lock);
    if (s->closing)
        r = CUDA_ERROR_INVALID_HANDLE;
    else if (s->capture)
        r = sim_capture_refuse(s);
    if (!r)
        r = append_locked(s, work);
    if (!r)
        r = wait_locked(s, s->submitted);
    else
        sim_work_clear(work);
    pthread_mutex_unlock(&sim_lock);
    sim_output_show(ctx);
    return r;
}

CUresult sim_stream_wait(struct CUstream_st *s)
{
    struct CUctx_st *ctx = s->ctx;
    CUresult r;

    pthread_mutex_lock(&sim_lock);
    if (s->capture) {
        r = sim_capture_refuse(s);
    } else if (s->legacy) {
        pthread_mutex_unlock(&sim_lock);
        struct sim_work nothing = { .kind = SIM_WORK_EMPTY };
        r = sim_submit_wait(s, &nothing); /* orders itself after all blocking streams */
        sim_pools_release(ctx->device, false);
        return r;
    } else {
        r = wait_locked(s, s->submitted);
    }
    pthread_mutex_unlock(&sim_lock);
    sim_pools_release(ctx->device, false);
    sim_output_show(ctx);
    return r;
}

CUresult sim_context_wait(struct CUctx_st *ctx)
{
    CUresult r = CUDA_SUCCESS;
    struct CUstream_st *s;

    pthread_mutex_lock(&sim_lock);
    for (s = ctx->streams; s; s = s->next_in_context)
        if (s->capture)
            r = sim_capture_refuse(s);
again:
    for (s = ctx->streams; s && !r; s = s->next_in_context)
        if (s->completed < s->submitted) {
            wait_locked(s, s->submitted);
            goto again; /* the list may have changed meanwhile */
        }
    pthread_mutex_unlock(&sim_lock);
    sim_pools_release(ctx->device, false);
    sim_output_show(ctx);
    return r ? r : (CUresult)ctx->error;
}

/* What it still has to do belongs to its context's work until it is done. */
static void close_locked(struct CUstream_st *s)
{
    s->closing = true;
    pthread_cond_signal(&s->arrived);
    if (s->completed == s->submitted && unlink_locked(s))
        put_locked(s);
}

void sim_streams_end(struct CUctx_st *ctx)
{
    struct CUstream_st *s;

    pthread_mutex_lock(&sim_lock);
    while ((s = ctx->streams)) {
        uint64_t target = s->submitted;
        s->refs++;
        while (s->completed < target)
            pthread_cond_wait(&sim_progress, &sim_lock);
        close_locked(s);
        sim_unregister(s);
        put_locked(s);
    }
    pthread_mutex_unlock(&sim_lock);
}

static CUresult own_stream(struct CUctx_st *ctx, struct CUstream_st **out)
{
    unsigned at = 0;
    CUresult r;

    for (unsigned i = 0; i < 4; i++) {
        if (per_thread[i].ctx == ctx && per_thread[i].id == ctx->id) {
            *out = per_thread[i].stream;
            return CUDA_SUCCESS;
        }
        if (!per_thread[i].ctx || (per_thread[i].ctx == ctx))
            at = i;
    }
    r = sim_stream_create(ctx, 0, 0, out);
    if (r)
        return r;
    per_thread[at].ctx = ctx;
    per_thread[at].id = ctx->id;
    per_thread[at].stream = *out;
    return CUDA_SUCCESS;
}

CUresult sim_stream(CUstream handle, struct CUstream_st **out)
{
    bool made = (uintptr_t)handle > 2 && sim_valid(handle, SIM_STREAM);
    struct CUctx_st *ctx;
    CUresult r = sim_enter_for(made ? handle->ctx : NULL, &ctx);

    *out = NULL;
    if (r)
        return r;
    if (!handle || handle == (CUstream)1) {
        *out = ctx->legacy;
        return CUDA_SUCCESS;
    }
    if (handle == (CUstream)2)
        return own_stream(ctx, out);
    if (!made)
        return CUDA_ERROR_INVALID_HANDLE;
    *out = handle;
    return (CUresult)(*out)->ctx->error;
}

SIM_API CUresult cuStreamCreateWithPriority(CUstream *out, unsigned flags, int priority)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!out || flags & ~1u)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_own_stream(ctx, true);
    if (r)
        return r;
    r = sim_stream_create(ctx, flags, priority, out);
    if (!r && !sim_register(*out, SIM_STREAM))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    if (r)
        (void)sim_own_stream(ctx, false);
    return r;
}

SIM_API CUresult cuStreamCreate(CUstream *out, unsigned flags)
{
    return cuStreamCreateWithPriority(out, flags, 0);
}

SIM_API CUresult cuStreamDestroy_v2(CUstream stream)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!sim_valid(stream, SIM_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&sim_lock);
    if (stream->capture)
        sim_capture_refuse(stream);
    sim_unregister(stream);
    (void)sim_own_stream(stream->ctx, false);
    close_locked(stream);
    pthread_mutex_unlock(&sim_lock);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuStreamSynchronize(CUstream stream)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    return r ? r : sim_stream_wait(s);
}

SIM_API CUresult cuStreamQuery(CUstream stream)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    pthread_mutex_lock(&sim_lock);
    if (s->capture)
        r = sim_capture_refuse(s);
    else if (s->completed < s->submitted || (s->legacy && find_deps(s, NULL)))
        r = CUDA_ERROR_NOT_READY;
    else
        r = (CUresult)s->ctx->error;
    pthread_mutex_unlock(&sim_lock);
    return r;
}

SIM_API CUresult cuStreamGetPriority(CUstream stream, int *priority)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (!r && !priority)
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *priority = s->priority;
    return r;
}

SIM_API CUresult cuStreamGetFlags(CUstream stream, unsigned *flags)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (!r && !flags)
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *flags = s->flags;
    return r;
}

SIM_API CUresult cuStreamGetId(CUstream stream, unsigned long long *id)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (!r && !id)
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *id = s->id;
    return r;
}

SIM_API CUresult cuStreamGetCtx(CUstream stream, CUcontext *ctx)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (!r && !ctx)
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *ctx = s->ctx;
    return r;
}

SIM_API CUresult cuStreamGetDevice(CUstream stream, CUdevice *device)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (!r && !device)
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *device = s->ctx->device->ordinal;
    return r;
}

static CUresult submit_host(CUstream stream, struct sim_host host)
{
    struct sim_work work = { .kind = SIM_WORK_HOST, .host = host };
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    return host.fn || host.callback ? sim_submit(s, &work) : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuLaunchHostFunc(CUstream stream, CUhostFn fn, void *data)
{
    return submit_host(stream, (struct sim_host){ .fn = fn, .data = data });
}

SIM_API CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *data, unsigned flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    return submit_host(stream, (struct sim_host){ .callback = callback, .stream = stream, .data = data });
}

SIM_API CUresult cuStreamAttachMemAsync(CUstream stream, CUdeviceptr p, size_t length, unsigned flags)
{
    struct CUstream_st *s;
    struct sim_range range;
    CUresult r = sim_stream(stream, &s);

    (void)length;
    (void)flags;
    if (r)
        return r;
    return sim_space_find(p, &range) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
