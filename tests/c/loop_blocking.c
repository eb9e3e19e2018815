/* SPDX-License-Identifier: Apache-2.0 */
/* While one guest thread blocks in the driver for long, another goes on, from its first command. */
#include <unistd.h>

#include "harness.h"

int main(void)
{
    struct client c;
    uint64_t slow, start;

    client_start(&c);
    CHECK(client_call(&c, 0, OW_OP_orion_ping, 1) == 0);
    for (int round = 0; round < 3; round++) {
        slow = client_post(&c, 0, TEST_OP_SLOW, 1500, OC_CMD_REPLY);
        usleep(20000);
        start = test_now_ns();
        for (int i = 0; i < 200; i++)
            CHECK(client_call(&c, 1, OW_OP_orion_ping, 1) == 0);
        CHECK(test_now_ns() - start < 900000000u);
        CHECK(atomic_load(&client_slot(&c, 0)->done) < slow);
        CHECK(client_wait(&c, 0, slow, 3000));
        CHECK(client_call(&c, 0, OW_OP_orion_ping, 1) == 0);
    }
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    return 0;
}
