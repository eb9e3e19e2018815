/* SPDX-License-Identifier: Apache-2.0 */
/* Primary and created contexts, and each thread's stack of them. */
#include <stdlib.h>
#include <string.h>

#include "array.h"

static __thread struct CUctx_st *stack[SIM_STACK];
static __thread unsigned depth;
static _Atomic uint64_t next_id = 1;
static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER; /* retain, release, create, destroy */

struct CUctx_st *sim_current(void)
{
    return depth ? stack[depth - 1] : NULL;
}

bool sim_context_valid(struct CUctx_st *ctx)
{
    return sim_valid(ctx, SIM_CONTEXT);
}

CUresult sim_enter(struct CUctx_st **out)
{
    return sim_enter_for(NULL, out);
}

CUresult sim_enter_for(struct CUctx_st *own, struct CUctx_st **out)
{
    struct CUctx_st *ctx = sim_current() ? sim_current() : own;

    *out = NULL;
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (sim_in_callback)
        return CUDA_ERROR_NOT_PERMITTED;
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!sim_context_valid(ctx) || !ctx->active)
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *out = ctx;
    if (ctx->error)
        sim_output_show(ctx); /* whoever is told of a failed assertion sees which */
    return (CUresult)ctx->error;
}

void sim_poison(struct CUctx_st *ctx, CUresult error)
{
    int none = 0;

    __atomic_compare_exchange_n((int *)&ctx->error, &none, (int)error, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    struct CUctx_st *primary = ctx->device->primary;
    none = 0;
    if (primary && primary->active)
        __atomic_compare_exchange_n((int *)&primary->error, &none, (int)error, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
}

static void set_limits(struct CUctx_st *ctx)
{
    memset(ctx->limits, 0, sizeof(ctx->limits));
    ctx->limits[0] = 1024;      /* stack */
    ctx->limits[1] = 7 << 20;   /* printf buffer */
    ctx->limits[2] = 8 << 20;   /* malloc heap */
    ctx->limits[3] = 2;         /* device runtime depth */
    ctx->limits[4] = 2048;      /* pending launches */
    ctx->limits[5] = 64;        /* L2 fetch granularity */
    ctx->limits[6] = 0;         /* persisting L2 cache */
}

/* A green one is a part of its device's primary one. */
static CUresult activate(struct CUctx_st *ctx, bool green)
{
    ctx->error = 0;
    ctx->cancel = 0;
    ctx->id = next_id++;
    ctx->cache_config = ctx->shared_config = 0;
    memset(ctx->peers, 0, sizeof(ctx->peers));
    set_limits(ctx);
    CUresult r = green ? CUDA_SUCCESS : sim_own_begin(ctx);
    if (r)
        return r;
    r = sim_stream_create(ctx, 0, 0, &ctx->legacy);
    if (r) {
        sim_own_end(ctx);
        return r;
    }
    ctx->legacy->legacy = true;
    ctx->active = true;
    return CUDA_SUCCESS;
}

static void deactivate(struct CUctx_st *ctx)
{
    ctx->active = false;
    ctx->cancel = 1;
    sim_streams_end(ctx);
    sim_output_show(ctx);
    sim_libraries_drop(ctx);
    sim_textures_drop(ctx);
    sim_arrays_drop(ctx);
    sim_space_drop(ctx);
    sim_pools_release(ctx->device, true);
    sim_own_end(ctx);
    ctx->legacy = NULL;
}

static struct CUctx_st *context_new(struct sim_device *device, bool primary)
{
    struct CUctx_st *ctx = calloc(1, sizeof(*ctx));

    if (!ctx)
        return NULL;
    ctx->device = device;
    ctx->primary = primary;
    if (!sim_register(ctx, SIM_CONTEXT)) {
        free(ctx);
        return NULL;
    }
    return ctx;
}

SIM_API CUresult cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice dev)
{
    struct sim_device *d = sim_device(dev);
    CUresult r = CUDA_SUCCESS;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&life);
    if (!d->primary)
        d->primary = context_new(d, true);
    if (!d->primary)
        r = CUDA_ERROR_OUT_OF_MEMORY;
    else if (!d->primary->active) {
        d->primary->flags = d->primary_flags;
        r = activate(d->primary, false);
    }
    if (!r) {
        d->primary_refs++;
        *out = d->primary;
    }
    pthread_mutex_unlock(&life);
    return r;
}

SIM_API CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    struct sim_device *d = sim_device(dev);
    CUresult r = CUDA_SUCCESS;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&life);
    if (!d->primary_refs)
        r = CUDA_ERROR_INVALID_CONTEXT;
    else if (!--d->primary_refs && d->primary->active)
        deactivate(d->primary);
    pthread_mutex_unlock(&life);
    return r;
}

SIM_API CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    struct sim_device *d = sim_device(dev);

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&life);
    if (d->primary && d->primary->active)
        deactivate(d->primary);
    d->primary_refs = 0;
    pthread_mutex_unlock(&life);
    return CUDA_SUCCESS;
}

/* Known bits, and of the ways to wait (the lowest three) at most one. */
static bool flags_valid(unsigned flags)
{
    return !(flags & ~0xffu) && !(flags & 7 & ((flags & 7) - 1));
}

SIM_API CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned *flags, int *active)
{
    struct sim_device *d = sim_device(dev);

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    if (flags)
        *flags = d->primary_flags;
    if (active)
        *active = d->primary && d->primary->active;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned flags)
{
    struct sim_device *d = sim_device(dev);

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!flags_valid(flags))
        return CUDA_ERROR_INVALID_VALUE;
    d->primary_flags = flags;
    if (d->primary)
        d->primary->flags = flags;
    return CUDA_SUCCESS;
}

struct CUctx_st *sim_context_green(struct sim_device *device)
{
    struct CUctx_st *ctx = context_new(device, false);

    if (!ctx)
        return NULL;
    ctx->flags = device->primary_flags;
    if (activate(ctx, true) == CUDA_SUCCESS)
        return ctx;
    sim_unregister(ctx);
    free(ctx);
    return NULL;
}

/* Memory and code are the primary context's: they stay. So does the struct, as after cuCtxDestroy. */
void sim_context_green_end(struct CUctx_st *ctx)
{
    sim_unregister(ctx);
    ctx->active = false;
    ctx->cancel = 1;
    sim_streams_end(ctx);
    ctx->legacy = NULL;
}

SIM_API CUresult cuCtxCreate_v2(CUcontext *out, unsigned flags, CUdevice dev)
{
    struct sim_device *d = sim_device(dev);

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out || !flags_valid(flags) || depth >= SIM_STACK)
        return CUDA_ERROR_INVALID_VALUE;
    if (!d)
        return CUDA_ERROR_INVALID_DEVICE;
    struct CUctx_st *ctx = context_new(d, false);
    if (!ctx)
        return CUDA_ERROR_OUT_OF_MEMORY;
    ctx->flags = flags;
    CUresult r = activate(ctx, false);
    if (r) {
        sim_unregister(ctx);
        free(ctx);
        return r;
    }
    stack[depth++] = *out = ctx;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxCreate_v3(CUcontext *out, CUexecAffinityParam *params, int nr, unsigned flags, CUdevice dev)
{
    return params || nr ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : cuCtxCreate_v2(out, flags, dev);
}

SIM_API CUresult cuCtxCreate_v4(CUcontext *out, CUctxCreateParams *params, unsigned flags, CUdevice dev)
{
    if (params && (params->execAffinityParams || params->cigParams))
        return CUDA_ERROR_NOT_SUPPORTED;
    return cuCtxCreate_v2(out, flags, dev);
}

SIM_API CUresult cuCtxDestroy_v2(CUcontext ctx)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!sim_context_valid(ctx) || ctx->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&life);
    sim_unregister(ctx);
    deactivate(ctx);
    pthread_mutex_unlock(&life);
    if (sim_current() == ctx)
        depth--;
    /* The struct stays: other threads may still have it on their stacks and learn of the end there. */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!sim_context_valid(ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (depth >= SIM_STACK)
        return CUDA_ERROR_INVALID_VALUE;
    stack[depth++] = ctx;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxPopCurrent_v2(CUcontext *out)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    depth--;
    if (out)
        *out = stack[depth];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetCurrent(CUcontext ctx)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (ctx && !sim_context_valid(ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!ctx)
        depth -= depth != 0;
    else if (depth)
        stack[depth - 1] = ctx;
    else
        stack[depth++] = ctx;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetCurrent(CUcontext *out)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = sim_current();
    return CUDA_SUCCESS;
}

/* The current context for calls that only look at it. */
static CUresult look(struct CUctx_st **ctx, const void *out)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    *ctx = sim_current();
    if (!*ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!sim_context_valid(*ctx))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuCtxGetDevice(CUdevice *dev)
{
    struct CUctx_st *ctx;
    CUresult r = look(&ctx, dev);

    if (!r)
        *dev = ctx->device->ordinal;
    return r;
}

SIM_API CUresult cuCtxGetDevice_v2(CUdevice *dev, CUcontext ctx)
{
    if (!ctx)
        return cuCtxGetDevice(dev);
    if (!dev)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_context_valid(ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    *dev = ctx->device->ordinal;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetFlags(unsigned *flags)
{
    struct CUctx_st *ctx;
    CUresult r = look(&ctx, flags);

    if (!r)
        *flags = ctx->flags;
    return r;
}

SIM_API CUresult cuCtxSetFlags(unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult r = look(&ctx, &ctx);

    if (!r && flags & ~0xffu)
        return CUDA_ERROR_INVALID_VALUE;
    if (!r)
        ctx->flags = flags;
    return r;
}

SIM_API CUresult cuCtxGetId(CUcontext ctx, unsigned long long *id)
{
    struct CUctx_st *current = ctx;
    CUresult r = ctx ? CUDA_SUCCESS : look(&current, id);

    if (r)
        return r;
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_context_valid(current))
        return CUDA_ERROR_INVALID_CONTEXT;
    *id = current->id;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned *version)
{
    struct CUctx_st *current = ctx ? ctx : sim_current();

    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_context_valid(current) || !current->active)
        return CUDA_ERROR_INVALID_CONTEXT;
    *version = 3020;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSynchronize(void)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    return r ? r : sim_context_wait(ctx);
}

SIM_API CUresult cuCtxSynchronize_v2(CUcontext ctx)
{
    if (!ctx)
        return cuCtxSynchronize();
    return sim_context_valid(ctx) ? sim_context_wait(ctx) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!value || (unsigned)limit > 9) /* those from 7 on are of graphics contexts: 0 */
        return !value ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_UNSUPPORTED_LIMIT;
    *value = ctx->limits[limit];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if ((unsigned)limit > 6)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    r = sim_own_limit(ctx, limit, value);
    if (!r)
        ctx->limits[limit] = value;
    return r;
}

SIM_API CUresult cuCtxGetCacheConfig(CUfunc_cache *config)
{
    struct CUctx_st *ctx;
    CUresult r = look(&ctx, config);

    if (!r)
        *config = (CUfunc_cache)ctx->cache_config;
    return r;
}

SIM_API CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (!r && config > 3)
        return CUDA_ERROR_INVALID_VALUE;
    if (!r)
        ctx->cache_config = (int)config;
    return r;
}

/* Banks of shared memory have one width since long: a card takes the setting and goes on. */
SIM_API CUresult cuCtxGetSharedMemConfig(CUsharedconfig *config)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (!r && !config)
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *config = 1; /* CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE */
    return r;
}

SIM_API CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    return !r && config > 2 ? CUDA_ERROR_INVALID_VALUE : r;
}

SIM_API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (least)
        *least = 0;
    if (greatest)
        *greatest = -5;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxResetPersistingL2Cache(void)
{
    struct CUctx_st *ctx;

    return sim_enter(&ctx); /* there is no cache to reset */
}

SIM_API CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_context_valid(peer))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (peer->device == ctx->device)
        return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
    if (ctx->peers[peer->device->ordinal] == peer->id)
        return CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED;
    ctx->peers[peer->device->ordinal] = peer->id;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_context_valid(peer))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (ctx->peers[peer->device->ordinal] != peer->id)
        return CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    ctx->peers[peer->device->ordinal] = 0;
    return CUDA_SUCCESS;
}

/* No contexts of a part of the card: each has all multiprocessors. */
SIM_API CUresult cuCtxGetExecAffinity(CUexecAffinityParam *affinity, CUexecAffinityType type)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!affinity)
        return CUDA_ERROR_INVALID_VALUE;
    if (type != 0)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    affinity->type = type;
    affinity->param.smCount.val = SIM_MULTIPROCESSORS;
    return CUDA_SUCCESS;
}
