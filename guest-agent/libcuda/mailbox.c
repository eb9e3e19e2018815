/* SPDX-License-Identifier: Apache-2.0 */
/* Connections through the region's mailbox, for a guest that no network joins to the host: docs/design.md, section 5.
 * The dialler gets one end of a socket pair; a thread carries what goes through it between the other end and a slot. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core.h"

#define OPEN_NS 3000000000u   /* oriond looks at least ten times a second */
#define NAP_MIN_NS 200000u
#define NAP_MAX_NS 100000000u /* until the end of a connection that carries nothing is noticed */
#define PATIENCE 8            /* a nap lasts a PATIENCE-th of the time for which nothing has moved */

enum { DIALLING, OPEN, FAILED };
struct dialling { /* on the dialler's stack: not touched any more once `state` has changed */
    int fd;
    enum oc_mail_service service;
    struct og_why *why;
    _Atomic uint32_t state;
};

struct mail { /* of the thread that carries it */
    int fd;
    enum oc_mail_service service;
    struct oc_mail_slot *slot;
    uint64_t epoch;
    uint32_t number, in_seq, out_seq;
    bool out_ended;
    struct robust_list_head robust;
    struct robust_list entry;
};

static struct oc_mailbox *_Atomic mailbox;
static _Atomic int held[OC_MAIL_SLOTS]; /* 1 + our end of each slot's pair */

bool og_mailbox_there(void)
{
    const struct oc_header *h = &og_shared_region.header;

    return og_shared_region.base && h->features & OC_FEATURE_MAILBOX && h->header_bytes >= OC_MAILBOX_OFF + OC_MAILBOX_BYTES;
}

/* A mapping of its own: NVML's of the region is for reading. */
static bool map_mailbox(struct og_why *why)
{
    struct oc_mailbox *none = NULL;
    void *p;
    int fd;

    if (atomic_load(&mailbox))
        return true;
    fd = open(og_shared_region.path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        og_because(why, "%s: %s", og_shared_region.path, strerror(errno));
        return false;
    }
    p = mmap(NULL, OC_MAILBOX_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, OC_MAILBOX_OFF);
    close(fd);
    if (p == MAP_FAILED) {
        og_because(why, "%s cannot be mapped: %s", og_shared_region.path, strerror(errno));
        return false;
    }
    if (!atomic_compare_exchange_strong(&mailbox, &none, p))
        munmap(p, OC_MAILBOX_BYTES);
    return true;
}

static void nap(int fd, uint64_t ns)
{
    struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
    struct pollfd p = { fd, POLLIN, 0 };

    (void)!ppoll(&p, 1, &ts, NULL);
}

/* Longer and longer while nothing moves. */
static uint64_t nap_ns(uint64_t moved_at)
{
    uint64_t ns = (og_now_ns() - moved_at) / PATIENCE;

    return ns < NAP_MIN_NS ? NAP_MIN_NS : ns < NAP_MAX_NS ? ns : NAP_MAX_NS;
}

static void ring_bell(void)
{
    atomic_fetch_add_explicit(&mailbox->bell, 1, memory_order_release);
}

/* The first 64 bits of the kernel's boot_id: what an earlier boot of this guest held is nobody's. */
static uint64_t guest_boot(void)
{
    unsigned long long first = 0, second = 0, third = 0;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (f) {
        if (fscanf(f, "%8llx-%4llx-%4llx", &first, &second, &third) != 3)
            first = second = third = 0;
        fclose(f);
    }
    return first << 32 | second << 16 | third;
}

/* ---- a slot ---- */

/* Whatever ends this thread, its kernel then marks the word of the slot that it owns. The thread is ours alone and
 * takes no robust mutexes, so the list that the C library keeps for it is not missed. */
static void be_watched(struct mail *m)
{
    m->entry.next = &m->robust.list;
    m->robust.list.next = &m->entry;
}

static bool claim(struct mail *m, struct oc_mail_slot *s)
{
    uint32_t nobody = 0;

    m->robust.futex_offset = (long)((uintptr_t)&s->owner - (uintptr_t)&m->entry);
    if (!atomic_compare_exchange_strong(&s->owner, &nobody, (uint32_t)syscall(SYS_gettid)))
        return false;
    m->slot = s;
    return true;
}

/* Processes begin their search at different places. */
static bool claim_any(struct mail *m)
{
    unsigned first = (unsigned)syscall(SYS_gettid) % OC_MAIL_SLOTS;

    for (unsigned i = 0; i < OC_MAIL_SLOTS; i++)
        if (claim(m, &mailbox->slot[(first + i) % OC_MAIL_SLOTS]))
            return true;
    return false;
}

static void announce(struct mail *m)
{
    struct oc_mail_slot *s = m->slot;

    m->number = atomic_load_explicit(&s->opening, memory_order_relaxed) % 255 + 1;
    if (m->number == atomic_load_explicit(&s->opened, memory_order_relaxed))
        m->number = m->number % 255 + 1;
    m->in_seq = m->out_seq = 0;
    atomic_store_explicit(&s->seq, 0, memory_order_relaxed);
    atomic_store_explicit(&s->ack, 0, memory_order_relaxed);
    atomic_store_explicit(&s->fin, 0, memory_order_relaxed);
    s->service = m->service;
    s->epoch = m->epoch;
    s->guest_boot = guest_boot();
    atomic_store_explicit(&s->opening, m->number, memory_order_release); /* pairs with the daemon's look */
    ring_bell();
}

static void release(struct mail *m)
{
    atomic_store_explicit(&m->slot->owner, 0, memory_order_release); /* pairs with claim */
    ring_bell();
}

static uint64_t epoch_now(void)
{
    return atomic_load_explicit(&mailbox->epoch, memory_order_acquire);
}

static bool is_connected(const struct mail *m)
{
    return epoch_now() == m->epoch && atomic_load_explicit(&m->slot->opened, memory_order_acquire) == m->number;
}

static void try_claim(struct mail *m, struct og_why *why)
{
    m->epoch = epoch_now();
    if (!m->epoch)
        return; /* no daemon serves it now */
    if (claim_any(m)) {
        announce(m);
        return;
    }
    og_because(why, "through the region: all %u places of its mailbox are taken", OC_MAIL_SLOTS);
    ring_bell(); /* dead owners' places are free when the daemon has seen them */
}

/* True when the daemon has taken the connection up; it may begin anew meanwhile. */
static bool open_slot(struct mail *m, struct og_why *why)
{
    uint64_t begin = og_now_ns();

    og_because(why, "through the region: oriond does not answer");
    while (og_now_ns() - begin < OPEN_NS) {
        if (m->slot && is_connected(m))
            return true;
        if (m->slot && epoch_now() != m->epoch) {
            release(m);
            m->slot = NULL;
        }
        if (!m->slot)
            try_claim(m, why);
        nap(-1, nap_ns(begin));
    }
    if (m->slot)
        release(m);
    return false;
}

/* ---- carrying: each step returns 1 something moved, 0 nothing, -1 the connection has ended ---- */

static bool later(ssize_t n)
{
    return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static int take_in(struct mail *m)
{
    struct oc_mail_slot *s = m->slot;
    uint32_t seq = atomic_load_explicit(&s->host_seq, memory_order_acquire), bytes = s->host_bytes;
    uint8_t data[OC_MAIL_DATA];
    ssize_t n;

    if (seq == m->in_seq)
        return atomic_load_explicit(&s->host_fin, memory_order_acquire) ? -1 : 0;
    if (seq != ((m->in_seq + 1) & 255) || bytes > sizeof(data))
        return -1;
    memcpy(data, s->to_guest, bytes);
    n = send(m->fd, data, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (later(n))
        return 0; /* the dialler does not read now */
    if (n != (ssize_t)bytes)
        return -1;
    m->in_seq = seq;
    atomic_store_explicit(&s->ack, seq, memory_order_release);
    return 1;
}

static bool may_put(const struct mail *m)
{
    return !m->out_ended && atomic_load_explicit(&m->slot->host_ack, memory_order_acquire) == m->out_seq;
}

static int put_out(struct mail *m)
{
    struct oc_mail_slot *s = m->slot;
    uint8_t data[OC_MAIL_DATA];
    ssize_t n;

    if (!may_put(m))
        return 0;
    n = recv(m->fd, data, sizeof(data), MSG_DONTWAIT);
    if (later(n))
        return 0;
    if (n < 0)
        return -1;
    if (n == 0) {
        m->out_ended = true;
        atomic_store_explicit(&s->fin, 1, memory_order_release);
        return 1;
    }
    memcpy(s->to_host, data, (size_t)n);
    s->bytes = (uint32_t)n;
    m->out_seq = (m->out_seq + 1) & 255;
    atomic_store_explicit(&s->seq, m->out_seq, memory_order_release);
    return 1;
}

static void carry_on(struct mail *m)
{
    uint64_t moved_at = og_now_ns();

    while (is_connected(m)) {
        int in = take_in(m), out = in < 0 ? in : put_out(m);

        if (out < 0)
            return;
        if (in || out)
            moved_at = og_now_ns();
        nap(may_put(m) ? m->fd : -1, nap_ns(moved_at));
    }
}

static void finish_dialling(struct dialling *d, uint32_t state)
{
    _Atomic uint32_t *word = &d->state;

    atomic_store(word, state);
    og_futex_wake(word, 1); /* at worst wakes somebody else's wait on that piece of stack, who looks again */
}

static void *carry(void *arg)
{
    struct dialling *d = arg;
    struct mail m = { .fd = d->fd, .service = d->service };
    struct robust_list_head *before = NULL;
    size_t bytes = sizeof(m.robust);

    be_watched(&m);
    syscall(SYS_get_robust_list, 0, &before, &bytes);
    if (syscall(SYS_set_robust_list, &m.robust, sizeof(m.robust)) != 0) {
        og_because(d->why, "through the region: this kernel has no robust futexes (%s)", strerror(errno));
        finish_dialling(d, FAILED);
    } else if (!open_slot(&m, d->why)) {
        finish_dialling(d, FAILED);
    } else {
        _Atomic int *mine = &held[m.slot - mailbox->slot];

        atomic_store(mine, m.fd + 1);
        finish_dialling(d, OPEN);
        carry_on(&m);
        atomic_store(mine, 0);
        release(&m);
    }
    shutdown(m.fd, SHUT_RDWR); /* also where a child of a fork has it too */
    close(m.fd);
    syscall(SYS_set_robust_list, before, sizeof(m.robust));
    return NULL;
}

/* No signal of the application's is for this thread. */
static int start_thread(struct dialling *d)
{
    sigset_t all, old;
    pthread_t thread;
    int error;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    error = pthread_create(&thread, NULL, carry, d);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!error)
        pthread_detach(thread);
    return error;
}

int og_mailbox_dial(enum oc_mail_service service, unsigned timeout_ms, struct og_why *why)
{
    struct dialling d = { .service = service, .why = why, .state = DIALLING };
    int pair[2], error;

    if (!map_mailbox(why))
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        og_because(why, "through the region: %s", strerror(errno));
        return -1;
    }
    d.fd = pair[1];
    error = start_thread(&d);
    if (error) {
        og_because(why, "through the region: no thread to be had (%s)", strerror(error));
        close(pair[1]);
        d.state = FAILED;
    }
    while (atomic_load(&d.state) == DIALLING)
        og_futex_wait(&d.state, DIALLING, 1000000000u);
    if (atomic_load(&d.state) == FAILED) {
        close(pair[0]);
        return -1;
    }
    og_set_timeout(pair[0], timeout_ms);
    return pair[0];
}

void og_mailbox_after_fork(void)
{
    for (unsigned i = 0; i < OC_MAIL_SLOTS; i++) {
        int fd = atomic_exchange(&held[i], 0);

        if (fd)
            close(fd - 1);
    }
}
