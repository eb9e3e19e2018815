/* SPDX-License-Identifier: Apache-2.0 */
/* The quota of each device: what the client booked, and what the driver takes for itself beside it.
 *
 * The driver's report of this process, less the contexts that placement has paid for and what is booked, is what it takes for
 * itself: `extra`. Asking takes about a millisecond, so it is not asked at each call. Each that may make the driver take more
 * adds the most that it could be to `may`; only when all three together would pass the limit is the driver asked, which makes
 * `may` nought and `extra` right. So far from the limit nobody asks, and near it nothing passes unseen. */
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#include "extra.h"
#include "loop.h"

#define SLACK (4ull << 20)      /* what a call may take beyond the limit, once: pieces smaller than that are not foretold */
#define NEAR (1ull << 30)       /* of the limit: looked at more often */
#define NEAR_US 50000u
#define FAR_US 500000u

enum report { UNKNOWN = 0, MEASURED, COMPUTED };

static struct account {
    _Atomic uint64_t booked, extra, may;
    uint64_t base;              /* of the first context; [lock] */
} accounts[OC_MAX_DEVICES];
static _Atomic enum report report;
static _Atomic unsigned in_flight;     /* twins whose command has booked and is not done: the card may not show it yet */
static _Atomic uint64_t moves;         /* bookings so far, both ways */
static _Thread_local bool flies;
static _Atomic bool stale;             /* something happened since the driver was asked */
static sem_t wanted;                   /* posted when it becomes stale */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of measuring */

static bool counts(int device)
{
    return device >= 0 && (uint32_t)device < oh_nr_devices;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

bool oh_extra_measured(void)
{
    return atomic_load_explicit(&report, memory_order_relaxed) == MEASURED;
}

uint64_t oh_extra_bytes(int device)
{
    return atomic_load(&accounts[device].extra);
}

uint64_t oh_extra_base_bytes(int device)
{
    return accounts[device].base > oh_devices[device].base_bytes ? accounts[device].base : oh_devices[device].base_bytes;
}

void oh_extra_look(void)
{
    if (!atomic_exchange(&stale, true))
        sem_post(&wanted);
}

static void fly(void)
{
    if (flies)
        return;
    flies = true;
    atomic_fetch_add(&in_flight, 1);
}

void oh_extra_settle(void)
{
    if (!flies)
        return;
    flies = false;
    atomic_fetch_sub(&in_flight, 1);
    oh_extra_look();
}

/* ---- asking the driver ---- */

struct card { /* sums over the vGPUs of one */
    uint64_t base, booked, extra, may;
};

static struct card sum_of(int ordinal)
{
    struct card c = { 0 };

    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        if (oh_devices[i].ordinal != ordinal)
            continue;
        c.base += accounts[i].base;
        c.booked += atomic_load(&accounts[i].booked);
        c.extra += atomic_load(&accounts[i].extra);
        c.may += atomic_load(&accounts[i].may);
    }
    return c;
}

static void set_extra(int device, uint64_t extra)
{
    struct account *a = &accounts[device];
    uint64_t before = atomic_exchange(&a->extra, extra);

    atomic_fetch_add(oh_devices[device].used_bytes, extra - before); /* also downwards */
}

/* Who may have caused a growth pays for it; a card with one vGPU has no question. */
static void share_out(int ordinal, int asker, const struct card *before, uint64_t extra)
{
    uint64_t grown = less(extra, before->extra);

    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        uint64_t had = atomic_load(&accounts[i].extra), may = atomic_load(&accounts[i].may), part;

        if (oh_devices[i].ordinal != ordinal)
            continue;
        if (grown)
            part = had + (before->may ? (uint64_t)((double)grown * (double)may / (double)before->may) : (int)i == asker ? grown : 0);
        else
            part = before->extra ? (uint64_t)((double)extra * (double)had / (double)before->extra) : 0;
        set_extra((int)i, part);
    }
}

static void forget_may(int ordinal)
{
    for (uint32_t i = 0; i < oh_nr_devices; i++)
        if (oh_devices[i].ordinal == ordinal)
            atomic_fetch_sub(oh_devices[i].used_bytes, atomic_exchange(&accounts[i].may, 0));
}

/* While others' commands are under way the card may not show yet what they booked, or show what they gave back: then what was
 * seen is the least that it can be. */
static void measure(int device)
{
    int ordinal = oh_devices[device].ordinal;
    struct card before;
    uint64_t at, used, extra;
    bool quiet;

    if (!oh_extra_measured())
        return;
    pthread_mutex_lock(&lock);
    atomic_store(&stale, false);
    at = atomic_load(&moves);
    quiet = atomic_load(&in_flight) == flies;
    if (oh_report(ordinal, &used)) {
        before = sum_of(ordinal);
        quiet = quiet && atomic_load(&in_flight) == flies && atomic_load(&moves) == at;
        extra = less(used, before.base + before.booked);
        if (quiet || extra > before.extra)
            share_out(ordinal, device, &before, extra);
        if (quiet)
            forget_may(ordinal);
        else
            oh_extra_look();
    }
    pthread_mutex_unlock(&lock);
}

bool oh_extra_over(int device)
{
    measure(device);
    return oh_used_bytes(device) > oh_devices[device].limit_bytes;
}

uint64_t oh_extra_fresh(int device)
{
    if (atomic_load(&stale) || atomic_load(&accounts[device].may))
        measure(device);
    return oh_used_bytes(device);
}

/* ---- booking ---- */

void (*_Atomic oh_trim_pools)(void);

/* `bytes` and `may` become taken, where `bytes` and `must` are left. */
static bool take(int device, uint64_t bytes, uint64_t must, uint64_t may)
{
    struct oh_device *d = &oh_devices[device];
    uint64_t used = atomic_load(d->used_bytes), taken, sum;

    if (__builtin_add_overflow(bytes, must, &sum))
        return false;
    do {
        taken = used + oh_others_bytes(device);
        if (taken > d->limit_bytes || sum > d->limit_bytes - taken)
            return false;
    } while (!atomic_compare_exchange_weak(d->used_bytes, &used, used + bytes + may));
    atomic_fetch_add(&accounts[device].booked, bytes);
    atomic_fetch_add(&accounts[device].may, may);
    /* of two processes of a group that take the last piece at once, at most one has it */
    if (!oh_others_bytes(device) || less(oh_used_bytes(device), may) + must <= d->limit_bytes)
        return true;
    atomic_fetch_sub(d->used_bytes, bytes + may);
    atomic_fetch_sub(&accounts[device].booked, bytes);
    atomic_fetch_sub(&accounts[device].may, may);
    return false;
}

static CUresult claim(int device, uint64_t bytes, uint64_t may)
{
    void (*trim)(void) = atomic_load(&oh_trim_pools);
    uint64_t must = may > SLACK ? may : 0;
    bool got;

    if (bytes > oh_devices[device].limit_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    got = take(device, bytes, may, may);
    if (!got && (oh_extra_measured() || trim)) {
        if (atomic_load(&stale) || atomic_load(&accounts[device].may))
            measure(device);
        got = take(device, bytes, must, may);
    }
    if (!got && trim) { /* pools keep what was freed; the driver would ask them too */
        trim();
        measure(device);
        got = take(device, bytes, must, may);
    }
    if (!got)
        return CUDA_ERROR_OUT_OF_MEMORY;
    atomic_fetch_add(&moves, 1);
    fly();
    return CUDA_SUCCESS;
}

CUresult oh_book(int device, uint64_t bytes)
{
    return oh_book_rounded(device, bytes, 0);
}

CUresult oh_book_rounded(int device, uint64_t bytes, uint64_t most)
{
    uint64_t may = -bytes & (OH_EXTRA_STEP - 1);

    return claim(device, bytes, oh_extra_measured() ? may + most : 0);
}

void oh_book_anyway(int device, uint64_t bytes)
{
    if (!counts(device))
        return;
    atomic_fetch_add(&accounts[device].booked, bytes);
    atomic_fetch_add(oh_devices[device].used_bytes, bytes);
    atomic_fetch_add(&moves, 1);
}

void oh_unbook(int device, uint64_t bytes)
{
    if (!counts(device))
        return;
    atomic_fetch_sub(&accounts[device].booked, bytes);
    atomic_fetch_sub(oh_devices[device].used_bytes, bytes);
    atomic_fetch_add(&moves, 1);
    oh_extra_look();
}

void oh_book_flies(void)
{
    fly();
}

CUresult oh_extra_more(int device, uint64_t bytes)
{
    if (!counts(device) || !bytes)
        return CUDA_SUCCESS;
    return oh_extra_measured() ? claim(device, 0, bytes) : claim(device, bytes, 0);
}

void oh_extra_less(int device, uint64_t bytes)
{
    if (oh_extra_measured())
        oh_extra_look();
    else
        oh_unbook(device, bytes);
}

CUresult oh_extra_step(int device, bool may_refuse)
{
    CUresult r;

    device = device < 0 ? 0 : device;
    if (!oh_extra_measured())
        return CUDA_SUCCESS;
    r = claim(device, 0, OH_EXTRA_STEP);
    return may_refuse ? r : CUDA_SUCCESS;
}

/* ---- the first context of a device ---- */

uint64_t oh_extra_base_begin(int device)
{
    uint64_t used = 0;

    if (atomic_load(&report) != COMPUTED && !oh_report(oh_devices[device].ordinal, &used))
        atomic_store(&report, COMPUTED);
    return used;
}

/* No more than placement has booked is the context's; what it took beyond that is the driver's own like all else. */
void oh_extra_base_end(int device, uint64_t before)
{
    struct oh_device *d = &oh_devices[device];
    uint64_t used = 0, base;

    if (atomic_load(&report) == COMPUTED || accounts[device].base)
        return;
    if (!oh_report(d->ordinal, &used) || !used) {
        if (atomic_exchange(&report, COMPUTED) == UNKNOWN)
            oh_log("the driver does not report what this process has of the card: what it takes for itself is estimated");
        return;
    }
    atomic_store(&report, MEASURED);
    base = less(used, before);
    pthread_mutex_lock(&lock);
    accounts[device].base = d->base_bytes && d->base_bytes < base ? d->base_bytes : base;
    pthread_mutex_unlock(&lock);
    oh_extra_look();
}

void oh_extra_base_gone(int device)
{
    pthread_mutex_lock(&lock);
    accounts[device].base = 0;
    pthread_mutex_unlock(&lock);
    oh_extra_look();
}

/* ---- the thread that looks ---- */

static uint64_t left(int device)
{
    return less(oh_devices[device].limit_bytes, oh_used_bytes(device));
}

/* What nothing foretold is seen soon after. */
static void *watch(void *unused)
{
    bool near;

    (void)unused;
    while (!atomic_load(&oh_ending)) {
        while (sem_wait(&wanted) && errno == EINTR)
            ;
        near = false;
        for (uint32_t i = 0; i < oh_nr_devices; i++)
            near = near || left((int)i) < NEAR;
        usleep(near ? NEAR_US : FAR_US);
        atomic_store(&stale, false); /* what happens from now on posts again */
        for (uint32_t i = 0; i < oh_nr_devices; i++)
            measure((int)i);
    }
    return unused;
}

int oh_extra_start(void)
{
    pthread_t thread;
    int err = sem_init(&wanted, 0, 0) ? -errno : -pthread_create(&thread, NULL, watch, NULL);

    if (!err)
        pthread_detach(thread);
    return err;
}
