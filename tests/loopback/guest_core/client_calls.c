/* SPDX-License-Identifier: Apache-2.0 */
/* Calls of the test's own operations, as generated senders make them. */
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "client_calls.h"

uint32_t echo(const void *in, uint32_t bytes, void *out)
{
    struct og_call c;

    CHECK(og_begin(&c, FAKE_ECHO, bytes) == CUDA_SUCCESS);
    memcpy(c.in, in, bytes);
    CHECK(og_call(&c) == CUDA_SUCCESS);
    memcpy(out, c.out, c.out_bytes);
    return c.out_bytes;
}

static CUresult value(uint32_t op, uint64_t v, CUresult (*how)(struct og_call *))
{
    struct og_call c;
    CUresult r = og_begin(&c, op, sizeof(v));

    if (r != CUDA_SUCCESS)
        return r;
    memcpy(c.in, &v, sizeof(v));
    return how(&c);
}

CUresult send_value(uint32_t op, uint64_t v)
{
    return value(op, v, og_post);
}

CUresult ask_value(uint32_t op, uint64_t v)
{
    return value(op, v, og_call);
}

CUresult count_item(uint32_t thread, uint32_t number, uint32_t bytes)
{
    struct fake_item item = { thread, number };
    struct og_call c;
    CUresult r = og_begin(&c, FAKE_COUNT, bytes);

    if (r != CUDA_SUCCESS)
        return r;
    memset(c.in, 0xff, bytes); /* looks like no seq, and like every stale byte */
    memcpy(c.in, &item, sizeof(item));
    return og_post(&c);
}

CUresult begin_and_abandon(uint32_t op)
{
    struct og_call c;
    CUresult r = og_begin(&c, op, 16);

    if (r == CUDA_SUCCESS)
        og_abandon(&c);
    return r;
}

struct fake_totals totals(void)
{
    struct fake_totals t;
    struct og_call c;

    CHECK(og_begin(&c, FAKE_TOTALS, 0) == CUDA_SUCCESS);
    CHECK(og_call(&c) == CUDA_SUCCESS && c.out_bytes == sizeof(t));
    memcpy(&t, c.out, sizeof(t));
    return t;
}

void *map_hint(uint64_t addr)
{
    return mmap((void *)(uintptr_t)addr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
