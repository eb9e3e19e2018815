/* SPDX-License-Identifier: Apache-2.0 */
/* Shared memory: the connection carries wake-up bytes and tells the end. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "core.h"

#define WAKE 0x01

/* A full socket buffer means that wake-ups are on their way already; an end is seen by who reads. */
void og_shm_wake(void)
{
    static const uint8_t byte = WAKE;

    if (og_doorbell_ring() || og_link.polled)
        return;
    (void)!send(og_link.fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void og_shm_drain(void)
{
    uint8_t bytes[256];
    ssize_t n = recv(og_link.fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        og_lost_by_close();
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] != WAKE) {
            og_lost("the worker sent an unknown byte", "host and guest versions differ? Start the program again");
            return;
        }
    }
}
