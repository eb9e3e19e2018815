/* SPDX-License-Identifier: Apache-2.0 */
/* The table of operations of the loopback tests: the core's own, and a few that misbehave. */
#include <unistd.h>

#include "gen/ops.h"
#include "harness.h"

static CUresult run_exit(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    return oh_orion_thread_exit(t, in, bytes, out, out_bytes);
}

static CUresult run_grant(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    return oh_orion_grant(t, in, bytes, out, out_bytes);
}

static CUresult run_release(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    return oh_orion_release(t, in, bytes, out, out_bytes);
}

static CUresult run_ping(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    return oh_orion_ping(t, in, bytes, out, out_bytes);
}

static CUresult run_nop(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    return oh_orion_nop(t, in, bytes, out, out_bytes);
}

static CUresult run_slow(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    usleep((useconds_t)(*(const uint64_t *)in * 1000));
    return CUDA_SUCCESS;
}

static CUresult run_fail(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    (void)bytes;
    (void)out;
    (void)out_bytes;
    t->device = 0;
    return (CUresult) * (const uint64_t *)in;
}

static CUresult run_fault(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    (void)in;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    return oh_fault(t, "made to fail");
}

static CUresult run_stuck(struct oh_twin *t, const void *in, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    (void)t;
    (void)in;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    for (;;)
        pause();
    return CUDA_SUCCESS;
}

const struct oh_op oh_ops[OW_NR_OPS] = {
    [OW_OP_orion_thread_exit] = { .run = run_exit, .name = "orion_thread_exit" },
    [OW_OP_orion_grant] = { .run = run_grant, .name = "orion_grant", .in_bytes = 8, .blocks = true },
    [OW_OP_orion_release] = { .run = run_release, .name = "orion_release", .in_bytes = 16, .blocks = true },
    [OW_OP_orion_ping] = { .run = run_ping, .name = "orion_ping", .in_bytes = 8 },
    [OW_OP_orion_nop] = { .run = run_nop, .name = "orion_nop" },
    [TEST_OP_SLOW] = { .run = run_slow, .name = "slow", .in_bytes = 8, .blocks = true, .reports = true },
    [TEST_OP_FAIL] = { .run = run_fail, .name = "fail", .in_bytes = 8 },
    [TEST_OP_FAULT] = { .run = run_fault, .name = "fault" },
    [TEST_OP_STUCK] = { .run = run_stuck, .name = "stuck", .blocks = true },
};
