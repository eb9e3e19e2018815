/* SPDX-License-Identifier: Apache-2.0 */
/* Processes that share an allocation: together they never have more than its memory, and one that is gone has none. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "loop.h"

#define MEMBERS 4
#define PIECES 100000
#define LIMIT (PIECES * 10)

static void enter(uint32_t row)
{
    oh_config.group_row = row;
    CHECK(oh_group_start() == 0);
}

/* Takes single pieces until there is none, then returns how many it has, as its exit status' file says. */
static void take_all(uint32_t row, _Atomic uint64_t *had)
{
    uint64_t mine = 0;

    enter(row);
    while (oh_book(0, 10) == CUDA_SUCCESS) {
        mine++;
        CHECK(oh_used_bytes(0) <= LIMIT + MEMBERS * 10); /* what others add and take back at once */
    }
    atomic_store(had, mine);
    _exit(0);
}

static void race(void)
{
    _Atomic uint64_t *had = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t sum = 0;
    int status;

    CHECK(had != MAP_FAILED);
    for (uint32_t row = 1; row <= MEMBERS; row++)
        if (fork() == 0)
            take_all(row, &had[row]);
    for (uint32_t row = 1; row <= MEMBERS; row++)
        CHECK(wait(&status) > 0 && status == 0);
    for (uint32_t row = 1; row <= MEMBERS; row++)
        sum += atomic_load(&had[row]);
    enter(0);
    CHECK(oh_used_bytes(0) == sum * 10 && sum <= PIECES && sum >= PIECES - MEMBERS);
    while (oh_book(0, 10) == CUDA_SUCCESS) /* those who were in each other's way left at most a piece each */
        sum++;
    CHECK(sum == PIECES && oh_used_bytes(0) == LIMIT);
}

/* The daemon clears the row of one that has ended. */
static void one_ends(void)
{
    static const uint64_t nothing[OC_MAX_DEVICES];
    uint64_t before = oh_used_bytes(0), theirs = 0;

    CHECK(pread(oh_config.group_fd, &theirs, sizeof(theirs), sizeof(nothing)) == sizeof(theirs) && theirs > 0);
    CHECK(pwrite(oh_config.group_fd, nothing, sizeof(nothing), sizeof(nothing)) == sizeof(nothing));
    CHECK(oh_used_bytes(0) == before - theirs && oh_book(0, theirs) == CUDA_SUCCESS);
    CHECK(oh_book(0, 1) == CUDA_ERROR_OUT_OF_MEMORY);
}

int main(void)
{
    oh_nr_devices = 1;
    oh_devices[0].limit_bytes = LIMIT;
    oh_config.group_fd = memfd_create("group", 0);
    CHECK(oh_config.group_fd >= 0);
    CHECK(ftruncate(oh_config.group_fd, sizeof(uint64_t) * OC_MAX_DEVICES * OH_GROUP_ROWS) == 0);
    race();
    one_ends();
    oh_config.group_row = OH_GROUP_ROWS;
    CHECK(oh_group_start() != 0);
    return 0;
}
