/* SPDX-License-Identifier: Apache-2.0 */
/* The longest that a kernel may run ([server] longest_kernel). Every launch lies between two events of its stream: between
 * the first's completion and the second's nothing but that launch runs there, so a queue of many short kernels, a stream
 * that waits for the host and a wait for another stream's work never count. A thread looks at the oldest launch of each
 * stream; no driver ends one kernel alone, so a launch that is overdue ends the channel, and with the worker its context. */
#include "limit.h"

#include <stdlib.h>
#include <time.h>

#include "loop.h"
#include "turn.h"

#define LOOK_MAX_NS 1000000000u
#define IDLE_NS 10000000000u    /* without launches for so long, a stream is forgotten */
#define STREAMS_IN_HAND 16u     /* of one launch on several devices, as many as a process has */
#define PER_THREAD ((void *)2)  /* a stream of each twin's own */

struct span { /* one launch */
    CUevent begin, end;
    struct span *next;
};

struct lane { /* a stream with launches */
    void *stream;
    CUcontext context;
    struct oh_twin *owner;      /* of a per-thread stream */
    struct span *first, **last; /* oldest first */
    struct span *spare;
    uint64_t begun_ns;          /* when the first was seen to have begun, 0: not yet */
    uint64_t used_ns;
    unsigned users;             /* commands in hand */
    bool ends;                  /* the context does: its events must not be touched; begun_ns is when it began to */
    struct lane *next;
};

struct hand { /* the command between enter and leave */
    struct oh_twin *twin;
    struct lane *lane[STREAMS_IN_HAND];
    struct span *span[STREAMS_IN_HAND];
    unsigned nr;
};

bool oh_limit_on;
static struct lane *lanes;
static uint64_t limit_ns;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct hand hand;

bool oh_limit_counts(uint32_t op)
{
    return op == OW_OP_orion_launch || op == OW_OP_orion_launch_ex || op == OW_OP_orion_launch_updatable ||
           op == OW_OP_orion_launch_multi || op == OW_OP_cuGraphLaunch;
}

/* ---- spans: the lock is held ---- */

static void collect_locked(struct lane *l)
{
    while (l->first && oh_event_is_complete(l->first->end)) {
        struct span *s = l->first;

        l->first = s->next;
        if (!l->first)
            l->last = &l->first;
        s->next = l->spare;
        l->spare = s;
        l->begun_ns = 0;
    }
}

static struct span *span_locked(struct lane *l)
{
    struct span *s = l->spare;
    CUcontext popped;
    bool made;

    if (s) {
        l->spare = s->next;
        return s;
    }
    s = calloc(1, sizeof(*s));
    if (!s || oh_drv.cuCtxPushCurrent_v2(l->context) != CUDA_SUCCESS) {
        free(s);
        return NULL;
    }
    made = oh_drv.cuEventCreate(&s->begin, 2 /* no times */) == CUDA_SUCCESS;
    if (made && oh_drv.cuEventCreate(&s->end, 2) != CUDA_SUCCESS) {
        (void)oh_drv.cuEventDestroy_v2(s->begin);
        made = false;
    }
    (void)oh_drv.cuCtxPopCurrent_v2(&popped);
    if (made)
        return s;
    free(s);
    return NULL;
}

static void drop_spans(struct span *s, bool destroy)
{
    while (s) {
        struct span *next = s->next;

        if (destroy) {
            (void)oh_drv.cuEventDestroy_v2(s->begin);
            (void)oh_drv.cuEventDestroy_v2(s->end);
        }
        free(s);
        s = next;
    }
}

/* Takes a lane that no command has in hand off the list; its events are destroyed unless their context has been. */
static void forget_locked(struct lane *l)
{
    struct lane **p = &lanes;

    while (*p != l)
        p = &(*p)->next;
    *p = l->next;
    drop_spans(l->first, !l->ends);
    drop_spans(l->spare, !l->ends);
    free(l);
}

static struct lane *lane_locked(void *stream, CUcontext context, struct oh_twin *t)
{
    struct oh_twin *owner = stream == PER_THREAD ? t : NULL;
    struct lane *l;

    for (l = lanes; l; l = l->next)
        if (l->stream == stream && l->context == context && l->owner == owner)
            return l->ends ? NULL : l;
    l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    *l = (struct lane){ .stream = stream, .context = context, .owner = owner, .last = &l->first, .next = lanes };
    lanes = l;
    return l;
}

/* ---- commands ---- */

static CUcontext context_of(void *stream)
{
    CUcontext context = NULL;

    if ((uintptr_t)stream <= 2 || OH_CALL(cuStreamGetCtx, stream, &context) != CUDA_SUCCESS)
        (void)oh_drv.cuCtxGetCurrent(&context);
    return context;
}

static bool captures(void *stream)
{
    CUstreamCaptureStatus status = 0;

    return OH_CALL(cuStreamIsCapturing, stream, &status) != CUDA_SUCCESS || status != 0;
}

void oh_limit_enter(struct oh_twin *t)
{
    hand.twin = t;
    hand.nr = 0;
}

static void spare(struct lane *l, struct span *s)
{
    s->next = l->spare;
    l->spare = s;
}

/* A record may block, on a queue that is full of launches behind one that never ends: never under the lock, which the
 * thread that looks needs. */
void oh_limit_stream(void *stream)
{
    struct lane *l;
    struct span *s = NULL;
    bool recorded;

    if (!hand.twin || hand.nr == STREAMS_IN_HAND || captures(stream))
        return;
    pthread_mutex_lock(&lock);
    l = lane_locked(stream, context_of(stream), hand.twin);
    if (l) {
        collect_locked(l);
        s = span_locked(l);
        l->users += s != NULL;
    }
    pthread_mutex_unlock(&lock);
    if (!s)
        return;
    recorded = oh_drv.cuEventRecord(s->begin, stream) == CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    if (recorded) {
        hand.lane[hand.nr] = l;
        hand.span[hand.nr++] = s;
    } else {
        l->users--;
        spare(l, s);
    }
    pthread_mutex_unlock(&lock);
}

static void leave(struct lane *l, struct span *s)
{
    bool recorded;

    pthread_mutex_lock(&lock);
    recorded = !l->ends; /* else its context has ended meanwhile */
    pthread_mutex_unlock(&lock);
    recorded = recorded && oh_drv.cuEventRecord(s->end, l->stream) == CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    l->users--;
    l->used_ns = oh_now_ns();
    if (recorded) {
        s->next = NULL;
        *l->last = s;
        l->last = &s->next;
    } else {
        spare(l, s);
    }
    pthread_mutex_unlock(&lock);
}

void oh_limit_leave(void)
{
    for (unsigned i = 0; i < hand.nr; i++)
        leave(hand.lane[i], hand.span[i]);
    hand.twin = NULL;
}

void oh_limit_context_ends(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (struct lane *l = lanes; l; l = l->next)
        if (l->context == context) {
            if (!l->begun_ns)
                l->begun_ns = oh_now_ns();
            l->ends = true;
        }
    pthread_mutex_unlock(&lock);
}

void oh_limit_context_ended(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (struct lane *l = lanes, *next; l; l = next) {
        next = l->next;
        if (l->context == context && l->ends)
            l->context = NULL; /* another context may get that address */
    }
    pthread_mutex_unlock(&lock);
}

/* ---- the thread that looks ---- */

/* True: the oldest launch is overdue. */
static bool look_locked(struct lane *l, uint64_t now)
{
    if (!l->ends) {
        collect_locked(l);
        if (l->first && !l->begun_ns && oh_event_is_complete(l->first->begin))
            l->begun_ns = now;
    } else if (!l->context) {
        if (!l->users)
            forget_locked(l);
        return false;
    }
    if (l->first)
        return l->begun_ns && now - l->begun_ns >= limit_ns;
    if (!l->ends && !l->users && now - l->used_ns > IDLE_NS)
        forget_locked(l);
    return false;
}

static void look(void)
{
    bool overdue = false;

    pthread_mutex_lock(&lock);
    for (struct lane *l = lanes, *next; l; l = next) {
        next = l->next;
        overdue = look_locked(l, oh_now_ns()) || overdue;
    }
    pthread_mutex_unlock(&lock);
    if (overdue)
        oh_end(OC_CLOSED_LIMIT, "a kernel ran for more than %u s, the most that this host allows ([server] longest_kernel)",
               oh_config.kernel_seconds);
}

static void *looker(void *unused)
{
    uint64_t every = limit_ns / 16 < LOOK_MAX_NS ? limit_ns / 16 : LOOK_MAX_NS;
    const struct timespec pause = { (time_t)(every / 1000000000u), (long)(every % 1000000000u) };

    (void)unused;
    while (!atomic_load_explicit(&oh_ending, memory_order_relaxed)) {
        nanosleep(&pause, NULL);
        look();
    }
    return NULL;
}

int oh_limit_start(void)
{
    pthread_t thread;
    int err;

    limit_ns = oh_config.kernel_seconds * UINT64_C(1000000000);
    err = pthread_create(&thread, NULL, looker, NULL);
    if (err)
        return -err;
    pthread_detach(thread);
    oh_limit_on = true;
    return 0;
}
