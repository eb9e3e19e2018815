/* SPDX-License-Identifier: Apache-2.0 */
/* Twin threads: one host thread for each guest thread, made at its first command. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop.h"

/* One sleeping twin leads: it sleeps on the connection, so that a client's call after a pause wakes it alone. */
enum sleep { AWAKE = 0, SLEEPS = 1, LEADS = 2 };

static _Atomic int leading;
static struct twin *_Atomic twins[OC_NR_SLOTS];
static _Atomic uint32_t alive;

static void futex(_Atomic uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
    syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, timeout, NULL, 0);
}

void oh_twin_wake(struct twin *tw)
{
    switch (atomic_exchange(&tw->sleeping, AWAKE)) {
    case SLEEPS:
        futex(&tw->sleeping, FUTEX_WAKE, 1, NULL);
        break;
    case LEADS:
        oh_watch_wake_leader();
    }
}

void oh_twins_wake_all(void)
{
    for (uint32_t i = 0; i < OC_NR_SLOTS; i++) {
        struct twin *tw = atomic_load(&twins[i]);

        if (tw)
            oh_twin_wake(tw);
    }
}

uint32_t oh_twins_alive(void)
{
    return atomic_load_explicit(&alive, memory_order_relaxed);
}

static bool turn_or_work(void *arg)
{
    return oh_baton_mine(arg) || oh_baton_idle() || atomic_load_explicit(&oh_ending, memory_order_relaxed);
}

/* Until something concerns the twin, or as leader until the connection says something. */
static void sleep_once(struct twin *tw)
{
    int nobody = 0;
    bool leads = oh_config.region_fd >= 0 && atomic_compare_exchange_strong(&leading, &nobody, 1);

    atomic_store(&tw->sleeping, leads ? LEADS : SLEEPS); /* full: before the last look; pairs with oh_twin_wake */
    while (!oh_baton_mine(tw) && !atomic_load(&oh_ending) && atomic_load(&tw->sleeping)) {
        if (leads) {
            oh_watch_lead();
            break;
        }
        futex(&tw->sleeping, FUTEX_WAIT, SLEEPS, NULL);
    }
    atomic_store(&tw->sleeping, AWAKE);
    if (!leads)
        return;
    atomic_store(&leading, 0);
    oh_baton_kick(); /* what came may be ours or another twin's */
}

/* Until the baton is ours; false: the channel ends. */
static bool wait_turn(struct twin *tw, struct oh_spin *s)
{
    uint64_t begin;

    while (!atomic_load(&oh_ending)) {
        if (oh_spin(s, turn_or_work, tw)) {
            if (oh_baton_mine(tw))
                return true;
            oh_baton_kick(); /* a command waits and nobody reads; it may be ours */
            continue;
        }
        oh_stats_wake();
        begin = oh_now_ns();
        sleep_once(tw);
        oh_spin_woke();
        oh_spin_slept(s, oh_now_ns() - begin);
    }
    return false;
}

static void *twin_main(void *arg)
{
    struct twin *tw = arg;
    struct oh_spin s = { 0 };
    char name[16];

    snprintf(name, sizeof(name), "twin-%u", tw->pub.slot);
    prctl(PR_SET_NAME, name);
    while (wait_turn(tw, &s))
        oh_loop_run(tw);
    atomic_fetch_sub(&alive, 1);
    return NULL;
}

static struct twin *make(uint32_t slot)
{
    struct twin *tw = aligned_alloc(64, (sizeof(*tw) + 63) & ~63ul);

    if (!tw)
        return NULL;
    memset(tw, 0, sizeof(*tw));
    tw->pub.slot = slot;
    tw->pub.device = tw->pub.stack_slot = -1;
    tw->pub.buffer = aligned_alloc(64, OC_CMD_MAX_LINES * OC_LINE);
    if (!tw->pub.buffer) {
        free(tw);
        return NULL;
    }
    return tw;
}

/* Signals belong to the Python shell's thread, but for those that this thread itself causes. */
static int start(struct twin *tw)
{
    sigset_t all, old;
    int err;

    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    atomic_fetch_add(&alive, 1);
    err = pthread_create(&tw->pub.thread, NULL, twin_main, tw);
    if (err)
        atomic_fetch_sub(&alive, 1);
    else
        pthread_detach(tw->pub.thread);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return err;
}

struct twin *oh_twin_get(uint32_t slot)
{
    struct twin *tw = atomic_load_explicit(&twins[slot], memory_order_acquire);
    int err;

    if (tw)
        return tw;
    tw = make(slot);
    err = tw ? start(tw) : ENOMEM;
    if (err) {
        oh_end(OC_CLOSED_WORKER, "no thread for guest thread %u: %s; raise the host's limit on threads (TasksMax=)",
               slot, strerror(err));
        return NULL; /* `tw` stays allocated: the process is about to end */
    }
    atomic_store_explicit(&twins[slot], tw, memory_order_release);
    return tw;
}

void oh_twin_reset(struct twin *tw)
{
    free(tw->pub.scratch);
    tw->pub.scratch = NULL;
    tw->pub.deferred = CUDA_SUCCESS;
    tw->pub.device = tw->pub.stack_slot = -1;
}

bool oh_twins_wait_gone(uint32_t ms)
{
    for (uint32_t waited = 0; oh_twins_alive(); waited++) {
        if (waited >= ms)
            return false;
        oh_twins_wake_all();
        usleep(1000);
    }
    return true;
}
