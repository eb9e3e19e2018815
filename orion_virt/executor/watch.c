/* SPDX-License-Identifier: Apache-2.0 */
/* The watcher: asleep in poll() on connection and control socket; sees wake-ups, end of file and orders. */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "loop.h"

#define TICK_MS 1000 /* bounds the delay of a lost wake-up; see baton.c, invariant 4 */

static int interrupt_fd = -1;

int oh_watch_open(void)
{
    interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return interrupt_fd < 0 ? -errno : 0;
}

void oh_watch_interrupt(void)
{
    uint64_t one = 1;

    if (interrupt_fd >= 0 && write(interrupt_fd, &one, sizeof(one)) < 0)
        return; /* the counter is full: poll() returns anyway */
}

static void look_at_connection(const struct pollfd *p)
{
    int r;

    if (!p->revents)
        return;
    r = oh_transport_read();
    if (r == 0)
        oh_end(OC_CLOSED_BY_GUEST, "the client's connection ended");
}

static void look_at_control(struct pollfd *p)
{
    if (p->revents && !oh_control_read())
        oh_end(OC_CLOSED_SERVER, "the daemon went away");
}

void oh_watch_run(void)
{
    struct pollfd p[3] = {
        { .fd = oh_config.socket_fd, .events = POLLIN },
        { .fd = oh_config.control_fd, .events = POLLIN }, /* -1: poll() ignores it */
        { .fd = interrupt_fd, .events = POLLIN },
    };

    /* The client may have written before consumer_parked was set: watch for a little. */
    usleep(OC_PARK_GRACE_NS / 1000);
    while (!atomic_load(&oh_ending)) {
        oh_baton_kick();
        if (poll(p, 3, TICK_MS) < 0 && errno != EINTR) {
            oh_end(OC_CLOSED_WORKER, "poll: %s", strerror(errno));
            return;
        }
        look_at_connection(&p[0]);
        look_at_control(&p[1]);
        oh_control_usage();
    }
}
