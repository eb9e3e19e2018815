/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of device memory: whole ranges only, adjacent entries join, quotas hold. */
#include "check.h"
#include "executor.h"

static void ranges(void)
{
    uint64_t start, bytes;
    int device;

    oh_ledger_add(0x1000, 0x1000, 0, 0);
    oh_ledger_add(0x2000, 0x1000, 0, 0);
    oh_ledger_add(0x8000, 0x100, 1, 0);
    CHECK(oh_ledger_has(0x1000, 0x1000) && oh_ledger_has(0x1fff, 1) && oh_ledger_has(0x1800, 0x1000));
    CHECK(!oh_ledger_has(0xfff, 1) && !oh_ledger_has(0x1000, 0x2001) && !oh_ledger_has(0x3000, 1));
    CHECK(!oh_ledger_has(0x1000, UINT64_MAX) && !oh_ledger_has(UINT64_MAX, 1));
    CHECK(oh_ledger_find(0x80ff, &start, &bytes, &device) && start == 0x8000 && bytes == 0x100 && device == 1);
    CHECK(!oh_ledger_find(0x8100, &start, &bytes, &device));
    CHECK(oh_ledger_del(0x1800) == 0 && oh_ledger_del(0x1000) == 0x1000 && oh_ledger_del(0x1000) == 0);
    CHECK(!oh_ledger_has(0x1800, 0x1000) && oh_ledger_has(0x2000, 0x1000));
    CHECK(oh_ledger_del(0x2000) && oh_ledger_del(0x8000));
}

static void quota(void)
{
    oh_nr_devices = 2;
    CHECK(oh_group_start() == 0);
    oh_devices[0].limit_bytes = 1000;
    CHECK(oh_book(0, 600) == 0 && oh_book(0, 401) == CUDA_ERROR_OUT_OF_MEMORY && oh_book(0, 400) == 0);
    CHECK(oh_book(0, UINT64_MAX) == CUDA_ERROR_OUT_OF_MEMORY);
    CHECK(oh_book(1, 1) == CUDA_ERROR_OUT_OF_MEMORY);
    oh_ledger_add(0x10000, 600, 0, 600);
    CHECK(oh_ledger_del(0x10000) == 600);
    CHECK(atomic_load(oh_devices[0].used_bytes) == 400 && oh_used_bytes(0) == 400);
    oh_unbook(0, 400);
}

static void many(void)
{
    for (uint64_t i = 0; i < 20000; i++)
        oh_ledger_add(((i * 7919) % 20000) * 4096 + 4096, 4096, 0, 0);
    CHECK(oh_ledger_has(4096, 20000ull * 4096));
    for (uint64_t i = 0; i < 20000; i += 2)
        CHECK(oh_ledger_del(i * 4096 + 4096) == 4096);
    for (uint64_t i = 0; i < 20000; i++)
        CHECK(oh_ledger_has(i * 4096 + 4096, 4096) == (i % 2 != 0));
    for (uint64_t i = 1; i < 20000; i += 2)
        CHECK(oh_ledger_del(i * 4096 + 4096) == 4096);
}

int main(void)
{
    ranges();
    quota();
    many();
    return 0;
}
