/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations of device, managed and pinned host memory, and questions about pointers. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>

#include "sim.h"

SIM_API CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (available)
        *available = ctx->device->total_bytes - ctx->device->used_bytes;
    if (total)
        *total = ctx->device->total_bytes;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAlloc_v2(CUdeviceptr *p, size_t bytes)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);
    uint64_t at;

    if (r)
        return r;
    if (!p || !bytes)
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_may_block(ctx);
    if (!r)
        r = sim_space_alloc(ctx, ctx->device, bytes, SIM_MEM_DEVICE, 0, &at);
    if (!r)
        *p = at;
    return r;
}

SIM_API CUresult cuMemAllocPitch_v2(CUdeviceptr *p, size_t *pitch, size_t width, size_t height, unsigned element)
{
    if (!pitch || !width || !height || (element != 4 && element != 8 && element != 16))
        return CUDA_ERROR_INVALID_VALUE;
    *pitch = (width + 511) / 512 * 512;
    return cuMemAlloc_v2(p, *pitch * height);
}

SIM_API CUresult cuMemAllocManaged(CUdeviceptr *p, size_t bytes, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);
    uint64_t at;

    if (r)
        return r;
    if (!p || !bytes || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_space_alloc(ctx, ctx->device, bytes, SIM_MEM_MANAGED, flags, &at);
    if (!r)
        *p = at;
    return r;
}

SIM_API CUresult cuMemFree_v2(CUdeviceptr p)
{
    struct CUctx_st *ctx;
    struct sim_range range;
    bool found = sim_space_find(p, &range);
    CUresult r = sim_enter_for(found ? range.ctx : NULL, &ctx);

    if (!p && r == CUDA_ERROR_INVALID_CONTEXT)
        return CUDA_SUCCESS;
    if (r || !p)
        return r;
    if (!found || range.start != p ||
        (range.kind != SIM_MEM_DEVICE && range.kind != SIM_MEM_MANAGED && range.kind != SIM_MEM_POOL &&
         range.kind != SIM_MEM_IMPORTED))
        return CUDA_ERROR_INVALID_VALUE;
    r = sim_may_block(ctx);
    if (!r)
        r = sim_context_wait(range.ctx ? range.ctx : ctx); /* kernels may still use it */
    if (!r && sim_alloc_find(p))
        return sim_graph_memory_freed(p);
    return r ? r : sim_space_free(p);
}

SIM_API CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr p)
{
    struct CUctx_st *ctx;
    struct sim_range range;
    CUresult r = sim_enter(&ctx);

    if (base)
        *base = 0;
    if (size)
        *size = 0;
    if (r)
        return r;
    if (!sim_space_find(p, &range) || range.kind == SIM_MEM_RESERVED)
        return CUDA_ERROR_NOT_FOUND;
    if (base)
        *base = range.start;
    if (size)
        *size = range.bytes;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemHostAlloc(void **p, size_t bytes, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);
    size_t size = (bytes + 4095) & ~(size_t)4095;
    void *at;

    if (r)
        return r;
    if (!p || !bytes || flags & ~7u)
        return CUDA_ERROR_INVALID_VALUE;
    at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct sim_range range = { .start = (uint64_t)(uintptr_t)at, .bytes = bytes, .kind = SIM_MEM_HOST, .ctx = ctx,
                               .device = ctx->device, .flags = flags | CU_MEMHOSTALLOC_DEVICEMAP, .mapped = size };
    r = sim_space_add(&range);
    if (r)
        munmap(at, size);
    else
        *p = at;
    return r;
}

SIM_API CUresult cuMemAllocHost_v2(void **p, size_t bytes)
{
    return cuMemHostAlloc(p, bytes, 0);
}

SIM_API CUresult cuMemFreeHost(void *p)
{
    struct CUctx_st *ctx;
    struct sim_range range;
    bool found = sim_space_find((uint64_t)(uintptr_t)p, &range);
    CUresult r = sim_enter_for(found ? range.ctx : NULL, &ctx);

    if (!p && r == CUDA_ERROR_INVALID_CONTEXT)
        return CUDA_SUCCESS;
    if (r || !p)
        return r;
    sim_context_wait(ctx);
    return sim_space_del((uint64_t)(uintptr_t)p, SIM_MEM_HOST) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemHostRegister_v2(void *p, size_t bytes, unsigned flags)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!p || !bytes || flags & ~15u)
        return CUDA_ERROR_INVALID_VALUE;
    struct sim_range range = { .start = (uint64_t)(uintptr_t)p, .bytes = bytes, .kind = SIM_MEM_REGISTERED, .ctx = ctx,
                               .device = ctx->device, .flags = flags | CU_MEMHOSTALLOC_DEVICEMAP };
    return sim_space_add(&range);
}

SIM_API CUresult cuMemHostUnregister(void *p)
{
    struct CUctx_st *ctx;
    struct sim_range range;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    sim_context_wait(ctx);
    if (sim_space_del((uint64_t)(uintptr_t)p, SIM_MEM_REGISTERED))
        return CUDA_SUCCESS;
    return sim_space_find((uint64_t)(uintptr_t)p, &range) && range.kind == SIM_MEM_REGISTERED
               ? CUDA_ERROR_INVALID_VALUE
               : CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
}

static bool is_host(const struct sim_range *r)
{
    return r->kind == SIM_MEM_HOST || r->kind == SIM_MEM_REGISTERED;
}

SIM_API CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *device, void *p, unsigned flags)
{
    struct CUctx_st *ctx;
    struct sim_range range;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!device || flags || !sim_space_find((uint64_t)(uintptr_t)p, &range) ||
        (!is_host(&range) && range.kind != SIM_MEM_MANAGED))
        return CUDA_ERROR_INVALID_VALUE;
    *device = (CUdeviceptr)(uintptr_t)p;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemHostGetFlags(unsigned *flags, void *p)
{
    struct CUctx_st *ctx;
    struct sim_range range;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!flags || !sim_space_find((uint64_t)(uintptr_t)p, &range) || !is_host(&range))
        return CUDA_ERROR_INVALID_VALUE;
    *flags = range.flags & 7;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPrefetchAsync(CUdeviceptr p, size_t bytes, CUdevice device, CUstream stream)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r)
        return r;
    if (device != -1 /* the host */ && !sim_device(device))
        return CUDA_ERROR_INVALID_DEVICE;
    return sim_space_extent(p) >= bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; /* it is all one memory */
}

/* ---- pointer attributes ---- */

/* Writes one attribute; the numbers are CUpointer_attribute. */
static CUresult attribute(int what, const struct sim_range *r, CUdeviceptr p, void *out)
{
    switch (what) {
    case 1: *(CUcontext *)out = r->ctx; break;
    case 2: *(unsigned *)out = is_host(r) ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE; break;
    case 3: *(CUdeviceptr *)out = p; break;
    case 4:
        if (!is_host(r) && r->kind != SIM_MEM_MANAGED)
            return CUDA_ERROR_INVALID_VALUE;
        *(void **)out = (void *)(uintptr_t)p;
        break;
    case 6: *(unsigned *)out = r->sync_memops; break;
    case 7: *(unsigned long long *)out = r->id; break;
    case 8: *(unsigned *)out = r->kind == SIM_MEM_MANAGED; break;
    case 9: *(int *)out = r->device ? r->device->ordinal : -1; break;
    case 10: *(unsigned *)out = r->kind == SIM_MEM_DEVICE; break;
    case 11: *(CUdeviceptr *)out = r->start; break;
    case 12: *(size_t *)out = r->bytes; break;
    case 13: *(unsigned *)out = 1; break;
    case 14: *(unsigned long long *)out = r->kind == SIM_MEM_MAPPED; break; /* by descriptor */
    case 15: *(unsigned *)out = 0; break;
    case 16: *(unsigned *)out = 3; break;
    case 17: *(void **)out = r->kind == SIM_MEM_POOL ? r->owner : NULL; break;
    case 18: *(size_t *)out = r->bytes; break;
    case 19: *(CUdeviceptr *)out = r->start; break;
    case 20: *(unsigned long long *)out = r->id; break;
    case 21: *(int *)out = 0; break;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuPointerGetAttribute(void *data, CUpointer_attribute what, CUdeviceptr p)
{
    struct sim_range range;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!data || !sim_space_find(p, &range))
        return CUDA_ERROR_INVALID_VALUE;
    return attribute((int)what, &range, p, data);
}

static size_t attribute_bytes(int what)
{
    return what == 2 || what == 6 || what == 8 || what == 9 || what == 10 || what == 13 || what == 15 || what == 16 ||
           what == 21 ? 4 : 8;
}

SIM_API CUresult cuPointerGetAttributes(unsigned nr, CUpointer_attribute *what, void **data, CUdeviceptr p)
{
    struct sim_range range;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!nr || !what || !data)
        return CUDA_ERROR_INVALID_VALUE;
    bool known = sim_space_find(p, &range);
    for (unsigned i = 0; i < nr; i++) {
        if ((int)what[i] < 1 || (int)what[i] > 21 || what[i] == 5 || !data[i])
            return CUDA_ERROR_INVALID_VALUE;
        if (!known || attribute((int)what[i], &range, p, data[i]))
            memset(data[i], 0, attribute_bytes((int)what[i]));
        if (!known && what[i] == 9)
            *(int *)data[i] = -2; /* the driver's number for "no device" */
    }
    return CUDA_SUCCESS;
}

static void set_memops(struct sim_range *r, void *arg)
{
    r->sync_memops = *(const unsigned *)arg != 0;
}

SIM_API CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute what, CUdeviceptr p)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!value || what != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS)
        return CUDA_ERROR_INVALID_VALUE;
    return sim_space_update(p, set_memops, (void *)(uintptr_t)value) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
