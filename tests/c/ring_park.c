/* SPDX-License-Identifier: Apache-2.0 */
/* Threads: a consumer that parks by the rules (set, watch for the grace time, sleep) misses no command. */
#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "ring_fixture.h"

#define COMMANDS 3000u

static int wake[2];

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *produce(void *arg)
{
    bool parked;

    for (uint32_t i = 0; i < COMMANDS; i++) {
        while (!ring_put(arg, 8, (uint8_t)i, &parked))
            usleep(10);
        if (parked)
            CHECK(write(wake[1], "\1", 1) == 1);
        if (i % 3 == 0)
            usleep(i % 200);
    }
    return NULL;
}

/* False after five seconds without a wake-up: one was lost. */
static bool sleep_until_woken(struct ring *r)
{
    struct pollfd p = { .fd = wake[0], .events = POLLIN };
    uint64_t start = now_ns();
    char bytes[64];
    int n = 1;

    atomic_store(&r->channel.consumer_parked, 1);
    while (!oc_ring_peek(&r->c) && now_ns() - start < OC_PARK_GRACE_NS)
        ;
    if (!oc_ring_peek(&r->c)) {
        n = poll(&p, 1, 5000);
        if (n == 1)
            CHECK(read(wake[0], bytes, sizeof(bytes)) > 0);
    }
    atomic_store(&r->channel.consumer_parked, 0);
    return n == 1;
}

int main(void)
{
    struct ring *r = ring_new();
    uint8_t payload[OC_LINE];
    pthread_t producer;
    struct oc_cmd h;

    CHECK(!pipe(wake));
    CHECK(!pthread_create(&producer, NULL, produce, r));
    for (uint32_t i = 0; i < COMMANDS; i++) {
        while (!ring_get(r, &h, payload)) {
            oc_ring_release(&r->c);
            CHECK(sleep_until_woken(r) || !oc_ring_peek(&r->c));
        }
        CHECK(payload[0] == (uint8_t)i);
    }
    pthread_join(producer, NULL);
    free(r);
    return 0;
}
