/* SPDX-License-Identifier: Apache-2.0 */
/* The quota of each device: what the client booked, and what the driver takes for itself beside it.
 *
 * The driver's report of this process, less the contexts that placement has paid for and what is booked, is what it takes for
 * itself: `extra`. Asking takes about a millisecond, so it is not asked at each call. Each that may make the driver take more
 * adds the most that it could be to `may`, and so does what is given back, which the driver may keep; only when all three
 * together would pass the limit is the driver asked, which makes `may` nought and `extra` right. So far from the limit nobody
 * asks, and near it nothing passes unseen. What commands under way have claimed counts as if the report did not show it yet. */
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
#define TRIES 3                 /* to read the report while nothing is booked */

enum report { UNKNOWN = 0, MEASURED = 1, COMPUTED = 2 }; /* OH_USAGE tells them */

static struct account {         /* [lock]; used_bytes of the device is their sum, and is read without it */
    uint64_t booked, extra, may;
    uint64_t flying;            /* claimed by commands under way */
    uint64_t base;              /* of the first context */
    uint64_t hidden;            /* booked for further ones, and in no report: the card's own part of them */
} accounts[OC_MAX_DEVICES];
static uint64_t moves;          /* [lock] bookings so far, both ways */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t measuring = PTHREAD_MUTEX_INITIALIZER; /* before `lock`; held over the question */

static _Thread_local uint64_t flight[OC_MAX_DEVICES]; /* what this twin's command has claimed */
static _Thread_local uint32_t flies; /* of which devices, a bit each */
static _Atomic enum report report;
static _Atomic bool stale;      /* something happened since the driver was asked */
static sem_t wanted;            /* posted when it becomes stale */

void (*_Atomic oh_trim_pools)(void);

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

int32_t oh_extra_how(void)
{
    return (int32_t)atomic_load(&report);
}

uint64_t oh_extra_bytes(int device)
{
    uint64_t bytes;

    pthread_mutex_lock(&lock);
    bytes = accounts[device].extra;
    pthread_mutex_unlock(&lock);
    return bytes;
}

uint64_t oh_extra_base_bytes(int device)
{
    return accounts[device].base > oh_devices[device].base_bytes ? accounts[device].base : oh_devices[device].base_bytes;
}

void oh_extra_look(void)
{
    if (oh_extra_measured() && !atomic_exchange(&stale, true))
        sem_post(&wanted);
}

/* ---- asking the driver ---- */

/* Sums over the vGPUs of a card. */
static struct account sum_locked(int ordinal)
{
    struct account c = { 0 };

    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        if (oh_devices[i].ordinal != ordinal)
            continue;
        c.base += accounts[i].base;
        c.hidden += accounts[i].hidden;
        c.booked += accounts[i].booked;
        c.extra += accounts[i].extra;
        c.may += accounts[i].may;
        c.flying += accounts[i].flying;
    }
    return c;
}

static void set_locked(int device, uint64_t extra, uint64_t may)
{
    struct account *a = &accounts[device];

    atomic_fetch_add(oh_devices[device].used_bytes, extra + may - a->extra - a->may); /* also downwards */
    a->extra = extra;
    a->may = may;
}

/* `extra` of a card becomes its vGPUs': who may have caused a growth pays for it, and what is gone is gone of all. */
static void share_out_locked(int ordinal, int asker, uint64_t extra)
{
    struct account all = sum_locked(ordinal);
    uint64_t grown = less(extra, all.extra), part;

    for (uint32_t i = 0; i < oh_nr_devices; i++) {
        const struct account *a = &accounts[i];

        if (oh_devices[i].ordinal != ordinal)
            continue;
        if (!grown)
            part = all.extra ? (uint64_t)((double)extra * (double)a->extra / (double)all.extra) : 0;
        else if (all.may)
            part = a->extra + (uint64_t)((double)grown * (double)a->may / (double)all.may);
        else
            part = a->extra + ((int)i == asker ? grown : 0);
        set_locked((int)i, part, 0);
    }
}

/* False: something was booked meanwhile, so that report and books do not belong together. */
static bool measure_once(int device)
{
    int ordinal = oh_devices[device].ordinal;
    struct account all;
    uint64_t at, flying, used;
    bool still;

    pthread_mutex_lock(&lock);
    at = moves;
    flying = sum_locked(ordinal).flying;
    pthread_mutex_unlock(&lock);
    if (!oh_report(ordinal, &used))
        return true;
    pthread_mutex_lock(&lock);
    all = sum_locked(ordinal);
    still = moves == at;
    if (still)
        share_out_locked(ordinal, device, less(used + flying + all.hidden, all.base + all.booked));
    pthread_mutex_unlock(&lock);
    return still;
}

static void measure(int device)
{
    bool done = false;

    if (!oh_extra_measured())
        return;
    pthread_mutex_lock(&measuring);
    atomic_store(&stale, false);
    for (unsigned i = 0; i < TRIES && !done; i++)
        done = measure_once(device);
    pthread_mutex_unlock(&measuring);
    if (!done)
        oh_extra_look();
}

bool oh_extra_over_now(int device)
{
    measure(device);
    return oh_used_bytes(device) > oh_devices[device].limit_bytes;
}

uint64_t oh_extra_fresh(int device)
{
    measure(device);
    return oh_used_bytes(device);
}

/* ---- booking ---- */

static bool fits(int device, uint64_t bytes)
{
    uint64_t taken = oh_used_bytes(device), limit = oh_devices[device].limit_bytes;

    return taken <= limit && bytes <= limit - taken;
}

static void add_locked(int device, uint64_t bytes, uint64_t may)
{
    struct account *a = &accounts[device];

    a->booked += bytes;
    a->may += may;
    moves++;
    atomic_fetch_add(oh_devices[device].used_bytes, bytes + may);
}

/* `bytes` and `may` become taken, where `bytes` and `must` are left. */
static bool take(int device, uint64_t bytes, uint64_t must, uint64_t may)
{
    uint64_t sum;
    bool got;

    if (__builtin_add_overflow(bytes, must, &sum))
        return false;
    pthread_mutex_lock(&lock);
    got = fits(device, sum);
    if (got) {
        add_locked(device, bytes, may);
        /* of two processes of a group that take the last piece at once, at most one has it */
        got = !oh_others_bytes(device) || less(oh_used_bytes(device), less(may, must)) <= oh_devices[device].limit_bytes;
        if (!got)
            add_locked(device, -bytes, -may);
    }
    if (got && oh_extra_measured()) {
        accounts[device].flying += bytes + may;
        flight[device] += bytes + may;
        flies |= 1u << device;
    }
    pthread_mutex_unlock(&lock);
    return got;
}

static CUresult claim(int device, uint64_t bytes, uint64_t may)
{
    void (*trim)(void) = atomic_load(&oh_trim_pools);
    uint64_t must = may > SLACK ? may : 0;
    bool got;

    if (bytes > oh_devices[device].limit_bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    got = take(device, bytes, may, may);
    if (!got && oh_extra_measured()) { /* also where nothing was heard: the driver frees late what was freed in stream order */
        measure(device);
        got = take(device, bytes, must, may);
    }
    if (!got && trim && oh_extra_measured()) { /* pools keep what was freed; the driver would ask them too */
        trim();
        measure(device);
        got = take(device, bytes, must, may);
    }
    return got ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* The command is done: what it claimed shows on the card, or never will. */
void oh_extra_settle(void)
{
    if (!flies)
        return;
    pthread_mutex_lock(&lock);
    for (; flies; flies &= flies - 1) {
        int device = __builtin_ctz(flies);

        accounts[device].flying -= flight[device];
        flight[device] = 0;
    }
    pthread_mutex_unlock(&lock);
    oh_extra_look();
}

CUresult oh_book(int device, uint64_t bytes)
{
    return oh_book_rounded(device, bytes, 0);
}

CUresult oh_book_rounded(int device, uint64_t bytes, uint64_t most)
{
    uint64_t last_piece = -bytes & (OH_EXTRA_STEP - 1);

    return claim(device, bytes, oh_extra_measured() ? last_piece + most : 0);
}

void oh_book_anyway(int device, uint64_t bytes)
{
    if (!counts(device))
        return;
    pthread_mutex_lock(&lock);
    add_locked(device, bytes, 0);
    pthread_mutex_unlock(&lock);
}

/* It is free again when the driver says so. */
void oh_unbook(int device, uint64_t bytes)
{
    if (!counts(device) || !bytes)
        return;
    pthread_mutex_lock(&lock);
    add_locked(device, -bytes, oh_extra_measured() ? bytes : 0);
    pthread_mutex_unlock(&lock);
    oh_extra_look();
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

    if (!oh_extra_measured())
        return CUDA_SUCCESS;
    r = claim(device < 0 ? 0 : device, 0, OH_EXTRA_STEP);
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

void oh_extra_hidden(int device, int contexts)
{
    uint64_t part;

    if (!oh_extra_measured())
        return;
    pthread_mutex_lock(&lock);
    part = less(oh_devices[device].base_bytes, accounts[device].base) * (uint64_t)(int64_t)contexts;
    accounts[device].hidden += part;
    add_locked(device, part, 0);
    pthread_mutex_unlock(&lock);
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
