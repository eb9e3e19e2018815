/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that the driver takes for each context by its limits: the threads' local memory, malloc's heap. Measured on an H100:
 * room for every thread that the card can run at once, from the first kernel on that needs so much, or at once when the limit is
 * set; a lower limit gives it back, and the next such kernel takes it again. */
#include "extra.h"
#include "gen/ops.h"
#include "loop.h"
#include "modules.h"

#define LOCAL_MAX (512u << 10) /* of a thread, on every architecture */
enum { STACK = 0, PRINTF = 1, HEAP = 2 };                       /* CUlimit */
enum { MULTIPROCESSORS = 16, THREADS_A_MULTIPROCESSOR = 39 };   /* CUdevice_attribute */
#define STACK_OF_BASE 1024u                  /* a context begins with so many bytes for each thread */
#define HEAP_OF_BASE (8ull << 20)
#define HEAP_A_MULTIPROCESSOR (1152ull << 10) /* beside the heap itself: 140 MiB of 132 multiprocessors */

/* Of each context; not given back before it ends. */
static struct limits {
    CUcontext context;      /* NULL: free */
    int device;
    uint64_t stack;         /* bytes a thread that there is room for */
    uint64_t asked;         /* that the client set last, 0: nothing */
    uint64_t set[3];        /* the most that was set of the others */
    uint64_t promised;      /* for them, and not taken yet */
    bool heap;              /* code that uses malloc has been loaded */
} limits[OH_STACK_SLOTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local uint64_t before_load;

static uint64_t attribute(int device, CUdevice_attribute which)
{
    int value = 0;
    CUdevice dev;

    if (oh_drv.cuDeviceGet(&dev, oh_devices[device].ordinal) != CUDA_SUCCESS ||
        OH_CALL(cuDeviceGetAttribute, &value, which, dev) != CUDA_SUCCESS || value < 0)
        return 0;
    return (uint64_t)value;
}

static uint64_t stack_bytes(int device, uint64_t a_thread)
{
    uint64_t bytes;

    if (__builtin_mul_overflow(a_thread, attribute(device, MULTIPROCESSORS) * attribute(device, THREADS_A_MULTIPROCESSOR), &bytes))
        return UINT64_MAX / 2;
    return bytes;
}

static int find_locked(CUcontext context)
{
    for (int i = 0; i < OH_STACK_SLOTS; i++)
        if (limits[i].context == context)
            return i;
    return -1;
}

int oh_stack_slot(CUcontext context)
{
    int slot;

    pthread_mutex_lock(&lock);
    slot = context ? find_locked(context) : -1;
    pthread_mutex_unlock(&lock);
    return slot;
}

/* Kernels have room in the contexts that they ran in; this one is another. */
static void forget_room(uint64_t id, void *real, void *data, void *slot)
{
    struct oh_function *f = data;

    (void)id, (void)real;
    if (f)
        atomic_fetch_and(&f->ran, ~(1ull << *(const int *)slot));
}

void oh_stack_begin(CUcontext context, int device)
{
    int slot;

    pthread_mutex_lock(&lock);
    slot = find_locked(context);
    if (slot < 0) {
        slot = find_locked(NULL);
        if (slot >= 0)
            limits[slot] = (struct limits){ .context = context, .device = device, .stack = STACK_OF_BASE };
    }
    pthread_mutex_unlock(&lock);
    if (slot < 0)
        return;
    oh_each(OW_KIND_FUNCTION, forget_room, &slot);
    oh_each(OW_KIND_KERNEL, forget_room, &slot);
}

void oh_stack_end(CUcontext context)
{
    int slot;

    pthread_mutex_lock(&lock);
    slot = find_locked(context);
    if (slot >= 0) {
        struct limits *l = &limits[slot];

        oh_extra_less(l->device, stack_bytes(l->device, l->stack - STACK_OF_BASE) + l->promised);
        *l = (struct limits){ 0 };
    }
    pthread_mutex_unlock(&lock);
}

CUresult oh_stack_for(int slot, uint64_t bytes_a_thread)
{
    CUresult r = CUDA_SUCCESS;
    struct limits *l;

    if (slot < 0)
        return r;
    pthread_mutex_lock(&lock);
    l = &limits[slot];
    if (l->context && bytes_a_thread > l->stack) {
        r = oh_extra_more(l->device, stack_bytes(l->device, bytes_a_thread - l->stack));
        if (r == CUDA_SUCCESS)
            l->stack = bytes_a_thread;
    }
    pthread_mutex_unlock(&lock);
    return r;
}

/* Nothing is taken yet; whoever loads code that uses it must find it there. */
static CUresult promise_locked(struct limits *l, CUlimit limit, uint64_t value)
{
    uint64_t had = l->set[limit] ? l->set[limit] : HEAP_OF_BASE;
    CUresult r;

    if (value <= had)
        return CUDA_SUCCESS;
    r = oh_extra_more(l->device, value - had);
    if (r != CUDA_SUCCESS)
        return r;
    l->promised += value - had;
    l->set[limit] = value;
    return r;
}

/* The driver refused the limit. */
static void take_back(struct limits *l, CUlimit limit, uint64_t promised)
{
    pthread_mutex_lock(&lock);
    if (l->promised > promised && limit <= HEAP) {
        oh_extra_less(l->device, l->promised - promised);
        l->set[limit] -= l->promised - promised;
        l->promised = promised;
    }
    pthread_mutex_unlock(&lock);
}

CUresult oh_load_begin(int slot, int device, uint64_t takes, bool mallocs)
{
    uint64_t more = OH_EXTRA_STEP;

    if (device < 0)
        return CUDA_SUCCESS;
    if (!oh_extra_measured())
        return oh_extra_more(device, takes); /* what was promised is booked already */
    pthread_mutex_lock(&lock);
    if (slot >= 0) {
        more += limits[slot].promised;
        if (mallocs && !limits[slot].heap)
            more += HEAP_OF_BASE + HEAP_A_MULTIPROCESSOR * attribute(device, MULTIPROCESSORS);
    }
    pthread_mutex_unlock(&lock);
    before_load = oh_extra_bytes(device);
    return oh_extra_more(device, takes + more);
}

CUresult oh_load_end(int slot, int device, uint64_t takes, bool mallocs)
{
    int64_t grown;
    bool over;

    if (device < 0 || !oh_extra_measured())
        return CUDA_SUCCESS;
    over = oh_extra_over_now(device);
    grown = (int64_t)(oh_extra_bytes(device) - before_load);
    pthread_mutex_lock(&lock);
    if (slot >= 0 && grown >= (int64_t)(takes + limits[slot].promised))
        limits[slot].promised = 0; /* this code uses it */
    if (slot >= 0 && mallocs)
        limits[slot].heap = true;
    pthread_mutex_unlock(&lock);
    return over ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

/* A lower stack is told and not passed on: what gave way would come back with the next launch, unasked. */
CUresult oh_cuCtxSetLimit(struct oh_twin *t, const struct ow_cuCtxSetLimit_in *in, uint32_t bytes,
                          struct ow_cuCtxSetLimit_out *out, uint32_t *out_bytes)
{
    bool lower = false;
    uint64_t before = 0;
    size_t has = 0; /* what the driver keeps room for; a lower limit is not passed on */
    CUresult r = CUDA_SUCCESS;

    (void)bytes, (void)out, (void)out_bytes;
    if (in->limit == STACK && in->value > LOCAL_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    if (in->limit == STACK)
        r = oh_stack_for(t->stack_slot, in->value);
    if (r == CUDA_SUCCESS && in->limit == STACK)
        r = OH_CALL(cuCtxGetLimit, &has, in->limit);
    if (t->stack_slot >= 0) {
        struct limits *l = &limits[t->stack_slot];

        pthread_mutex_lock(&lock);
        before = l->promised;
        if (in->limit == PRINTF || in->limit == HEAP)
            r = promise_locked(l, in->limit, in->value);
        lower = in->limit == STACK && in->value < has && in->value;
        if (r == CUDA_SUCCESS && in->limit == STACK)
            l->asked = (in->value + 15) & ~15ull;
        pthread_mutex_unlock(&lock);
    }
    if (r == CUDA_SUCCESS && !lower) {
        r = OH_CALL(cuCtxSetLimit, in->limit, in->value);
        if (r != CUDA_SUCCESS && t->stack_slot >= 0 && in->limit != STACK)
            take_back(&limits[t->stack_slot], in->limit, before);
    }
    oh_extra_look();
    return r;
}

CUresult oh_cuCtxGetLimit(struct oh_twin *t, const struct ow_cuCtxGetLimit_in *in, uint32_t bytes,
                          struct ow_cuCtxGetLimit_out *out, uint32_t *out_bytes)
{
    size_t value = 0;
    CUresult r = OH_CALL(cuCtxGetLimit, &value, in->limit);

    (void)bytes;
    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&lock);
    if (in->limit == STACK && t->stack_slot >= 0 && limits[t->stack_slot].asked && limits[t->stack_slot].asked < value)
        value = limits[t->stack_slot].asked;
    pthread_mutex_unlock(&lock);
    out->pvalue = value;
    *out_bytes = sizeof(*out);
    return r;
}
