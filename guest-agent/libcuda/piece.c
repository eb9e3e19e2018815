/* SPDX-License-Identifier: Apache-2.0 */
/* What a process wrote into shared pages after another had moved them to the region, and before it did so itself. */
#include <orion/share.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "moved.h"

#define PAGE 4096u
#define ROOM ((OC_PIECE_TAIL - PAGE) / PAGE) /* pages remembered */
#define LOCK_MS 1000

/* Behind the live bytes: the file's as they were when they were last taken over. Pages that are not listed were zero:
 * memory made for sharing is, but for a few words. */
struct tail {
    _Atomic uint32_t lock;
    uint32_t nr;
    uint32_t page[ROOM];
    uint8_t pad[PAGE - 4 * (2 + ROOM)];
    uint8_t was[ROOM][PAGE];
};
_Static_assert(sizeof(struct tail) == OC_PIECE_TAIL, "the daemon grants it");

static const uint8_t zeros[PAGE];

static const uint8_t *was(const struct tail *t, uint64_t page)
{
    uint32_t nr = t->nr < ROOM ? t->nr : ROOM; /* other processes write it */

    for (uint32_t i = 0; i < nr; i++)
        if (t->page[i] == page)
            return t->was[i];
    return zeros;
}

static void remember(struct tail *t, uint64_t page, const uint8_t *now)
{
    uint32_t i = 0;

    while (i < t->nr && i < ROOM && t->page[i] != page)
        i++;
    if (i >= ROOM)
        return;
    if (i == t->nr)
        t->page[t->nr++] = (uint32_t)page;
    memcpy(t->was[i], now, PAGE);
}

void og_piece_fill(uint8_t *live, const uint8_t *file, uint64_t bytes)
{
    struct tail *t = (struct tail *)(live + bytes);

    memcpy(live, file, bytes);
    memset(t, 0, PAGE);
    for (uint64_t i = 0; i < bytes / PAGE && t->nr < ROOM; i++)
        if (memcmp(file + i * PAGE, zeros, PAGE) != 0)
            remember(t, i, file + i * PAGE);
}

/* False when whoever holds it has died with it, it seems. */
static bool lock(struct tail *t)
{
    struct timespec ms = { 0, 1000000 };

    for (unsigned i = 0; i < LOCK_MS; i++) {
        uint32_t idle = 0;

        if (atomic_compare_exchange_strong(&t->lock, &idle, 1))
            return true;
        nanosleep(&ms, NULL);
    }
    return false;
}

void og_piece_merge(uint8_t *live, const uint8_t *file, uint64_t bytes)
{
    struct tail *t = (struct tail *)(live + bytes);
    bool all = bytes / PAGE > ROOM && t->nr >= ROOM; /* more pages had bytes than were remembered */

    if (all || !lock(t))
        return;
    for (uint64_t i = 0; i < bytes / PAGE; i++) {
        const uint8_t *now = file + i * PAGE, *old = was(t, i);

        if (memcmp(now, old, PAGE) == 0)
            continue;
        for (unsigned k = 0; k < PAGE; k++)
            if (now[k] != old[k])
                live[i * PAGE + k] = now[k];
        remember(t, i, now);
    }
    atomic_store(&t->lock, 0);
}
