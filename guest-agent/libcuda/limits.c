/* SPDX-License-Identifier: Apache-2.0 */
/* Limits of contexts: cuBLAS asks for one before many launches, so an answer is kept until somebody sets one. */
#include "context.h"
#include "gen/send.h"

static void og_limits_forget(struct og_context *c)
{
    for (unsigned i = 0; i < OG_LIMITS; i++)
        atomic_store(&c->limit[i], 0);
}

/* What is known belongs to one incarnation of the context: a reset restores the defaults. */
static void og_limits_check(struct og_context *c)
{
    uint64_t number = atomic_load(&c->number);

    if (c->limits_number != number) {
        og_limits_forget(c);
        c->limits_number = number;
    }
}

OG_EXPORT CUresult cuCtxGetLimit(size_t *pvalue, CUlimit limit)
{
    struct og_context *c = og_context(og_current());
    uint64_t known;
    CUresult r;

    if (!c || !pvalue || limit >= OG_LIMITS || !atomic_load(&c->active) ||
        atomic_load(&og_channel()->device_error[c->device]))
        return og_send_cuCtxGetLimit(pvalue, limit);
    og_limits_check(c);
    known = atomic_load(&c->limit[limit]);
    if (known) {
        *pvalue = known - 1;
        return CUDA_SUCCESS;
    }
    r = og_send_cuCtxGetLimit(pvalue, limit);
    if (r == CUDA_SUCCESS)
        atomic_store(&c->limit[limit], *pvalue + 1);
    return r;
}

OG_EXPORT CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    struct og_context *c = og_context(og_current());
    CUresult r = og_send_cuCtxSetLimit(limit, value);

    if (c)
        og_limits_forget(c);
    return r;
}
