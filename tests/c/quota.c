/* SPDX-License-Identifier: Apache-2.0 */
/* The quota against a driver that rounds, takes memory for itself and gives back late: what the card shows stays within the limit,
 * nothing is refused that fits, and all is there again when everything was given back. */
#include <dlfcn.h>
#include <sched.h>
#include <stdlib.h>

#include "check.h"
#include "extra.h"
#include "loop.h"

#define MIB (1ull << 20)
#define LIMIT (80 * MIB)
#define BASE (64 * MIB)
#define PIECE (2 * MIB)
#define SLOTS 64
#define STEPS 4000
#define THREADS 4

static _Atomic unsigned long long *used; /* of the card, by this process */

struct thing {
    uint64_t booked, taken, claimed;
};

static uint64_t roll(uint64_t *dice, uint64_t below)
{
    *dice = *dice * 6364136223846793005ull + 1442695040888963407ull;
    return (*dice >> 33) % below;
}

static uint64_t some_bytes(uint64_t *dice)
{
    return (1ull << roll(dice, 25)) + roll(dice, 8 * MIB);
}

static void take(struct thing *t, uint64_t bytes)
{
    sched_yield(); /* so that others look in between */
    t->taken = bytes;
    atomic_fetch_add(used, bytes);
}

/* An allocation: whole pieces. Or something that the driver takes as it likes, up to what was said. */
static CUresult make(struct thing *t, uint64_t *dice)
{
    uint64_t bytes = some_bytes(dice);
    CUresult r;

    *t = (struct thing){ 0 };
    if (roll(dice, 3)) {
        r = oh_book(0, bytes);
        if (r == CUDA_SUCCESS) {
            t->booked = bytes;
            take(t, (bytes + PIECE - 1) / PIECE * PIECE);
        }
        return r;
    }
    r = oh_extra_more(0, bytes);
    if (r == CUDA_SUCCESS) {
        t->claimed = bytes;
        take(t, roll(dice, bytes + 1));
    }
    return r;
}

static _Thread_local uint64_t late; /* given back, and not yet free on the card */

static void release(void)
{
    atomic_fetch_sub(used, late);
    late = 0;
}

static void end(struct thing *t)
{
    late += t->taken;
    if (t->taken % 3) /* some stays until the next step is over */
        release();
    oh_unbook(0, t->booked);
    if (t->claimed)
        oh_extra_less(0, t->claimed);
    *t = (struct thing){ 0 };
}

/* Alone, a refusal means that there was no room: the piece of the last byte, and what the call may take, are looked at. */
static void refused(uint64_t before, uint64_t wanted)
{
    CHECK(before - BASE + wanted > LIMIT);
}

static void run(uint64_t seed, bool alone)
{
    static _Thread_local struct thing things[SLOTS];
    uint64_t dice = seed, before, most = alone ? 1 : THREADS, again;

    for (unsigned i = 0; i < STEPS; i++) {
        struct thing *t = &things[roll(&dice, SLOTS)];

        if (t->taken || t->booked || t->claimed) {
            end(t);
        } else {
            before = *used;
            again = dice;
            if (make(t, &dice) == CUDA_ERROR_OUT_OF_MEMORY && alone)
                refused(before, some_bytes(&again));
        }
        oh_extra_settle();
        if (roll(&dice, 2))
            release();
        CHECK(*used <= BASE + LIMIT + most * 6 * MIB);
    }
    for (unsigned i = 0; i < SLOTS; i++)
        end(&things[i]);
    release();
    oh_extra_settle();
    oh_extra_look();
}

static void *thread(void *seed)
{
    run((uint64_t)(uintptr_t)seed, false);
    return NULL;
}

static void all_is_there(void)
{
    CHECK(*used == BASE && oh_extra_fresh(0) == 0);
    CHECK(oh_book(0, LIMIT) == CUDA_SUCCESS);
    oh_unbook(0, LIMIT);
    oh_extra_settle();
    CHECK(oh_extra_fresh(0) == 0);
}

/* A context that turned out larger than placement had booked counts for the rest. */
static void start(void)
{
    uint64_t before;

    oh_nr_devices = 1;
    CHECK(oh_group_start() == 0);
    CHECK(oh_load_driver(getenv("FAKE_DRIVER")) == 0);
    used = dlsym(dlopen(getenv("FAKE_DRIVER"), RTLD_NOW), "fake_used");
    CHECK(used);
    oh_devices[0].limit_bytes = LIMIT;
    oh_devices[0].base_bytes = BASE;
    CHECK(oh_extra_start() == 0 && !oh_extra_measured());
    before = oh_extra_base_begin(0);
    *used = BASE + PIECE;
    oh_extra_base_end(0, before);
    CHECK(oh_extra_measured() && oh_extra_base_bytes(0) == BASE && oh_extra_fresh(0) == PIECE);
    *used = BASE;
    oh_extra_look();
    CHECK(oh_extra_fresh(0) == 0);
}

int main(void)
{
    pthread_t threads[THREADS];

    start();
    for (uint64_t seed = 1; seed <= 8; seed++)
        run(seed, true);
    all_is_there();
    for (uint64_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, thread, (void *)(uintptr_t)(100 + i)) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    all_is_there();
    return 0;
}
