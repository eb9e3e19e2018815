/* SPDX-License-Identifier: Apache-2.0 */
/* A failed one-way command is reported once, to its own thread, at its next call that reports. */
#include <unistd.h>

#include "harness.h"

int main(void)
{
    struct client c;

    client_start(&c);
    client_post(&c, 0, TEST_OP_FAIL, 400, 0);
    client_post(&c, 0, TEST_OP_FAIL, 401, 0);                  /* the first one counts */
    CHECK(client_call(&c, 1, TEST_OP_SLOW, 0) == 0);           /* another thread hears nothing */
    CHECK(client_call(&c, 0, OW_OP_orion_ping, 0) == 0);       /* nor does a call that does not report */
    CHECK(client_call(&c, 0, TEST_OP_FAIL, 2) == 2);           /* an error of its own goes first */
    CHECK(client_call(&c, 0, TEST_OP_SLOW, 0) == 400);
    CHECK(client_call(&c, 0, TEST_OP_SLOW, 0) == 0);
    CHECK(atomic_load(&c.channel->device_error[0]) == 0);
    client_post(&c, 0, TEST_OP_FAIL, 700, 0);                  /* sticky: published for every vGPU of the card */
    CHECK(client_call(&c, 0, TEST_OP_SLOW, 0) == 700);
    CHECK(atomic_load(&c.channel->device_error[0]) == 700 && atomic_load(&c.channel->device_error[1]) == 700);
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    return 0;
}
