/* SPDX-License-Identifier: Apache-2.0 */
/* Handle tables: live, stale, wrong kind, taken, out of range, reverse look-up. */
#include "check.h"
#include "executor.h"

static uint64_t id_of(unsigned kind, uint64_t index, uint64_t generation)
{
    return (uint64_t)kind << 40 | generation << 24 | index << 4;
}

static void count(uint64_t id, void *real, void *data, void *arg)
{
    (void)id;
    (void)real;
    (void)data;
    ++*(int *)arg;
}

static void many(void)
{
    void *real;
    int n = 0;

    for (uint64_t i = 0; i < 5000; i++)
        CHECK(oh_put(OW_KIND_EVENT, id_of(OW_KIND_EVENT, i * 200, i), (void *)(uintptr_t)(0x1000 + i * 16)) == 0);
    for (uint64_t i = 0; i < 5000; i++) {
        CHECK(oh_get(OW_KIND_EVENT, id_of(OW_KIND_EVENT, i * 200, i), &real) == 0);
        CHECK(real == (void *)(uintptr_t)(0x1000 + i * 16));
        CHECK(oh_find(OW_KIND_EVENT, real) == id_of(OW_KIND_EVENT, i * 200, i));
        if (i % 2)
            oh_del(OW_KIND_EVENT, id_of(OW_KIND_EVENT, i * 200, i));
    }
    oh_each(OW_KIND_EVENT, count, &n);
    CHECK(n == 2500);
}

int main(void)
{
    uint64_t a = id_of(OW_KIND_STREAM, 5, 1), later = id_of(OW_KIND_STREAM, 5, 2);
    void *real;

    CHECK(oh_get(OW_KIND_STREAM, a, &real) == CUDA_ERROR_INVALID_HANDLE && !real);
    CHECK(oh_put(OW_KIND_STREAM, a, (void *)0x5000) == 0);
    CHECK(oh_put(OW_KIND_STREAM, a, (void *)0x6000) == OH_FAULT);
    CHECK(oh_put(OW_KIND_STREAM, later, (void *)0x6000) == OH_FAULT); /* the same place */
    CHECK(oh_get(OW_KIND_STREAM, a, &real) == 0 && real == (void *)0x5000);
    CHECK(oh_get(OW_KIND_STREAM, later, &real) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(oh_get(OW_KIND_EVENT, a, &real) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(oh_get(OW_KIND_CONTEXT, a, &real) == CUDA_ERROR_INVALID_CONTEXT);
    CHECK(oh_get(OW_KIND_STREAM, a | 1, &real) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(oh_get(OW_KIND_STREAM, a | 1ull << 60, &real) == CUDA_ERROR_INVALID_HANDLE);
    CHECK(oh_put(OW_KIND_STREAM, a | 8, (void *)1) == OH_FAULT);
    CHECK(oh_find(OW_KIND_STREAM, (void *)0x5000) == a && oh_find(OW_KIND_STREAM, (void *)0x5010) == 0);
    oh_set_data(OW_KIND_STREAM, a, &a);
    CHECK(oh_data(OW_KIND_STREAM, a) == &a && !oh_data(OW_KIND_STREAM, later));
    oh_del(OW_KIND_STREAM, later); /* not live: nothing happens */
    CHECK(oh_get(OW_KIND_STREAM, a, &real) == 0);
    oh_del(OW_KIND_STREAM, a);
    CHECK(oh_get(OW_KIND_STREAM, a, &real) == CUDA_ERROR_INVALID_HANDLE && oh_find(OW_KIND_STREAM, (void *)0x5000) == 0);
    CHECK(oh_put(OW_KIND_STREAM, later, (void *)0x7000) == 0 && !oh_data(OW_KIND_STREAM, later));
    for (uint64_t s = 0; s < 3; s++) /* NULL, legacy and per-thread streams pass */
        CHECK(oh_get(OW_KIND_STREAM, s, &real) == 0 && real == (void *)(uintptr_t)s);
    CHECK(oh_get(OW_KIND_EVENT, 0, &real) == CUDA_ERROR_INVALID_HANDLE);
    many();
    return 0;
}
