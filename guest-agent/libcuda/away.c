/* SPDX-License-Identifier: Apache-2.0 */
/* oriond restarts in a few seconds, and programs that run go on meanwhile. Who comes just then waits for it, for a little,
 * where it was seen a short while ago; else what is wrong is said at once. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core.h"

#define AWAY_SECONDS 30u
#define AGAIN_US 200000
#define SEEN_SECONDS 40 /* oriond writes the region's heartbeat every 10 s */

static bool reached;      /* by this process, or by the one that it was forked from */
static bool came_back;    /* after this process had waited for it */
static uint64_t since_ns; /* of the wait; 0: there is none. Under og_state_lock, as all here */

static bool was_there(void)
{
    const struct oc_header *h = &og_shared_region.header;
    bool told = og_shared_region.base && !*og_settings.server && (*h->server_addr[0] || og_mailbox_there());
    uint64_t beat = told ? h->heartbeat : 0; /* of whoever the region names */
    uint64_t now = (uint64_t)time(NULL);

    return reached || (now > beat ? now - beat : beat - now) < SEEN_SECONDS;
}

void og_away_begin(void)
{
    since_ns = 0;
}

void og_away_reached(void)
{
    reached = true;
    came_back |= since_ns != 0;
}

bool og_away_came_back(void)
{
    return came_back;
}

bool og_away_again(bool nobody)
{
    uint64_t now = og_now_ns();

    if (!since_ns) {
        if (!nobody || !was_there())
            return false;
        since_ns = now;
        og_announce(true, "Waiting up to %u s for oriond on the host, which does not answer now", AWAY_SECONDS);
    }
    if (now - since_ns >= AWAY_SECONDS * 1000000000ull) {
        reached = false; /* the next one is told at once */
        return false;
    }
    usleep(AGAIN_US);
    return true;
}
