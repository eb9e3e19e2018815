/* SPDX-License-Identifier: Apache-2.0 */
/* Contexts: stacks of threads, primary contexts and their life. Only making and ending one crosses to the host. */
#include "context.h"

#include <pthread.h>
#include <stdlib.h>

#include "gen/send.h"
#include "modules.h"
#include "storage.h"

#define OG_CTX_FLAGS 0xffu
#define OG_API_VERSION 3020 /* what the driver reports for a context of the current interface */
#define OG_MAX_WATCHERS 8

enum { OG_END_RELEASE = 0, OG_END_RESET = 1, OG_END_DESTROY = 2 }; /* `how` of orion_ctx_end */

static struct og_context og_primary[OC_MAX_DEVICES];
static pthread_mutex_t og_contexts_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic uint64_t og_next_number = 1;
static void (*og_watchers[OG_MAX_WATCHERS])(uint64_t context);
static _Atomic unsigned og_nr_watchers;

/* Known bits, and of the ways to wait (the lowest three) at most one. */
static bool og_context_flags_valid(unsigned flags)
{
    return !(flags & ~OG_CTX_FLAGS) && !(flags & 7 & ((flags & 7) - 1));
}

struct og_context *og_context(uint64_t handle)
{
    return handle && og_valid(OW_KIND_CONTEXT, handle) ? og_data(handle) : NULL;
}

uint64_t og_current(void)
{
    struct og_thread *t = og_self();

    return t->depth ? t->stack[t->depth - 1] : 0;
}

uint64_t og_context_resolve(uint64_t handle)
{
    return handle == 0 || handle == UINT64_MAX ? og_current() : handle;
}

uint64_t og_context_home(uint64_t handle)
{
    struct og_context *c = og_context(handle);

    return c && c->green ? og_primary_handle(c->device) : handle;
}

uint64_t og_context_number(uint64_t context)
{
    struct og_context *c = og_context(context);

    return c ? atomic_load_explicit(&c->number, memory_order_relaxed) : 0;
}

void og_on_context_death(void (*f)(uint64_t context))
{
    unsigned n = atomic_fetch_add(&og_nr_watchers, 1);

    if (n < OG_MAX_WATCHERS)
        og_watchers[n] = f;
}

static void og_tell_death(uint64_t context)
{
    unsigned n = atomic_load(&og_nr_watchers);

    og_storage_context_died(context); /* first: the runtime's destructors may still use its modules */
    for (unsigned i = 0; i < n && i < OG_MAX_WATCHERS; i++)
        if (og_watchers[i])
            og_watchers[i](context);
}

/* ---- current context of a thread ---- */
static void og_set_device(struct og_thread *t)
{
    struct og_context *c = og_context(t->depth ? t->stack[t->depth - 1] : 0);

    t->device = c ? c->device : -1;
}

struct og_thread *og_lend_context(uint64_t context)
{
    struct og_thread *t = og_self();

    if (!context || t->depth)
        return NULL;
    t->stack[t->depth++] = context;
    og_set_device(t);
    return t;
}

void og_take_back(struct og_thread **lent)
{
    if (__builtin_expect(*lent != NULL, 0)) {
        (*lent)->depth--;
        og_set_device(*lent);
    }
}

struct og_context *og_context_live(CUresult *r)
{
    struct og_context *c;

    *r = og_check_init();
    if (*r != CUDA_SUCCESS)
        return NULL;
    c = og_context(og_current());
    if (!c)
        *r = CUDA_ERROR_INVALID_CONTEXT;
    else if (!atomic_load_explicit(&c->active, memory_order_acquire))
        *r = CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return *r == CUDA_SUCCESS ? c : NULL;
}

/* What the twin ought to have current: the handle, tagged with its incarnation, since a reset
 * leaves twins with a dead one. Handles use the low 46 bits. */
static uint64_t og_twin_tag(const struct og_context *c)
{
    if (!c || !atomic_load_explicit(&c->active, memory_order_acquire))
        return 0;
    return c->handle | (uint64_t)atomic_load_explicit(&c->life, memory_order_relaxed) << 46;
}

CUresult og_sync_context(bool needed)
{
    struct og_thread *t = og_self();
    uint64_t current = t->depth ? t->stack[t->depth - 1] : 0;
    struct og_context *c = og_context(current);
    uint64_t tag = og_twin_tag(c), old = t->host_ctx;
    CUresult r = CUDA_SUCCESS;

    if (needed && !tag)
        return current && c ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_ERROR_INVALID_CONTEXT;
    if (tag == old)
        return CUDA_SUCCESS;
    t->host_ctx = tag; /* first: sending comes through here again */
    r = og_send_orion_set_current(tag ? c->handle : 0);
    if (r != CUDA_SUCCESS)
        t->host_ctx = old;
    return r;
}

/* ---- primary contexts ---- */
/* Under og_contexts_lock. */
static uint64_t og_primary_handle_locked(int device)
{
    struct og_context *c = &og_primary[device];

    if (c->handle)
        return c->handle;
    c->device = device;
    c->primary = true;
    c->api_version = OG_API_VERSION;
    c->handle = og_mint(OW_KIND_CONTEXT);
    if (c->handle)
        og_set_data(c->handle, c);
    return c->handle;
}

uint64_t og_primary_handle(int device)
{
    uint64_t handle;

    pthread_mutex_lock(&og_contexts_lock);
    handle = og_primary_handle_locked(device);
    pthread_mutex_unlock(&og_contexts_lock);
    return handle;
}

static CUresult og_activate(struct og_context *c)
{
    CUresult r = og_send_orion_ctx_activate(c->handle, c->device, c->flags, c->primary ? 0 : 1);

    if (r != CUDA_SUCCESS)
        return r;
    atomic_fetch_add(&c->life, 1);
    atomic_store(&c->number, atomic_fetch_add(&og_next_number, 1));
    atomic_store_explicit(&c->active, true, memory_order_release); /* pairs with og_twin_tag */
    return CUDA_SUCCESS;
}

/* The context dies. Its watchers run first and without the lock: they may call us, and tell the host what to drop. */
static CUresult og_end(struct og_context *c, unsigned how)
{
    CUresult r;

    og_tell_death(c->handle);
    atomic_store_explicit(&c->active, false, memory_order_release);
    r = og_send_orion_ctx_end(c->handle, how);
    og_modules_context_died(c->handle); /* last: their handles may be minted anew once the host has dropped them */
    atomic_store(&c->number, 0);
    return r;
}

static CUresult og_device_known(CUdevice dev)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    return dev >= 0 && dev < og_nr_devices() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

OG_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    struct og_context *c;
    CUresult r = og_device_known(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!pctx)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_connect();
    if (r != CUDA_SUCCESS)
        return r;
    c = &og_primary[dev];
    pthread_mutex_lock(&og_contexts_lock);
    if (!og_primary_handle_locked(dev))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    else if (!atomic_load(&c->active))
        r = og_activate(c);
    if (r == CUDA_SUCCESS) {
        c->retained++;
        *pctx = (CUcontext)(uintptr_t)c->handle;
    }
    pthread_mutex_unlock(&og_contexts_lock);
    return r;
}

OG_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    struct og_context *c;
    bool last;
    CUresult r = og_device_known(dev);

    if (r != CUDA_SUCCESS)
        return r;
    c = &og_primary[dev];
    pthread_mutex_lock(&og_contexts_lock);
    if (c->retained == 0)
        r = CUDA_ERROR_INVALID_CONTEXT;
    last = c->retained && --c->retained == 0 && atomic_load(&c->active);
    pthread_mutex_unlock(&og_contexts_lock);
    return last ? og_end(c, OG_END_RELEASE) : r;
}

OG_EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    return cuDevicePrimaryCtxRelease_v2(dev);
}

OG_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    CUresult r = og_device_known(dev);

    if (r != CUDA_SUCCESS || !atomic_load(&og_primary[dev].active))
        return r;
    return og_end(&og_primary[dev], OG_END_RESET);
}

OG_EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    return cuDevicePrimaryCtxReset_v2(dev);
}

OG_EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags)
{
    CUresult r = og_device_known(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!og_context_flags_valid(flags))
        return CUDA_ERROR_INVALID_VALUE;
    og_primary[dev].flags = flags;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
    return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

OG_EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
    CUresult r = og_device_known(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!flags || !active)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = og_primary[dev].flags;
    *active = atomic_load_explicit(&og_primary[dev].active, memory_order_relaxed);
    return CUDA_SUCCESS;
}

/* ---- contexts of the application ---- */
static CUresult og_push(uint64_t handle)
{
    struct og_thread *t = og_self();

    if (t->depth >= sizeof(t->stack) / sizeof(t->stack[0]))
        return CUDA_ERROR_OUT_OF_MEMORY;
    t->stack[t->depth++] = handle;
    og_set_device(t);
    return CUDA_SUCCESS;
}

static void og_forget(struct og_context *c)
{
    og_unmint(OW_KIND_CONTEXT, c->handle);
    free(c);
}

struct og_context *og_context_green(int device)
{
    struct og_context *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->device = device;
    c->flags = og_primary[device].flags;
    c->api_version = OG_API_VERSION;
    c->handle = og_mint(OW_KIND_CONTEXT);
    if (!c->handle) {
        free(c);
        return NULL;
    }
    atomic_store(&c->number, atomic_fetch_add(&og_next_number, 1));
    atomic_store(&c->active, true);
    og_set_data(c->handle, c);
    return c;
}

void og_context_green_end(struct og_context *c)
{
    struct og_thread *t = og_self();

    if (t->depth && t->stack[t->depth - 1] == c->handle)
        t->device = -1;
    og_forget(c);
}

static CUresult og_create(CUcontext *pctx, unsigned flags, CUdevice dev)
{
    struct og_context *c;
    CUresult r = og_connect();

    if (r != CUDA_SUCCESS)
        return r;
    c = calloc(1, sizeof(*c));
    if (!c)
        return CUDA_ERROR_OUT_OF_MEMORY;
    c->device = dev;
    c->flags = flags;
    c->api_version = OG_API_VERSION;
    c->handle = og_mint(OW_KIND_CONTEXT);
    if (!c->handle) {
        free(c);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    og_set_data(c->handle, c);
    r = og_activate(c);
    if (r == CUDA_SUCCESS && (r = og_push(c->handle)) != CUDA_SUCCESS)
        og_end(c, OG_END_DESTROY);
    if (r != CUDA_SUCCESS)
        og_forget(c);
    else
        *pctx = (CUcontext)(uintptr_t)c->handle;
    return r;
}

OG_EXPORT CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
    CUresult r = og_device_known(dev);

    if (r != CUDA_SUCCESS)
        return r;
    if (!pctx || !og_context_flags_valid(flags))
        return CUDA_ERROR_INVALID_VALUE;
    return og_create(pctx, flags, dev);
}

OG_EXPORT CUresult cuCtxCreate(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
    return cuCtxCreate_v2(pctx, flags, dev);
}

OG_EXPORT CUresult cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams, unsigned int flags,
                                  CUdevice dev)
{
    CUresult r = og_device_known(dev);

    if (r != CUDA_SUCCESS || !numParams)
        return r == CUDA_SUCCESS ? cuCtxCreate_v2(pctx, flags, dev) : r;
    if (numParams < 0 || !paramsArray || !pctx)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY; /* as on every card without MPS: its attribute says 0 */
}

OG_EXPORT CUresult cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams, unsigned int flags, CUdevice dev)
{
    const CUctxCreateParams *p = ctxCreateParams;

    if (!p || (p->numExecAffinityParams <= 0 && !p->cigParams))
        return cuCtxCreate_v2(pctx, flags, dev);
    if (p->numExecAffinityParams > 0 && p->cigParams)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->cigParams)
        return og_unsupported("cuCtxCreate_v4 with graphics sharing");
    return cuCtxCreate_v3(pctx, p->execAffinityParams, p->numExecAffinityParams, flags, dev);
}

OG_EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx)
{
    struct og_thread *t = og_self();
    struct og_context *c;
    uint64_t handle = (uintptr_t)ctx;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    c = og_context(handle);
    if (!c || c->primary || c->green)
        return ctx ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_VALUE;
    r = og_end(c, OG_END_DESTROY);
    og_forget(c);
    if (t->depth && t->stack[t->depth - 1] == handle)
        t->depth--;
    og_set_device(t);
    return r;
}

OG_EXPORT CUresult cuCtxDestroy(CUcontext ctx)
{
    return cuCtxDestroy_v2(ctx);
}

/* The old way to share a context: one more user of the current one. */
OG_EXPORT CUresult cuCtxAttach(CUcontext *pctx, unsigned int flags)
{
    CUresult r;
    struct og_context *c = og_context_live(&r);

    if (!c)
        return r;
    if (!pctx || flags)
        return CUDA_ERROR_INVALID_VALUE;
    c->attached++;
    *pctx = (CUcontext)(uintptr_t)c->handle;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuCtxDetach(CUcontext ctx)
{
    CUresult r;
    struct og_context *c = og_context_live(&r);

    if (!c)
        return r;
    if (c->handle != (uintptr_t)ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!c->attached)
        return cuCtxDestroy_v2(ctx);
    c->attached--;
    return CUDA_SUCCESS;
}
