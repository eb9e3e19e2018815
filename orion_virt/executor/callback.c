/* SPDX-License-Identifier: Apache-2.0 */
/* Host functions: the driver calls a trampoline here, which has the guest run the function and waits for it. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "graph.h"
#include "loop.h"

#define SPIN_NS 50000u
#define NAP_MIN_NS 20000u
#define NAP_MAX_NS 1000000u
#define MAX_KEPT 1000000u /* host nodes of all graphs of a client */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* orders entries; held while one is free'd by the guest */
static uint64_t last_seq;
static _Atomic uint32_t nr_kept;

static struct oc_callback *entry(uint64_t seq)
{
    struct oc_callback *entries = (struct oc_callback *)((uint8_t *)oh_channel + OC_CALLBACKS_OFF);

    return &entries[(seq - 1) % OC_NR_CALLBACKS];
}

/* Until the guest has run `seq`; false: the channel ends. The guest's word is a number, nothing follows from it. */
static bool wait_ack(uint64_t seq)
{
    struct oc_callback *e = entry(seq);
    uint64_t end = oh_now_ns() + SPIN_NS;
    struct timespec nap = { 0, NAP_MIN_NS };

    /* pairs with the guest's callback thread */
    while (atomic_load_explicit(&e->ack, memory_order_acquire) < seq) {
        if (atomic_load(&oh_ending) != OC_OPEN)
            return false;
        if (oh_now_ns() < end) {
            __builtin_ia32_pause();
            continue;
        }
        nanosleep(&nap, NULL);
        nap.tv_nsec = nap.tv_nsec * 2 < NAP_MAX_NS ? nap.tv_nsec * 2 : NAP_MAX_NS;
    }
    return true;
}

static void fill(const struct oh_host_call *call, uint32_t status, uint64_t seq)
{
    struct oc_callback *e = entry(seq);

    e->fn = call->fn;
    e->data = call->data;
    e->kind = call->kind;
    e->status = status;
    e->stream = call->stream;
    atomic_store_explicit(&e->seq, seq, memory_order_release); /* pairs with the guest's callback thread */
    oh_flush(oh_config.block_off + (uint64_t)((uint8_t *)e - (uint8_t *)oh_channel), offsetof(struct oc_callback, ack));
    atomic_store_explicit(&oh_channel->callback_seq, (uint32_t)seq, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* before the look at callback_parked; pairs with og_wait */
    if (oh_config.region_fd < 0 || atomic_load_explicit(&oh_channel->callback_parked, memory_order_relaxed))
        oh_wake();
}

void oh_deliver(const struct oh_host_call *call, uint32_t status, bool wait)
{
    uint64_t seq;
    bool open = true;

    oh_output_flush(); /* the driver shows it before a host function */
    oh_transport_head();
    pthread_mutex_lock(&lock);
    seq = ++last_seq;
    if (seq > OC_NR_CALLBACKS)
        open = wait_ack(seq - OC_NR_CALLBACKS); /* the entry's last user */
    if (open)
        fill(call, status, seq);
    pthread_mutex_unlock(&lock);
    if (open && wait)
        wait_ack(seq);
}

static void deliver(struct oh_host_call *call, CUresult status)
{
    bool keep = call->keep; /* then it may end with its graph at any time */

    oh_deliver(call, (uint32_t)status, true);
    if (!keep)
        free(call);
}

void oh_trampoline(void *call)
{
    deliver(call, CUDA_SUCCESS);
}

void oh_host_call_free(void *call)
{
    if (((struct oh_host_call *)call)->keep)
        atomic_fetch_sub(&nr_kept, 1);
    free(call);
}

static void stream_trampoline(CUstream stream, CUresult status, void *call)
{
    (void)stream;
    deliver(call, status);
}

CUresult oh_host_call_make(uint64_t fn, uint64_t data, uint64_t stream, uint32_t kind, bool keep,
                           struct oh_host_call **call)
{
    struct oh_host_call *c;

    if (keep && atomic_fetch_add(&nr_kept, 1) >= MAX_KEPT) {
        atomic_fetch_sub(&nr_kept, 1);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    c = calloc(1, sizeof(*c));
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *c = (struct oh_host_call){ .fn = fn, .data = data, .stream = stream, .kind = kind, .keep = keep };
    *call = c;
    return CUDA_SUCCESS;
}

CUresult oh_orion_host_func(struct oh_twin *t, const struct ow_orion_host_func_in *in, uint32_t bytes,
                            struct ow_orion_host_func_out *out, uint32_t *out_bytes)
{
    struct oh_host_call *call;
    CUgraph graph = NULL;
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (r == CUDA_SUCCESS) /* a recorded one runs at every launch of its graph */
        graph = oh_capture_graph(stream);
    if (r == CUDA_SUCCESS)
        r = oh_host_call_make(in->fn, in->data, in->stream, in->kind, graph != NULL, &call);
    if (r != CUDA_SUCCESS)
        return r;
    if (in->kind == 1)
        r = oh_drv.cuStreamAddCallback(stream, stream_trampoline, call, 0);
    else
        r = oh_drv.cuLaunchHostFunc(stream, oh_trampoline, call);
    if (r != CUDA_SUCCESS)
        oh_host_call_free(call);
    else if (graph)
        (void)oh_graph_keeps(graph, call, oh_host_call_free, NULL);
    return r;
}
