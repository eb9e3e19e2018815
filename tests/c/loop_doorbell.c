/* SPDX-License-Identifier: Apache-2.0 */
/* The doorbell alone wakes the executor and is acknowledged; one that nobody hears is doubted, and no call is lost. */
#include <sys/eventfd.h>
#include <unistd.h>

#include "harness.h"

static bool heard(struct client *c)
{
    return atomic_load(&c->channel->doorbell_heard);
}

static void until_parked(struct client *c)
{
    while (!atomic_load(&c->channel->consumer_parked))
        usleep(100);
    usleep(1000); /* the twin sleeps as the leader, or the watcher does */
}

/* As ring.h publishes, but without the wake-up byte. */
static void quiet_call(struct client *c, uint64_t value, bool ring)
{
    uint64_t seq;

    c->quiet = true;
    seq = client_post(c, 0, OW_OP_orion_ping, value, OC_CMD_REPLY);
    c->quiet = false;
    if (ring)
        CHECK(!eventfd_write(c->doorbell, 1));
    CHECK(client_wait(c, 0, seq, 5000));
    CHECK(*(uint64_t *)(void *)client_slot(c, 0)->out == value + 1);
}

int main(void)
{
    struct client c;

    client_start_doorbell(&c);
    until_parked(&c);
    CHECK(!heard(&c));
    quiet_call(&c, 1, true); /* the watcher sleeps on it: there is no twin yet */
    CHECK(heard(&c));
    for (uint64_t i = 0; i < 50; i++) { /* the twin does */
        until_parked(&c);
        quiet_call(&c, i, true);
    }
    CHECK(heard(&c));
    do { /* the watcher's tick finds it, unless a late wake-up for an earlier ring does */
        until_parked(&c);
        quiet_call(&c, 7, false);
    } while (heard(&c));
    CHECK(client_call(&c, 0, OW_OP_orion_ping, 3) == 0); /* bytes serve as ever */
    CHECK(!heard(&c));
    until_parked(&c);
    quiet_call(&c, 8, true);
    CHECK(heard(&c));
    for (int i = 0; i < 1000; i++) /* rings for nothing harm nobody */
        CHECK(!eventfd_write(c.doorbell, 1));
    CHECK(client_call(&c, 1, OW_OP_orion_ping, 4) == 0);
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    close(c.doorbell);
    return 0;
}
