/* SPDX-License-Identifier: Apache-2.0 */
/* The calling thread's current context: stack, queries, peers. All but peers and synchronize is local. */
#include "context.h"
#include "gen/send.h"

static void og_set_top(struct og_thread *t, uint64_t handle)
{
    struct og_context *c;

    if (!handle) {
        if (t->depth)
            t->depth--;
        handle = t->depth ? t->stack[t->depth - 1] : 0;
    } else if (t->depth) {
        t->stack[t->depth - 1] = handle;
    } else {
        t->stack[t->depth++] = handle;
    }
    c = og_context(handle);
    t->device = c ? c->device : -1;
}

/* A primary context may be set current before it is active: the runtime does so. */
OG_EXPORT CUresult cuCtxSetCurrent(CUcontext ctx)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (ctx && !og_context((uintptr_t)ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    og_set_top(og_self(), (uintptr_t)ctx);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
    struct og_thread *t = og_self();
    struct og_context *c;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    c = og_context((uintptr_t)ctx);
    if (!c)
        return ctx ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_VALUE;
    if (t->depth >= sizeof(t->stack) / sizeof(t->stack[0]))
        return CUDA_ERROR_OUT_OF_MEMORY;
    t->stack[t->depth++] = c->handle;
    t->device = c->device;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxPushCurrent(CUcontext ctx)
{
    return cuCtxPushCurrent_v2(ctx);
}

OG_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *pctx)
{
    struct og_thread *t = og_self();
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!t->depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (pctx)
        *pctx = (CUcontext)(uintptr_t)t->stack[t->depth - 1];
    og_set_top(t, 0);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxPopCurrent(CUcontext *pctx)
{
    return cuCtxPopCurrent_v2(pctx);
}

OG_EXPORT CUresult cuCtxGetCurrent(CUcontext *pctx)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!pctx)
        return CUDA_ERROR_INVALID_VALUE;
    *pctx = (CUcontext)(uintptr_t)og_current();
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
    CUresult r = og_check_init();
    int d;

    if (r != CUDA_SUCCESS)
        return r;
    d = og_self()->device;
    if (d < 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = d;
    return CUDA_SUCCESS;
}

/* The context meant by an argument, 0: the current one. */
static struct og_context *og_meant(CUcontext ctx, CUresult *r)
{
    struct og_context *c;

    *r = og_check_init();
    if (*r != CUDA_SUCCESS)
        return NULL;
    c = og_context(og_context_resolve((uintptr_t)ctx));
    if (!c)
        *r = CUDA_ERROR_INVALID_CONTEXT;
    return c;
}

OG_EXPORT CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext ctx)
{
    CUresult r;
    struct og_context *c = og_meant(ctx, &r);

    if (!c)
        return r;
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = c->device;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxGetFlags(unsigned int *flags)
{
    CUresult r;
    struct og_context *c = og_meant(NULL, &r);

    if (!c)
        return r;
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = c->flags;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxSetFlags(unsigned int flags)
{
    CUresult r;
    struct og_context *c = og_meant(NULL, &r);

    if (!c)
        return r;
    if (flags & ~0xffu)
        return CUDA_ERROR_INVALID_VALUE;
    c->flags = flags;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxGetId(CUcontext ctx, unsigned long long *ctxId)
{
    CUresult r;
    struct og_context *c = og_meant(ctx, &r);

    if (!c)
        return r;
    if (!ctxId)
        return CUDA_ERROR_INVALID_VALUE;
    if (!atomic_load(&c->active))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    *ctxId = atomic_load(&c->number);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
    CUresult r;
    struct og_context *c = og_meant(ctx, &r);

    if (!c)
        return r;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    if (!atomic_load(&c->active))
        return CUDA_ERROR_INVALID_CONTEXT;
    *version = c->api_version;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxSynchronize_v2(CUcontext ctx)
{
    CUresult r = cuCtxPushCurrent_v2(ctx);

    if (r != CUDA_SUCCESS)
        return r;
    r = cuCtxSynchronize();
    og_set_top(og_self(), 0);
    return r;
}

/* ---- peers: memory of two vGPUs of one card is in reach of both anyway ---- */
static CUresult og_peer(CUcontext peer, unsigned enable)
{
    CUresult r;
    struct og_context *mine = og_context_live(&r), *c;

    if (!mine)
        return r;
    c = og_context((uintptr_t)peer);
    if (!c || !atomic_load(&c->active))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (c->device == mine->device)
        return enable ? CUDA_ERROR_PEER_ACCESS_UNSUPPORTED : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    return og_send_orion_peer_access(c->handle, enable);
}

OG_EXPORT CUresult cuCtxEnablePeerAccess(CUcontext peerContext, unsigned int Flags)
{
    return Flags ? CUDA_ERROR_INVALID_VALUE : og_peer(peerContext, 1);
}

OG_EXPORT CUresult cuCtxDisablePeerAccess(CUcontext peerContext)
{
    return og_peer(peerContext, 0);
}
