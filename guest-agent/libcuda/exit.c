/* SPDX-License-Identifier: Apache-2.0 */
/* The process's end: the vGPU is free again before the process is gone. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>

#include "core.h"
#include "moved.h"

#define RELEASE_NS 2000000000u /* longest wait for the worker's end */

/* 1: the host has closed. Bytes that came before are of no use any more. */
static bool peer_closed(void)
{
    uint8_t bytes[4096];
    ssize_t n = recv(og_link.fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* The worker frees memory and allocation first, then its end of the connection closes. */
static void release(void)
{
    uint64_t deadline = og_now_ns() + RELEASE_NS, now;
    struct pollfd p = { og_link.fd, POLLIN, 0 };

    shutdown(og_link.fd, SHUT_WR);
    while ((now = og_now_ns()) < deadline) {
        if (peer_closed())
            return;
        poll(&p, 1, (int)((deadline - now) / 1000000u) + 1);
    }
    og_log_at(OG_WARNING, "the worker has not ended within 2 s of this process");
}

__attribute__((destructor)) static void at_exit(void)
{
    int life = atomic_load(&og_life);

    if (life == OG_FORKED)
        return;
    atomic_store(&og_life, OG_EXITED);
    if (life == OG_CONNECTED) {
        og_wake_waiters();
        og_moved_all_back();
        release();
    }
    if (life == OG_CONNECTED || life == OG_LOST)
        og_announce(true, "Client exits with allocation ID %s", og_link.allocation.id);
    else if (life == OG_INITIALIZED)
        og_announce(true, "Client exits without allocation ID.");
}
