/* SPDX-License-Identifier: Apache-2.0 */
/* The watcher: asleep on connection and control socket; sees wake-ups, end of file and orders. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "loop.h"

#define TICK_MS 1000 /* bounds the delay of a lost wake-up; see baton.c, invariant 4 */

/* Two sets watch the connection, and the doorbell where the guest has one. Both do so exclusively, and the leader's was there first: a wake-up byte goes to
 * the twin that leads, if one sleeps in its set, and that twin goes on without a second wake-up; else, and at the
 * end of the connection, it goes to the watcher. */
static int watcher_set = -1, leader_set = -1;
static int interrupt_fd = -1, leader_fd = -1;

static int open_counter(int *fd)
{
    *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return *fd < 0 ? -errno : 0;
}

static int add(int set, int fd, uint32_t events)
{
    struct epoll_event e = { .events = events, .data.fd = fd };

    return fd < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0 ? 0 : -errno;
}

static int open_set(int *set, int counter)
{
    int r;

    *set = epoll_create1(EPOLL_CLOEXEC);
    if (*set < 0)
        return -errno;
    r = add(*set, counter, EPOLLIN);
    if (!r)
        r = add(*set, oh_config.doorbell_fd, EPOLLIN | EPOLLEXCLUSIVE);
    return r ? r : add(*set, oh_config.socket_fd, EPOLLIN | EPOLLEXCLUSIVE);
}

int oh_watch_open(void)
{
    int r = open_counter(&interrupt_fd);

    if (!r)
        r = open_counter(&leader_fd);
    if (!r)
        r = open_set(&leader_set, leader_fd); /* before the watcher's */
    if (!r)
        r = open_set(&watcher_set, interrupt_fd);
    if (!r)
        r = add(watcher_set, oh_config.listen_fd, EPOLLIN);
    return r ? r : add(watcher_set, oh_config.control_fd, EPOLLIN);
}

void oh_watch_control(bool on)
{
    if (on)
        (void)add(watcher_set, oh_config.control_fd, EPOLLIN);
    else
        epoll_ctl(watcher_set, EPOLL_CTL_DEL, oh_config.control_fd, NULL);
}

void oh_watch_client(int fd)
{
    if (fd < 0)
        return;
    if (oh_config.polled && dup2(fd, oh_config.socket_fd) >= 0) {
        (void)add(leader_set, oh_config.socket_fd, EPOLLIN | EPOLLEXCLUSIVE);
        (void)add(watcher_set, oh_config.socket_fd, EPOLLIN | EPOLLEXCLUSIVE);
    }
    close(fd);
}

static void count_up(int fd)
{
    uint64_t one = 1;

    if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: whoever sleeps on it wakes anyway */
}

void oh_watch_interrupt(void)
{
    count_up(interrupt_fd);
}

void oh_watch_wake_leader(void)
{
    count_up(leader_fd);
}

static void look_at_connection(void)
{
    if (oh_transport_read() != 0)
        return;
    if (!oh_config.polled || oh_config.listen_fd < 0) {
        oh_end(OC_CLOSED_BY_GUEST, "the client's connection ended");
        return;
    }
    /* It led through the daemon, which says if the client has ended, and brings another if it ended itself. */
    epoll_ctl(leader_set, EPOLL_CTL_DEL, oh_config.socket_fd, NULL);
    epoll_ctl(watcher_set, EPOLL_CTL_DEL, oh_config.socket_fd, NULL);
}

/* That it was heard is the guest's proof that ringing it is enough. */
static void look_at_doorbell(void)
{
    uint64_t rings;

    if (read(oh_config.doorbell_fd, &rings, sizeof(rings)) < 0)
        return; /* the other set's thread has read it */
    if (!atomic_load_explicit(&oh_channel->doorbell_heard, memory_order_relaxed))
        atomic_store_explicit(&oh_channel->doorbell_heard, 1, memory_order_relaxed);
}

/* A command waited a whole tick and nobody came: the guest is to send bytes again until the doorbell is heard. */
static void doubt_doorbell(void)
{
    if (oh_config.doorbell_fd >= 0 && oh_baton_idle())
        atomic_store_explicit(&oh_channel->doorbell_heard, 0, memory_order_relaxed);
}

void oh_watch_lead(void)
{
    struct epoll_event e[3];
    int n = epoll_wait(leader_set, e, 3, -1);
    uint64_t count;

    for (int i = 0; i < n; i++) {
        if (e[i].data.fd == oh_config.doorbell_fd)
            look_at_doorbell();
        else if (e[i].data.fd != leader_fd)
            look_at_connection();
        else if (read(leader_fd, &count, sizeof(count)) < 0)
            continue; /* somebody has */
    }
}

static void look(const struct epoll_event *e)
{
    if (e->data.fd == oh_config.doorbell_fd)
        look_at_doorbell();
    else if (e->data.fd == oh_config.socket_fd)
        look_at_connection();
    else if (e->data.fd == oh_config.control_fd && !oh_control_read())
        oh_resume_lost();
}

/* That a daemon has ended is seen before another one is let in. */
static void look_at_all(const struct epoll_event *e, int n)
{
    for (int i = 0; i < n; i++)
        look(&e[i]);
    for (int i = 0; i < n; i++)
        if (e[i].data.fd == oh_config.listen_fd)
            oh_resume_accept();
}

void oh_watch_run(void)
{
    struct epoll_event e[5];

    /* The client may have written before consumer_parked was set: watch for a little. */
    usleep(OC_PARK_GRACE_NS / 1000);
    while (!atomic_load(&oh_ending)) {
        int n;

        oh_baton_kick();
        n = epoll_wait(watcher_set, e, 5, TICK_MS);
        if (n < 0 && errno != EINTR) {
            oh_end(OC_CLOSED_WORKER, "epoll_wait: %s", strerror(errno));
            return;
        }
        if (n == 0)
            doubt_doorbell();
        look_at_all(e, n);
        oh_resume_tick();
        oh_control_usage();
    }
}
