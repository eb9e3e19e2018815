/* SPDX-License-Identifier: Apache-2.0 */
/* Turns on a card, where compute limits are on. The daemon says when this worker may bring work to a card and when it must
 * stop; a turn has ended when all the work that it brought is done, which events behind that work tell. Alone on a card
 * nothing is recorded but which streams have work. While others wait, only a few milliseconds of work lie on the card, so
 * that a turn ends soon after it was told to. */
#include "turn.h"

#include <stdlib.h>
#include <time.h>

#include "loop.h"

#define LOOK_NS 500000u        /* how often a turn that others wait for is looked at */
#define IDLE_NS 1000000u       /* without work for so long, it is given back */
#define POLL_NS 50000u
#define ASLEEP_NS 500000000u
#define BATCH_SHORT_NS 1000000u /* a batch that takes less is made larger, */
#define BATCH_LONG_NS 4000000u  /* one that takes more smaller */
#define BATCH_MAX 512u
#define NR_STREAMS 64u          /* with work at a time; of more, each command is waited for */
#define PER_THREAD ((void *)2)  /* a stream of the twin's own: only its thread can record an event there */

enum turn_state { TURN_NONE, TURN_ALONE, TURN_SHARED };

struct flight { /* an event behind work */
    CUevent event;
    CUcontext context;
    struct flight *next;
};

struct busy { /* a stream with work behind which no event lies yet */
    void *stream;
    CUcontext context;
    unsigned commands;
};

struct turn {
    enum turn_state state;
    bool asked, ending;
    unsigned inside;            /* commands between enter and leave */
    struct busy busy[NR_STREAMS];
    unsigned nr_busy;
    struct flight *first, **end;
    unsigned nr_flights, batch;
    uint64_t left_ns, done_ns;  /* when the last command left, and the last event was seen complete */
};

bool oh_turns_on;
static bool nobody_gives; /* turns: there is no daemon now */
static struct turn turns[OC_MAX_DEVICES]; /* of the first vGPU on each card */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t begun = PTHREAD_COND_INITIALIZER; /* some turn began, or shall end */
static _Thread_local struct turn *turn_in_hand; /* of the command between enter and leave */
static _Thread_local void *stream_in_hand;      /* the last that it asked for; without one it is the legacy stream */

static uint32_t card_of(int device)
{
    uint32_t card = 0;

    if (device < 0 || (uint32_t)device >= oh_nr_devices)
        return 0;
    while (oh_devices[card].ordinal != oh_devices[device].ordinal)
        card++;
    return card;
}

static void wait_locked(uint64_t ns)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)ns;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&begun, &lock, &until);
}

static void tell(enum oh_control_kind kind, uint32_t card)
{
    struct oh_control m = { .kind = kind, .a = card };

    oh_control_tell(&m);
}

/* ---- events behind work: the lock is held ---- */

/* Questions about events are forbidden to a thread while another captures in global mode, unless it says that it knows. */
static CUstreamCaptureMode relaxed(void)
{
    CUstreamCaptureMode mode = (CUstreamCaptureMode)2; /* CU_STREAM_CAPTURE_MODE_RELAXED */

    if (oh_drv.cuThreadExchangeStreamCaptureMode)
        (void)oh_drv.cuThreadExchangeStreamCaptureMode(&mode);
    return mode;
}

static void unrelaxed(CUstreamCaptureMode mode)
{
    if (oh_drv.cuThreadExchangeStreamCaptureMode)
        (void)oh_drv.cuThreadExchangeStreamCaptureMode(&mode);
}

static bool captures(void *stream)
{
    CUstreamCaptureStatus status = 0;

    return OH_CALL(cuStreamIsCapturing, stream, &status) != CUDA_SUCCESS || status != 0;
}

static void record_locked(struct turn *turn, struct busy *b)
{
    struct flight *f = malloc(sizeof(*f));
    bool recorded = false;

    b->commands = 0;
    if (f && oh_drv.cuCtxPushCurrent_v2(b->context) == CUDA_SUCCESS) {
        CUstreamCaptureMode mode = relaxed();
        CUcontext popped;

        f->event = NULL;
        if (!captures(b->stream) && oh_drv.cuEventCreate(&f->event, 2 /* no times */) == CUDA_SUCCESS) {
            recorded = oh_drv.cuEventRecord(f->event, b->stream) == CUDA_SUCCESS;
            if (!recorded)
                (void)oh_drv.cuEventDestroy_v2(f->event);
        }
        unrelaxed(mode);
        (void)oh_drv.cuCtxPopCurrent_v2(&popped);
    }
    if (!recorded) { /* a capture, which brings no work, or a context that has ended */
        free(f);
        return;
    }
    f->context = b->context;
    f->next = NULL;
    *turn->end = f;
    turn->end = &f->next;
    turn->nr_flights++;
}

static void record_all_locked(struct turn *turn)
{
    for (unsigned i = 0; i < turn->nr_busy; i++)
        if (turn->busy[i].commands)
            record_locked(turn, &turn->busy[i]);
    turn->nr_busy = 0;
}

bool oh_event_is_complete(CUevent event)
{
    CUstreamCaptureMode mode = relaxed();
    CUresult r = oh_drv.cuEventQuery(event);

    unrelaxed(mode);
    return r != CUDA_ERROR_NOT_READY;
}

static struct flight *take_first_locked(struct turn *turn)
{
    struct flight *f = turn->first;

    turn->first = f->next;
    if (!turn->first)
        turn->end = &turn->first;
    turn->nr_flights--;
    return f;
}

static void drop(struct flight *f)
{
    (void)oh_drv.cuEventDestroy_v2(f->event);
    free(f);
}

static void collect_locked(struct turn *turn)
{
    while (turn->first && oh_event_is_complete(turn->first->event))
        drop(take_first_locked(turn));
}

/* How many commands lie behind one event: about a millisecond's. */
static void learn_locked(struct turn *turn, uint64_t now)
{
    uint64_t took = now - turn->done_ns;

    if (took < BATCH_SHORT_NS && turn->batch < BATCH_MAX)
        turn->batch *= 2;
    else if (took > BATCH_LONG_NS && turn->batch > 1)
        turn->batch /= 2;
    turn->done_ns = now;
}

/* While others wait, two events of each stream may be open; the lock is given up meanwhile. */
static void hold_back_locked(struct turn *turn)
{
    const struct timespec pause = { 0, POLL_NS };

    while (turn->nr_flights > 2 * (turn->nr_busy ? turn->nr_busy : 1)) {
        struct flight *f = take_first_locked(turn);

        pthread_mutex_unlock(&lock);
        while (!oh_event_is_complete(f->event) && !atomic_load_explicit(&oh_ending, memory_order_relaxed))
            nanosleep(&pause, NULL);
        pthread_mutex_lock(&lock);
        drop(f);
        learn_locked(turn, oh_now_ns());
    }
}

/* ---- commands ---- */

void oh_turn_enter(struct oh_twin *t)
{
    uint32_t card = card_of(t->device);
    struct turn *turn = &turns[card];

    pthread_mutex_lock(&lock);
    while ((turn->state == TURN_NONE || turn->ending) && !nobody_gives &&
           !atomic_load_explicit(&oh_ending, memory_order_relaxed)) {
        if (!turn->asked && !turn->ending) {
            turn->asked = true;
            tell(OH_TURN_WANT, card);
        }
        wait_locked(100000000);
    }
    turn->inside++;
    pthread_mutex_unlock(&lock);
    turn_in_hand = turn;
    stream_in_hand = NULL;
}

static CUcontext context_of(void *stream)
{
    CUcontext context = NULL;
    bool own = (uintptr_t)stream > 2 && oh_drv.cuStreamGetCtx;

    if (!own || oh_drv.cuStreamGetCtx(stream, &context) != CUDA_SUCCESS)
        (void)oh_drv.cuCtxGetCurrent(&context);
    return context;
}

static struct busy *busy_locked(struct turn *turn, void *stream)
{
    CUcontext context = (uintptr_t)stream > 2 ? NULL : context_of(stream);

    for (unsigned i = 0; i < turn->nr_busy; i++)
        if (turn->busy[i].stream == stream && (!context || turn->busy[i].context == context))
            return &turn->busy[i];
    if (turn->nr_busy == NR_STREAMS)
        record_all_locked(turn);
    turn->busy[turn->nr_busy] = (struct busy){ stream, context ? context : context_of(stream), 0 };
    return &turn->busy[turn->nr_busy++];
}

static void note_locked(struct turn *turn, void *stream)
{
    struct busy *b = busy_locked(turn, stream);

    b->commands++;
    if (b->stream == PER_THREAD || (turn->state == TURN_SHARED && b->commands >= turn->batch))
        record_locked(turn, b);
}

void oh_turn_stream(void *stream)
{
    if (turn_in_hand && stream_in_hand && stream_in_hand != stream) { /* one command, several streams */
        pthread_mutex_lock(&lock);
        note_locked(turn_in_hand, stream_in_hand);
        pthread_mutex_unlock(&lock);
    }
    stream_in_hand = stream;
}

void oh_turn_leave(void)
{
    struct turn *turn = turn_in_hand;

    pthread_mutex_lock(&lock);
    note_locked(turn, stream_in_hand);
    if (turn->state == TURN_SHARED)
        hold_back_locked(turn);
    else
        collect_locked(turn);
    turn->left_ns = oh_now_ns();
    if (--turn->inside == 0 && turn->ending)
        pthread_cond_broadcast(&begun);
    pthread_mutex_unlock(&lock);
    turn_in_hand = NULL;
}

void oh_turn_stream_ends(void *stream)
{
    pthread_mutex_lock(&lock);
    for (uint32_t card = 0; card < oh_nr_devices; card++)
        for (unsigned i = 0; i < turns[card].nr_busy; i++) {
            struct turn *turn = &turns[card];

            if (turn->busy[i].stream != stream)
                continue;
            if (turn->busy[i].commands)
                record_locked(turn, &turn->busy[i]); /* what it still does is this turn's */
            turn->busy[i--] = turn->busy[--turn->nr_busy];
        }
    pthread_mutex_unlock(&lock);
}

void oh_turn_context_ends(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (uint32_t card = 0; card < oh_nr_devices; card++) {
        struct turn *turn = &turns[card];
        struct flight *kept = NULL, **end = &kept;

        for (unsigned i = 0; i < turn->nr_busy; i++)
            if (turn->busy[i].context == context)
                turn->busy[i--] = turn->busy[--turn->nr_busy];
        while (turn->first) {
            struct flight *f = take_first_locked(turn);

            if (f->context == context) {
                drop(f);
                continue;
            }
            f->next = NULL;
            *end = f;
            end = &f->next;
            turn->nr_flights++;
        }
        turn->first = kept;
        turn->end = kept ? end : &turn->first;
    }
    pthread_mutex_unlock(&lock);
}

/* ---- the daemon's orders, and the thread that ends turns ---- */

void oh_turn_order(const struct oh_control *m)
{
    struct turn *turn;

    if (!oh_turns_on || m->a >= oh_nr_devices)
        return;
    turn = &turns[m->a];
    pthread_mutex_lock(&lock);
    if (m->b) {
        turn->state = m->b == 1 ? TURN_ALONE : TURN_SHARED;
        turn->asked = turn->ending = false;
        turn->left_ns = turn->done_ns = oh_now_ns();
    } else {
        turn->ending = true;
    }
    pthread_cond_broadcast(&begun);
    pthread_mutex_unlock(&lock);
}

void oh_turns_free(bool on)
{
    pthread_mutex_lock(&lock);
    nobody_gives = on;
    for (uint32_t card = 0; oh_turns_on && card < oh_nr_devices; card++) {
        turns[card].asked = false;
        turns[card].ending = !on; /* what has begun without being asked for is done first */
    }
    pthread_cond_broadcast(&begun);
    pthread_mutex_unlock(&lock);
}

/* Of a turn that others wait for, or that shall end. */
static void look_locked(uint32_t card)
{
    struct turn *turn = &turns[card];
    uint64_t idle;

    if (turn->inside || (turn->state != TURN_SHARED && !turn->ending))
        return;
    idle = oh_now_ns() - turn->left_ns;
    if (turn->ending || idle >= IDLE_NS / 2)
        record_all_locked(turn);
    collect_locked(turn);
    if (turn->first || turn->nr_busy || (!turn->ending && idle < IDLE_NS))
        return;
    turn->state = TURN_NONE;
    turn->ending = false;
    tell(OH_TURN_DONE, card);
    pthread_cond_broadcast(&begun);
}

static void *ender(void *unused)
{
    uint64_t wait_ns;

    (void)unused;
    pthread_mutex_lock(&lock);
    while (!atomic_load_explicit(&oh_ending, memory_order_relaxed)) {
        wait_ns = ASLEEP_NS;
        for (uint32_t card = 0; card < oh_nr_devices; card++) {
            look_locked(card);
            if (turns[card].ending)
                wait_ns = POLL_NS;
            else if (turns[card].state == TURN_SHARED && wait_ns > LOOK_NS)
                wait_ns = LOOK_NS;
        }
        wait_locked(wait_ns);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

int oh_turns_start(void)
{
    pthread_t thread;
    int err;

    for (unsigned i = 0; i < OC_MAX_DEVICES; i++)
        turns[i] = (struct turn){ .end = &turns[i].first, .batch = 1 };
    err = pthread_create(&thread, NULL, ender, NULL);
    if (err)
        return -err;
    pthread_detach(thread);
    oh_turns_on = true;
    return 0;
}
