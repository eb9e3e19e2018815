/* SPDX-License-Identifier: Apache-2.0 */
/* Host functions: one thread runs them in the order in which the host's streams reach them. */
#include <pthread.h>
#include <signal.h>

#include "core.h"
#include "graph.h"
#include "gen/send.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool started;
static uint64_t next_seq = 1; /* of the callback thread */

static struct oc_callback *entry(uint64_t seq)
{
    struct oc_channel *channel = og_channel();
    struct oc_callback *entries = (struct oc_callback *)((uint8_t *)channel + channel->callbacks_off);

    return &entries[(seq - 1) % OC_NR_CALLBACKS];
}

static bool ready(void *unused)
{
    (void)unused;
    /* pairs with the executor's trampoline */
    return atomic_load_explicit(&entry(next_seq)->seq, memory_order_acquire) == next_seq;
}

typedef void piece_fn(void *data, uint64_t off, uint64_t bytes);

static void run(struct oc_callback *e)
{
    uint64_t fn = e->fn, stream = e->stream;
    uint32_t kind = e->kind, status = e->status;
    void *data = (void *)(uintptr_t)e->data;

    og_self()->in_callback = true;
    if (kind == 1)
        ((CUstreamCallback)(uintptr_t)fn)((CUstream)(uintptr_t)stream, (CUresult)status, data);
    else if (kind == OC_CALLBACK_PIECE)
        ((piece_fn *)(uintptr_t)fn)(data, stream, status);
    else
        ((CUhostFn)(uintptr_t)fn)(data);
    og_self()->in_callback = false;
}

static void *serve(void *unused)
{
    (void)unused;
    while (og_wait(ready, NULL, &og_channel()->callback_parked) == CUDA_SUCCESS) {
        struct oc_callback *e = entry(next_seq);

        og_output_check();
        run(e);
        atomic_store_explicit(&e->ack, next_seq, memory_order_release); /* pairs with the trampoline's wait */
        og_flush(og_block_off() + (uint64_t)((uint8_t *)&e->ack - (uint8_t *)og_channel()), sizeof(e->ack));
        next_seq++;
    }
    return NULL;
}

/* The application's signals are not for this thread. */
static bool start_thread(void)
{
    sigset_t all, old;
    pthread_t thread;
    int e;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    e = pthread_create(&thread, NULL, serve, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e == 0)
        pthread_detach(thread);
    return e == 0;
}

CUresult og_callbacks_start(void)
{
    CUresult r = og_connect();

    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&lock);
    if (!started)
        started = start_thread();
    r = started ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_unlock(&lock);
    return r;
}

static CUresult enqueue(CUstream stream, uint64_t fn, void *data, uint32_t kind)
{
    CUresult r;

    if (!fn)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_callbacks_start();
    if (r != CUDA_SUCCESS)
        return r;
    return og_send_orion_host_func(stream, fn, (uint64_t)(uintptr_t)data, kind);
}

OG_EXPORT CUresult cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
    return enqueue(hStream, (uint64_t)(uintptr_t)fn, userData, 0);
}

/* How the driver waits for the function is its own affair: the guest's thread is woken either way. */
OG_EXPORT CUresult cuLaunchHostFunc_v2(CUstream hStream, CUhostFn fn, void *userData, unsigned int syncMode)
{
    return syncMode > 1 ? CUDA_ERROR_INVALID_VALUE : cuLaunchHostFunc(hStream, fn, userData);
}

OG_EXPORT CUresult cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags)
{
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    return enqueue(hStream, (uint64_t)(uintptr_t)callback, userData, 1);
}
