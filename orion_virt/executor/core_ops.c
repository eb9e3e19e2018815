/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of the operations of our own that keep a channel alive: threads, grants, probes. */
#include "loop.h"

#include "gen/ops.h"

/* The slot may serve another guest thread later: its twin stays and starts clean. */
CUresult oh_orion_thread_exit(struct oh_twin *t, const struct ow_orion_thread_exit_in *in, uint32_t bytes,
                              struct ow_orion_thread_exit_out *out, uint32_t *out_bytes)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

    (void)in;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (oh_drv.cuThreadExchangeStreamCaptureMode)
        oh_drv.cuThreadExchangeStreamCaptureMode(&mode);
    if (oh_drv.cuCtxSetCurrent)
        oh_drv.cuCtxSetCurrent(NULL);
    oh_twin_reset((struct twin *)t);
    return CUDA_SUCCESS;
}

CUresult oh_orion_grant(struct oh_twin *t, const struct ow_orion_grant_in *in, uint32_t bytes,
                        struct ow_orion_grant_out *out, uint32_t *out_bytes)
{
    CUresult r;

    (void)bytes;
    oh_unlock_ring(t);
    r = oh_extents_grant(in->bytes, &out->off, &out->got);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_orion_release(struct oh_twin *t, const struct ow_orion_release_in *in, uint32_t bytes,
                          struct ow_orion_release_out *out, uint32_t *out_bytes)
{
    (void)bytes;
    (void)out;
    (void)out_bytes;
    oh_unlock_ring(t);
    return oh_extents_release(in->off, in->bytes);
}

CUresult oh_orion_ping(struct oh_twin *t, const struct ow_orion_ping_in *in, uint32_t bytes,
                       struct ow_orion_ping_out *out, uint32_t *out_bytes)
{
    (void)t;
    (void)bytes;
    out->value2 = in->value + 1;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_orion_nop(struct oh_twin *t, const struct ow_orion_nop_in *in, uint32_t bytes,
                      struct ow_orion_nop_out *out, uint32_t *out_bytes)
{
    (void)t;
    (void)in;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    return CUDA_SUCCESS;
}
