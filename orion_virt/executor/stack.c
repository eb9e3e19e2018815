/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that the driver takes by a context's limits: the threads' local memory, printf's buffer, malloc's heap. */
#include "extra.h"
#include "gen/ops.h"
#include "loop.h"

enum { STACK = 0, PRINTF = 1, HEAP = 2, LIMITS = 3 };           /* CUlimit */
enum { MULTIPROCESSORS = 16, THREADS_A_MULTIPROCESSOR = 39 };   /* CUdevice_attribute */
#define STACK_OF_BASE 1024u /* a context begins with so many bytes for each thread */
#define HEAP_OF_BASE (8ull << 20)

/* Of each device: bytes a thread that there is room for, and what was set for buffer and heap, which the first module that
 * uses them takes. Not given back before the last context ends. */
static struct limits {
    uint64_t stack, set[LIMITS], promised;
} limits[OC_MAX_DEVICES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Threads that the card can run at once; measured: the driver makes room for every one of them. */
static uint64_t threads_of(int device)
{
    int several = 0, threads = 0;
    CUdevice dev;

    if (oh_drv.cuDeviceGet(&dev, oh_devices[device].ordinal) != CUDA_SUCCESS ||
        OH_CALL(cuDeviceGetAttribute, &several, MULTIPROCESSORS, dev) != CUDA_SUCCESS ||
        OH_CALL(cuDeviceGetAttribute, &threads, THREADS_A_MULTIPROCESSOR, dev) != CUDA_SUCCESS)
        return 0;
    return (uint64_t)several * (uint64_t)threads;
}

CUresult oh_stack_for(int device, uint64_t bytes_a_thread)
{
    struct limits *l = &limits[device];
    uint64_t more = 0, had;
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&lock);
    had = l->stack ? l->stack : STACK_OF_BASE;
    if (bytes_a_thread > had) {
        if (__builtin_mul_overflow(bytes_a_thread - had, threads_of(device), &more))
            more = UINT64_MAX / 2;
        r = oh_extra_more(device, more);
    }
    if (more && r == CUDA_SUCCESS)
        l->stack = bytes_a_thread;
    pthread_mutex_unlock(&lock);
    return r;
}

/* Nothing is taken yet; whoever loads code that uses it must find it there. */
static CUresult promise(int device, CUlimit limit, uint64_t value)
{
    struct limits *l = &limits[device];
    uint64_t had, now;
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&lock);
    had = l->set[limit] ? l->set[limit] : HEAP_OF_BASE;
    now = value > had ? value : had;
    if (now > had) {
        r = oh_extra_more(device, now - had);
        if (r == CUDA_SUCCESS) {
            l->promised += now - had;
            l->set[limit] = now;
        }
    }
    pthread_mutex_unlock(&lock);
    return r;
}

static _Thread_local uint64_t before_load;

CUresult oh_load_begin(int device, uint64_t takes)
{
    uint64_t promised;

    if (device < 0)
        return CUDA_SUCCESS;
    if (!oh_extra_measured())
        return oh_extra_more(device, takes); /* what was promised is booked already */
    pthread_mutex_lock(&lock);
    promised = limits[device].promised;
    pthread_mutex_unlock(&lock);
    before_load = oh_extra_bytes(device);
    return oh_extra_more(device, takes + promised + OH_EXTRA_STEP);
}

CUresult oh_load_end(int device, uint64_t takes)
{
    uint64_t grown;
    bool over;

    if (device < 0 || !oh_extra_measured())
        return CUDA_SUCCESS;
    over = oh_extra_over(device);
    grown = oh_extra_bytes(device) - before_load;
    pthread_mutex_lock(&lock);
    if ((int64_t)grown >= (int64_t)(takes + limits[device].promised))
        limits[device].promised = 0; /* this code uses it */
    pthread_mutex_unlock(&lock);
    return over ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

void oh_stack_gone(int device)
{
    struct limits *l = &limits[device];
    uint64_t stack;

    pthread_mutex_lock(&lock);
    stack = l->stack > STACK_OF_BASE ? (l->stack - STACK_OF_BASE) * threads_of(device) : 0;
    oh_extra_less(device, stack + l->promised);
    *l = (struct limits){ 0 };
    pthread_mutex_unlock(&lock);
}

CUresult oh_cuCtxSetLimit(struct oh_twin *t, const struct ow_cuCtxSetLimit_in *in, uint32_t bytes,
                          struct ow_cuCtxSetLimit_out *out, uint32_t *out_bytes)
{
    CUresult r = CUDA_SUCCESS;

    (void)bytes, (void)out, (void)out_bytes;
    if (t->device < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (in->limit == STACK)
        r = oh_stack_for(t->device, in->value);
    else if (in->limit == PRINTF || in->limit == HEAP)
        r = promise(t->device, in->limit, in->value);
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuCtxSetLimit, in->limit, in->value);
    oh_extra_look();
    return r;
}
