/* SPDX-License-Identifier: Apache-2.0 */
/* Green contexts: some of the multiprocessors, and a context with streams of its own that runs on them. */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define SM_MIN 2u            /* multiprocessors of the smallest part, and what each is a multiple of */
#define TYPE_SM 1u
#define IGNORE_COSCHEDULING 1u
#define SPLIT_FLAGS 3u
#define DEFAULT_STREAM 1u    /* flag of a green context; required */
#define MAGIC 0x53494d4752454e21ull

struct CUdevResourceDesc_st {
    struct sim_device *device;
    unsigned sms;
};
struct CUgreenCtx_st {
    struct CUctx_st *ctx;
    struct sim_device *device;
    unsigned sms;
};
/* Where a resource keeps what is ours: whoever changes it, is found out. */
struct inside {
    uint64_t magic, split;   /* split: 0 what may be split, else which split it came from */
    struct sim_device *device;
};

static void describe(CUdevResource *r, struct sim_device *device, unsigned sms, uint64_t split)
{
    struct inside in = { MAGIC, split, device };

    memset(r, 0, sizeof(*r));
    r->type = TYPE_SM;
    memcpy(r->_internal_padding, &in, sizeof(in));
    r->sm.smCount = sms;
    r->sm.minSmPartitionSize = r->sm.smCoscheduledAlignment = SM_MIN;
}

static CUresult inside_of(const CUdevResource *r, struct inside *in)
{
    if (!r || r->type != TYPE_SM)
        return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    memcpy(in, r->_internal_padding, sizeof(*in));
    return in->magic == MAGIC ? CUDA_SUCCESS : CUDA_ERROR_INVALID_RESOURCE_TYPE;
}

static CUresult get(struct sim_device *device, unsigned sms, CUdevResource *resource, CUdevResourceType type)
{
    if (!resource)
        return CUDA_ERROR_INVALID_VALUE;
    if (type != TYPE_SM)
        return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    describe(resource, device, sms, 0);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDeviceGetDevResource(CUdevice dev, CUdevResource *resource, CUdevResourceType type)
{
    struct sim_device *d = sim_device(dev);

    return d ? get(d, SIM_MULTIPROCESSORS, resource, type) : CUDA_ERROR_INVALID_DEVICE;
}

SIM_API CUresult cuGreenCtxGetDevResource(CUgreenCtx green, CUdevResource *resource, CUdevResourceType type)
{
    if (!sim_valid(green, SIM_GREEN))
        return CUDA_ERROR_INVALID_CONTEXT;
    return get(green->device, green->sms, resource, type);
}

SIM_API CUresult cuCtxGetDevResource(CUcontext ctx, CUdevResource *resource, CUdevResourceType type)
{
    if (!sim_context_valid(ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    return get(ctx->device, ctx->sms ? ctx->sms : SIM_MULTIPROCESSORS, resource, type);
}

SIM_API CUresult cuDevSmResourceSplitByCount(CUdevResource *result, unsigned *nr, const CUdevResource *input,
                                             CUdevResource *rest, unsigned flags, unsigned min)
{
    static _Atomic uint64_t next = 1;
    struct inside in;
    unsigned align = flags & IGNORE_COSCHEDULING ? 1 : SM_MIN, each = min < align ? align : min, count;
    CUresult r = inside_of(input, &in);
    uint64_t split = next++;

    if (r)
        return r;
    if (!nr || flags & ~SPLIT_FLAGS || min > input->sm.smCount)
        return CUDA_ERROR_INVALID_VALUE;
    if (in.split)
        return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
    each = (each + align - 1) / align * align;
    count = input->sm.smCount / each;
    if (result && count > *nr)
        count = *nr;
    for (unsigned i = 0; result && i < count; i++)
        describe(&result[i], in.device, each, split);
    if (rest) {
        describe(rest, in.device, input->sm.smCount - count * each, split);
        if (!rest->sm.smCount)
            rest->type = 0;
    }
    *nr = count;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *out, CUdevResource *resources, unsigned nr)
{
    struct CUdevResourceDesc_st *desc, all = { NULL, 0 };
    struct inside in, first = { 0 };

    if (!out || !resources || !nr)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < nr; i++) {
        CUresult r = inside_of(&resources[i], &in);

        if (r)
            return r;
        if (!i)
            first = in;
        if (in.device != first.device || (nr > 1 && (!in.split || in.split != first.split)))
            return CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION;
        all.device = in.device;
        all.sms += resources[i].sm.smCount;
    }
    desc = malloc(sizeof(*desc));
    if (!desc)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *desc = all;
    if (!sim_register(desc, SIM_RESOURCE_DESC)) {
        free(desc);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = desc;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGreenCtxCreate(CUgreenCtx *out, CUdevResourceDesc desc, CUdevice dev, unsigned flags)
{
    struct sim_device *d = sim_device(dev);
    struct CUgreenCtx_st *g;
    CUcontext primary;
    CUresult r;

    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!out || !sim_valid(desc, SIM_RESOURCE_DESC) || desc->device != d || flags != DEFAULT_STREAM)
        return CUDA_ERROR_INVALID_VALUE;
    r = cuDevicePrimaryCtxRetain(&primary, dev);
    if (r)
        return r;
    g = calloc(1, sizeof(*g));
    if (g)
        g->ctx = sim_context_green(d);
    if (!g || !g->ctx || !sim_register(g, SIM_GREEN)) {
        if (g && g->ctx)
            sim_context_green_end(g->ctx);
        free(g);
        cuDevicePrimaryCtxRelease_v2(dev);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    g->device = d;
    g->ctx->sms = g->sms = desc->sms;
    *out = g;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGreenCtxDestroy(CUgreenCtx g)
{
    int ordinal;

    if (!sim_valid(g, SIM_GREEN))
        return CUDA_ERROR_INVALID_CONTEXT;
    ordinal = g->device->ordinal;
    sim_unregister(g);
    sim_context_green_end(g->ctx);
    free(g);
    return cuDevicePrimaryCtxRelease_v2(ordinal);
}

SIM_API CUresult cuCtxFromGreenCtx(CUcontext *out, CUgreenCtx g)
{
    if (!sim_valid(g, SIM_GREEN))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = g->ctx;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuGreenCtxStreamCreate(CUstream *out, CUgreenCtx g, unsigned flags, int priority)
{
    CUresult r;

    if (!sim_valid(g, SIM_GREEN))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!out || flags != CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_stream_create(g->ctx, flags, priority, out);
    return !r && !sim_register(*out, SIM_STREAM) ? CUDA_ERROR_OUT_OF_MEMORY : r;
}

/* The moment when all work so far is done: waited for, which is right if not fast. */
SIM_API CUresult cuCtxRecordEvent(CUcontext ctx, CUevent event)
{
    CUresult r;

    if (!sim_context_valid(ctx) || !ctx->active)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!sim_valid(event, SIM_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    r = sim_context_wait(ctx);
    if (!r)
        sim_event_reached(event, ++event->recorded);
    return r;
}

SIM_API CUresult cuCtxWaitEvent(CUcontext ctx, CUevent event)
{
    if (!sim_context_valid(ctx) || !ctx->active)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!sim_valid(event, SIM_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    return cuEventSynchronize(event);
}

SIM_API CUresult cuGreenCtxRecordEvent(CUgreenCtx g, CUevent event)
{
    return sim_valid(g, SIM_GREEN) ? cuCtxRecordEvent(g->ctx, event) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuGreenCtxWaitEvent(CUgreenCtx g, CUevent event)
{
    return sim_valid(g, SIM_GREEN) ? cuCtxWaitEvent(g->ctx, event) : CUDA_ERROR_INVALID_CONTEXT;
}
