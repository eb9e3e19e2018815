/* SPDX-License-Identifier: Apache-2.0 */
/* Host's half of the round-trip program: handle table, ledger and quota that accept everything and count. */
#include "executor.h"

#include <stdarg.h>

#include "fake.h"

struct oh_device oh_devices[OC_MAX_DEVICES] = { { .ordinal = 4 }, { .ordinal = 5 } };
uint32_t oh_nr_devices = 2;
static uint64_t booked;

CUresult oh_get(enum ow_kind kind, uint64_t id, void **real)
{
    (void)kind;
    *real = (void *)(uintptr_t)(id + 7);
    return CUDA_SUCCESS;
}

static uint64_t taken_id;

CUresult oh_put(enum ow_kind kind, uint64_t id, void *real)
{
    (void)kind;
    (void)real;
    CHECK(hostile_mode || id == minted || id == taken_id); /* a handle that the driver did not free comes back */
    return CUDA_SUCCESS;
}

bool oh_take(enum ow_kind kind, uint64_t id, void **real, void **data)
{
    *data = NULL;
    taken_id = id;
    return oh_get(kind, id, real) == CUDA_SUCCESS;
}

void oh_set_data(enum ow_kind kind, uint64_t id, void *data)
{
    (void)kind, (void)id, (void)data;
}

void oh_del(enum ow_kind kind, uint64_t id)
{
    (void)kind;
    (void)id;
}

uint64_t oh_find(enum ow_kind kind, void *real)
{
    (void)kind;
    return (uint64_t)(uintptr_t)real - 7;
}

void oh_ledger_add(uint64_t ptr, uint64_t bytes, int device, uint64_t b)
{
    (void)ptr;
    (void)device;
    CHECK(b == bytes);
}

bool oh_entry_take(uint64_t ptr, struct oh_entry *e)
{
    *e = (struct oh_entry){ .ptr = ptr, .bytes = 64, .booked = 64 };
    return true;
}

void oh_entry_drop(const struct oh_entry *e)
{
    booked -= e->booked;
}

void oh_entry_restore(const struct oh_entry *e)
{
    CHECK(e->booked == 64);
}

bool oh_ledger_has(uint64_t ptr, uint64_t bytes)
{
    (void)ptr;
    return bytes != UINT64_MAX;
}

bool oh_ledger_find(uint64_t ptr, uint64_t *start, uint64_t *bytes, int *device)
{
    *start = ptr;
    *bytes = 64;
    *device = 0;
    return true;
}

bool oh_is_ours(const void *p, uint64_t bytes)
{
    (void)p;
    (void)bytes;
    return false;
}

CUresult oh_book(int device, uint64_t bytes)
{
    (void)device;
    booked += bytes;
    return CUDA_SUCCESS;
}

void oh_unbook(int device, uint64_t bytes)
{
    (void)device;
    booked -= bytes;
}

CUresult oh_fault(struct oh_twin *t, const char *format, ...)
{
    (void)t;
    (void)format;
    return OH_FAULT;
}

int bridge(uint32_t op, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    struct oh_twin twin = { .device = 0 };
    uint64_t before = booked;
    CUresult r;

    CHECK(bytes >= oh_ops[op].in_bytes);
    r = oh_ops[op].run(&twin, in, bytes, out, out_bytes);
    CHECK(r == CUDA_SUCCESS || booked == before); /* a failed call leaves the quota as it was */
    return (int)r;
}

uint32_t fixed_bytes(uint32_t op)
{
    return oh_ops[op].in_bytes;
}
