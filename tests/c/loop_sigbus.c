/* SPDX-License-Identifier: Apache-2.0 */
/* A region truncated under the worker ends it with its own status, not silently and not later. */
#include <unistd.h>

#include "harness.h"

int main(void)
{
    struct client c;

    client_start(&c);
    CHECK(client_call(&c, 0, OW_OP_orion_ping, 0) == 0);
    CHECK(!ftruncate(c.region, 0));
    client_wake(&c);
    CHECK(client_end(&c, 20000) == 77);
    return 0;
}
