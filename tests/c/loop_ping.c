/* SPDX-License-Identifier: Apache-2.0 */
/* A round trip answers value + 1 in the caller's slot, busy and after pauses that let the executor park. */
#include <unistd.h>

#include "harness.h"

int main(void)
{
    struct client c;

    client_start(&c);
    for (uint64_t i = 0; i < 2000; i++) {
        CHECK(client_call(&c, 3, OW_OP_orion_ping, i) == 0);
        CHECK(client_slot(&c, 3)->bytes == 8 && *(uint64_t *)(void *)client_slot(&c, 3)->out == i + 1);
        if (i % 400 == 0)
            usleep(30000);
    }
    CHECK(client_call(&c, 3, 0x3fff, 0) == 801); /* a number that no host knows */
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    return 0;
}
