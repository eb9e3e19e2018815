/* SPDX-License-Identifier: Apache-2.0 */
/* Threads: producer and consumer in two threads, commands of all sizes, order and bytes checked. */
#include <pthread.h>
#include <sched.h>

#include "ring_fixture.h"

#define COMMANDS 60000u

static uint32_t size_of(uint32_t i)
{
    return i % 97 == 0 ? 60000 : i * 37 % 500 + 1;
}

static void *produce(void *arg)
{
    for (uint32_t i = 0; i < COMMANDS; i++)
        while (!ring_put(arg, size_of(i), (uint8_t)i, NULL))
            sched_yield();
    return NULL;
}

int main(void)
{
    struct ring *r = ring_new();
    static uint8_t payload[OC_CMD_MAX_LINES * OC_LINE];
    pthread_t producer;
    struct oc_cmd h;

    CHECK(!pthread_create(&producer, NULL, produce, r));
    for (uint32_t i = 0; i < COMMANDS; i++) {
        while (!ring_get(r, &h, payload)) {
            oc_ring_release(&r->c);
            sched_yield();
        }
        CHECK(h.bytes == size_of(i) && h.thread == (uint8_t)i);
        CHECK(payload[0] == (uint8_t)i && payload[h.bytes / 2] == (uint8_t)i && payload[h.bytes - 1] == (uint8_t)i);
        if (i % 8 == 0)
            oc_ring_release(&r->c);
    }
    pthread_join(producer, NULL);
    free(r);
    return 0;
}
