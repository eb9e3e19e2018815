/* SPDX-License-Identifier: Apache-2.0 */
/* For a client that nobody joins to us but its region: looks for its commands, since it cannot wake us. */
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop.h"

#define NAP_MIN_NS 200000u
#define NAP_MAX_NS 10000000u
#define PATIENCE 8 /* a nap lasts a PATIENCE-th of the time for which no command has come; */
#define QUIET_MAX_NS 50000000u
#define QUIET 1000 /* and a thousandth is not too long either */

static uint64_t nap_ns(uint64_t since)
{
    uint64_t idle = oh_now_ns() - since, soon = idle / PATIENCE, late = idle / QUIET;

    soon = soon < NAP_MIN_NS ? NAP_MIN_NS : soon < NAP_MAX_NS ? soon : NAP_MAX_NS;
    late = late < QUIET_MAX_NS ? late : QUIET_MAX_NS;
    return soon > late ? soon : late;
}

static void nap(uint64_t ns)
{
    struct timespec ts = { 0, (long)ns };

    nanosleep(&ts, NULL);
}

/* However this process ends, the kernel then marks the word, and the guest sees that nobody serves it: also where the
 * daemon, which would say so, died in the same moment. The thread takes no robust mutexes. */
static void be_watched(struct robust_list_head *head, struct robust_list *entry)
{
    head->list.next = entry;
    entry->next = &head->list;
    head->futex_offset = (long)((uintptr_t)&oh_channel->worker - (uintptr_t)entry);
    if (!syscall(SYS_set_robust_list, head, sizeof(*head)))
        atomic_store(&oh_channel->worker, (uint32_t)syscall(SYS_gettid)); /* pairs with og_wait */
}

static void *watch_ring(void *unused)
{
    static struct robust_list_head head; /* read by the kernel when the thread is gone */
    static struct robust_list entry;
    uint64_t seen = 0, since = oh_now_ns();

    (void)unused;
    prctl(PR_SET_NAME, "poll");
    be_watched(&head, &entry);
    while (!atomic_load(&oh_ending)) {
        if (oh_baton_moved(&seen))
            since = oh_now_ns();
        oh_baton_kick();
        nap(nap_ns(since));
    }
    for (;;)
        pause(); /* the word is marked when the process ends, and its reason has been told by then */
    return NULL;
}

int oh_poll_start(void)
{
    sigset_t all, old;
    pthread_t thread;
    int err;

    if (!oh_config.polled)
        return 0;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&thread, NULL, watch_ring, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!err)
        pthread_detach(thread);
    return -err;
}
