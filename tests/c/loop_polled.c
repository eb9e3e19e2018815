/* SPDX-License-Identifier: Apache-2.0 */
/* A client that wakes nobody is answered, busy and after pauses; and the kernel marks the worker's word at any end. */
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

static uint32_t word_of(const struct client *c)
{
    return atomic_load(&c->channel->worker);
}

static void until_watched(const struct client *c)
{
    for (int i = 0; !word_of(c); i++) {
        CHECK(i < 5000);
        usleep(1000);
    }
    CHECK(!(word_of(c) & OC_OWNER_DIED));
}

int main(void)
{
    struct client c;
    char byte;

    client_start_polled(&c);
    for (uint64_t i = 0; i < 1000; i++) {
        uint64_t seq = client_post(&c, 3, OW_OP_orion_ping, i, OC_CMD_REPLY);

        CHECK(client_wait(&c, 3, seq, 5000));
        CHECK(*(uint64_t *)(void *)client_slot(&c, 3)->out == i + 1);
        if (i % 250 == 0)
            usleep(50000);
    }
    CHECK(client_call(&c, 4, TEST_OP_SLOW, 50) == 0 && client_call(&c, 3, OW_OP_orion_ping, 0) == 0);
    CHECK(recv(c.socket, &byte, 1, MSG_DONTWAIT) < 0); /* and nobody is woken */
    until_watched(&c);
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    CHECK(word_of(&c) == OC_OWNER_DIED);
    close(c.control);

    client_start_polled(&c);
    until_watched(&c);
    CHECK(!kill(c.worker, SIGKILL) && waitpid(c.worker, NULL, 0) == c.worker);
    CHECK(word_of(&c) == OC_OWNER_DIED && atomic_load(&c.channel->closed) == OC_OPEN);
    return 0;
}
