/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon has ended, and another takes this worker up: until then the client computes on, and what needs the daemon
 * waits. The next one is told all that the last one knew of this channel, but for what it wrote down itself. */
#define _GNU_SOURCE
#include <sys/socket.h>
#include <unistd.h>

#include "loop.h"
#include "turn.h"

bool (*_Atomic oh_pages_tell)(void);
bool (*_Atomic oh_shares_tell)(void);
static uint64_t lost_at_ns; /* 0: there is a daemon */

void oh_resume_lost(void)
{
    if (oh_config.listen_fd < 0) {
        oh_end(OC_CLOSED_SERVER, "the daemon went away");
        return;
    }
    oh_watch_control(false);
    oh_control_down();
    lost_at_ns = oh_now_ns();
    oh_turns_free(true);
    oh_log("the daemon went away; %u s for the next one to come", oh_config.keep_seconds);
}

void oh_resume_tick(void)
{
    if (lost_at_ns && oh_now_ns() - lost_at_ns >= oh_config.keep_seconds * 1000000000ull)
        oh_end(OC_CLOSED_SERVER, "oriond went away and did not come back within %u s", oh_config.keep_seconds);
}

void oh_resume_accept(void)
{
    int fd = accept4(oh_config.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (lost_at_ns && dup2(fd, oh_config.control_fd) >= 0) /* its number is known to others */
        oh_watch_control(true);
    close(fd); /* in other cases it sees the end: there is a daemon */
}

static bool tell_descriptor(uint32_t kind, int fd)
{
    struct oh_control m = { .kind = kind };

    return fd < 0 || oh_control_have(&m, fd);
}

static bool tell_list(bool (*tell)(void))
{
    return !tell || tell();
}

/* Requests go to the new daemon from oh_control_up on: what enters a list that was told already is told by them. */
void oh_resume_begin(const struct oh_control *m)
{
    struct oh_control end = { .kind = OH_RESUME, .a = OH_PROTOCOL };

    if (!lost_at_ns)
        return;
    if (m->a != OH_PROTOCOL) {
        oh_end(OC_CLOSED_SERVER, "oriond is of a version that cannot serve this program: it speaks protocol %llu, and this worker %u",
               (unsigned long long)m->a, OH_PROTOCOL);
        return;
    }
    lost_at_ns = 0;
    oh_control_up();
    if (!tell_descriptor(OH_HAVE_CLIENT, oh_config.polled ? -1 : oh_config.socket_fd) ||
        !tell_descriptor(OH_HAVE_GROUP, oh_config.group_fd) || !oh_extents_tell() ||
        !tell_list(atomic_load(&oh_pages_tell)) || !tell_list(atomic_load(&oh_shares_tell)) || !oh_control_have(&end, -1))
        return; /* it has ended too: the watcher sees that next */
    oh_turns_free(false);
    oh_log("another daemon has taken this channel up");
}
