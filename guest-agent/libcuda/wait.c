/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for the host: an adaptive spin, then sleep; one leader polls the connection for all sleepers. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <time.h>

#include "core.h"

#define SPIN_MAX_NS 1000000u
#define SPIN_MIN_NS 20000u
#define PREEMPTED_NS 100000u /* 16 pauses last 1 to 2 us: so long a gap means that the thread lost its CPU */
#define REST_NS 20000000u
#define RECHECK_NS 1000000000u /* bounds the delay of a lost wake-up */
#define NAP_MIN_NS 20000u
#define NAP_MAX_NS 1000000u
#define POLLED_NS 10000000u /* where nobody can wake us: so long a nap is common, */
#define POLLED_MAX_NS 50000000u /* and after many the longest is this */

static _Atomic uint32_t wakes;    /* futex word of the followers; changes with each wake-up */
static _Atomic uint32_t sleepers; /* followers in futex wait or about to be */
static _Atomic int leading;       /* 1: somebody polls the connection */
static _Atomic int spinners;

static int nr_cpus(void)
{
    static _Atomic int known;
    int n = atomic_load_explicit(&known, memory_order_relaxed);
    cpu_set_t set;

    if (n == 0) {
        n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 2;
        atomic_store_explicit(&known, n, memory_order_relaxed);
    }
    return n;
}

void og_wake_waiters(void)
{
    atomic_fetch_add_explicit(&wakes, 1, memory_order_seq_cst); /* pairs with the follower's load */
    if (atomic_load_explicit(&sleepers, memory_order_seq_cst))
        og_futex_wake(&wakes, INT_MAX);
}

/* Looks for at most ns; gives up early when the thread was preempted. */
static bool watch(struct og_thread *t, bool (*ready)(void *), void *arg, uint32_t ns)
{
    uint64_t start = og_now_ns(), last = start, now;

    do {
        for (int i = 0; i < 16; i++) {
            if (ready(arg))
                return true;
            __builtin_ia32_pause();
        }
        now = og_now_ns();
        if (now - last > PREEMPTED_NS) {
            t->rest_until = now + REST_NS;
            break;
        }
        last = now;
    } while (now - start < ns);
    return ready(arg);
}

/* One CPU is left for the host's side of the work: no more spinners than the others. */
static bool spin(struct og_thread *t, bool (*ready)(void *), void *arg)
{
    bool done;

    if (ready(arg))
        return true;
    if (t->rest_until && og_now_ns() < t->rest_until)
        return false;
    done = false;
    if (atomic_fetch_add_explicit(&spinners, 1, memory_order_relaxed) < nr_cpus() - 1) {
        if (t->spin_ns < SPIN_MIN_NS)
            t->spin_ns = SPIN_MIN_NS;
        done = watch(t, ready, arg, t->spin_ns);
        t->spin_ns = done ? SPIN_MAX_NS : t->spin_ns / 2; /* in vain: expect less of the next one */
    }
    atomic_fetch_sub_explicit(&spinners, 1, memory_order_relaxed);
    return done;
}

static void poll_connection(uint64_t ns)
{
    struct pollfd p = { og_link.fd, POLLIN, 0 };
    struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

    if (ppoll(&p, 1, &ts, NULL) > 0)
        og_shm_drain();
}

/* Sleeps once: as leader in poll(), else until the leader (over TCP: the receiver) wakes us. Where nobody does, each
 * for itself. */
static void sleep_once(uint32_t seen, uint64_t ns)
{
    int nobody = 0;

    if (og_link.polled) {
        poll_connection(ns);
        return;
    }
    if (og_link.shm && atomic_compare_exchange_strong(&leading, &nobody, 1)) {
        poll_connection(ns);
        atomic_store(&leading, 0);
        og_wake_waiters(); /* what arrived may be theirs, and one of them leads on */
        return;
    }
    atomic_fetch_add(&sleepers, 1); /* pairs with og_wake_waiters */
    og_futex_wait(&wakes, seen, ns);
    atomic_fetch_sub(&sleepers, 1);
}

/* The worker and the daemon may end in one moment, and then no word in `closed` says so; the worker's kernel does. */
static bool channel_ended(void)
{
    const struct oc_channel *c = og_link.channel;

    return atomic_load_explicit(&c->closed, memory_order_acquire) != OC_OPEN ||
           (og_link.polled && atomic_load_explicit(&c->worker, memory_order_relaxed) & OC_OWNER_DIED);
}

/* Where nobody wakes us a nap lasts at most a sixteenth of the time that the wait has lasted, and from 10 ms on a
 * thousandth of it. */
static uint64_t next_nap(uint64_t nap)
{
    if (og_link.polled)
        return nap < POLLED_NS ? nap + nap / 16 : nap < POLLED_MAX_NS ? nap + nap / 1024 : nap;
    return nap * 2 < NAP_MAX_NS ? nap * 2 : NAP_MAX_NS;
}

static CUresult sleep_until(bool (*ready)(void *), void *arg, bool parked)
{
    uint64_t nap = NAP_MIN_NS;

    for (;;) {
        uint32_t seen = atomic_load(&wakes);

        if (ready(arg))
            return CUDA_SUCCESS;
        if (atomic_load(&og_life) != OG_CONNECTED)
            return og_life_result(atomic_load(&og_life));
        if (channel_ended()) {
            og_lost_by_close();
            continue;
        }
        sleep_once(seen, parked && !og_link.polled ? RECHECK_NS : nap);
        nap = next_nap(nap);
    }
}

CUresult og_wait(bool (*ready)(void *arg), void *arg, _Atomic uint32_t *parked)
{
    struct og_thread *t = og_self();
    CUresult r;

    if (spin(t, ready, arg))
        return CUDA_SUCCESS;
    if (!parked)
        return sleep_until(ready, arg, false);
    atomic_store_explicit(parked, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* `parked` before the last look; pairs with the host's reply */
    r = watch(t, ready, arg, OC_PARK_GRACE_NS) ? CUDA_SUCCESS : sleep_until(ready, arg, true);
    atomic_store_explicit(parked, 0, memory_order_relaxed);
    return r;
}
