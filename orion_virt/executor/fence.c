/* SPDX-License-Identifier: Apache-2.0 */
/* Fences: numbers that the guest waits for, published in order when the copies before them are done. */
#include <stdlib.h>
#include <time.h>

#include "memory.h"

#define MAX_PENDING 1024 /* the guest's staging memory has far fewer pieces */
#define SPIN_NS 20000    /* most fences are a DMA of microseconds */

struct fence {
    uint64_t number;
    CUevent event;
    CUcontext context;
    uint64_t off, to_guest_bytes;
    bool done;
    unsigned users; /* waiters outside the lock; freed by the last */
    struct fence *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct fence *first, **last = &first;
static unsigned nr_pending;
static bool started;
static uint64_t published;

static void put_locked(struct fence *f)
{
    if (--f->users > 0)
        return;
    if (f->event)
        oh_drv.cuEventDestroy_v2(f->event);
    free(f);
}

/* Takes the finished fences at the front off and publishes the last one's number. */
static void publish_locked(void)
{
    uint64_t number = published;

    while (first && first->done) {
        struct fence *f = first;

        number = f->number > number ? f->number : number;
        first = f->next;
        if (!first)
            last = &first;
        nr_pending--;
        put_locked(f);
    }
    if (number == published)
        return;
    published = number;
    /* pairs with og_fence_done */
    atomic_store_explicit(&oh_channel->fence_done, number, memory_order_release);
    pthread_cond_broadcast(&changed);
}

static void finish_locked(struct fence *f)
{
    if (!f->done && f->to_guest_bytes)
        oh_flush(f->off, f->to_guest_bytes);
    f->done = true;
    publish_locked();
}

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* An error counts as done: the stream's error reaches the guest by the calls that wait. */
static void wait_event(CUevent event)
{
    uint64_t end = now_ns() + SPIN_NS;
    CUstreamCaptureMode mode = oh_relax(); /* another thread's capture must not be broken by our question */
    CUresult r;

    while ((r = oh_drv.cuEventQuery(event)) == CUDA_ERROR_NOT_READY && now_ns() < end)
        __builtin_ia32_pause();
    if (r == CUDA_ERROR_NOT_READY)
        oh_drv.cuEventSynchronize(event);
    oh_unrelax(mode);
}

static void *publisher(void *arg)
{
    CUcontext current = NULL;

    (void)arg;
    pthread_mutex_lock(&lock);
    for (;;) {
        struct fence *f = first;

        if (!f) {
            pthread_cond_wait(&changed, &lock);
            continue;
        }
        f->users++;
        pthread_mutex_unlock(&lock);
        if (current != f->context && oh_drv.cuCtxSetCurrent(f->context) == CUDA_SUCCESS)
            current = f->context;
        if (!f->done)
            wait_event(f->event);
        pthread_mutex_lock(&lock);
        finish_locked(f);
        put_locked(f);
    }
    return NULL;
}

static void start_locked(void)
{
    pthread_t thread;

    if (started)
        return;
    if (pthread_create(&thread, NULL, publisher, NULL) != 0) {
        oh_log("no thread for fences: waits go by round trips");
        return;
    }
    pthread_detach(thread);
    started = true;
}

static struct fence *make(uint64_t number, CUstream stream, bool issued)
{
    struct fence *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->number = number;
    f->users = 1;
    f->done = true;
    /* BLOCKING_SYNC | DISABLE_TIMING: waiting for it costs no CPU */
    if (!issued || oh_drv.cuCtxGetCurrent(&f->context) != CUDA_SUCCESS ||
        oh_drv.cuEventCreate(&f->event, 3) != CUDA_SUCCESS)
        return f;
    if (oh_drv.cuEventRecord(f->event, stream) == CUDA_SUCCESS)
        f->done = false;
    return f;
}

void oh_fence_add(uint64_t number, CUstream stream, bool issued, uint64_t off, uint64_t to_guest_bytes)
{
    struct fence *f = make(number, stream, issued);

    if (!f) {
        oh_end(OC_CLOSED_WORKER, "no memory for a fence");
        return;
    }
    /* Without an event of its own the copy is waited for here. */
    if (f->done && issued)
        oh_drv.cuStreamSynchronize(stream);
    f->off = off;
    f->to_guest_bytes = issued ? to_guest_bytes : 0;
    if (f->done && f->to_guest_bytes)
        oh_flush(off, to_guest_bytes);
    pthread_mutex_lock(&lock);
    start_locked();
    *last = f;
    last = &f->next;
    nr_pending++;
    if (f->done)
        publish_locked();
    else
        pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (nr_pending > MAX_PENDING)
        oh_fence_drain();
}

static struct fence *find_locked(uint64_t number)
{
    struct fence *f = first;

    while (f && f->number != number)
        f = f->next;
    return f;
}

/* The lock is let go meanwhile. */
static void wait_locked(struct fence *f)
{
    f->users++;
    pthread_mutex_unlock(&lock);
    if (!f->done)
        wait_event(f->event);
    pthread_mutex_lock(&lock);
    finish_locked(f);
    put_locked(f);
}

CUresult oh_orion_fence_wait(struct oh_twin *t, const struct ow_orion_fence_wait_in *in, uint32_t bytes,
                             struct ow_orion_fence_wait_out *out, uint32_t *out_bytes)
{
    struct fence *f;

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    pthread_mutex_lock(&lock);
    f = find_locked(in->fence);
    if (f)
        wait_locked(f);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

void oh_fence_drain(void)
{
    pthread_mutex_lock(&lock);
    while (first)
        wait_locked(first);
    pthread_mutex_unlock(&lock);
}
