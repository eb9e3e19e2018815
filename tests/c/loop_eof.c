/* SPDX-License-Identifier: Apache-2.0 */
/* End of file ends the worker, also with a thread that never comes back from the driver. */
#include <unistd.h>

#include "harness.h"

int main(void)
{
    struct client c;

    client_start(&c); /* before any command */
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    close(c.control);

    client_start(&c);
    client_post(&c, 0, TEST_OP_STUCK, 0, OC_CMD_REPLY);
    CHECK(client_call(&c, 1, OW_OP_orion_ping, 0) == 0);
    close(c.socket);
    CHECK(client_end(&c, 20000) == OC_CLOSED_BY_GUEST);
    close(c.control);

    client_start(&c); /* the daemon goes */
    CHECK(client_call(&c, 1, OW_OP_orion_ping, 0) == 0);
    close(c.control);
    CHECK(client_end(&c, 20000) == OC_CLOSED_SERVER);
    CHECK(atomic_load(&c.channel->closed) == OC_CLOSED_SERVER);
    return 0;
}
