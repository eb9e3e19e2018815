/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of every kind: all become boxes of bytes between two addresses. */
#include <stdlib.h>
#include <string.h>

#include "array.h"

enum side { HOST, DEVICE, ANY };

static uint64_t last_byte(uint64_t base, size_t pitch, size_t slice, const struct sim_copy *c)
{
    return base + (c->depth - 1) * slice + (c->height - 1) * pitch + c->width;
}

static bool inside(uint64_t base, size_t pitch, size_t slice, const struct sim_copy *c)
{
    uint64_t extent = sim_space_extent(base);

    return extent && last_byte(base, pitch, slice, c) - base <= extent;
}

/* A side that is device memory must lie in one allocation; ANY is checked when the ledger knows its start. */
static CUresult check_side(enum side side, uint64_t base, size_t pitch, size_t slice, const struct sim_copy *c)
{
    if (side == HOST)
        return base ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    if (side == ANY && base && !sim_space_find(base, NULL))
        return CUDA_SUCCESS;
    return inside(base, pitch, slice, c) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult sim_copy_check(const struct sim_copy *c)
{
    CUresult r;

    if (!c->width || !c->height || !c->depth)
        return CUDA_SUCCESS;
    r = check_side(ANY, c->src, c->src_pitch, c->src_slice, c);
    return r ? r : check_side(ANY, c->dst, c->dst_pitch, c->dst_slice, c);
}

/* Keeps the bytes of a pageable source: the caller may change them as soon as we return. */
static CUresult own_source(struct sim_copy *c)
{
    size_t bytes = last_byte(0, c->src_pitch, c->src_slice, c);

    if (sim_space_find(c->src, NULL))
        return CUDA_SUCCESS;
    c->owned = malloc(bytes);
    if (!c->owned)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(c->owned, (void *)(uintptr_t)c->src, bytes);
    return CUDA_SUCCESS;
}

static CUresult submit(CUstream stream, struct sim_work *work, bool async)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);
    struct sim_copy *c = &work->copy;

    if (r || !c->width || !c->height || !c->depth)
        return r;
    if (!async) {
        r = sim_may_block(s->ctx);
        return r ? r : sim_submit_wait(s, work);
    }
    if (!s->capture) {
        if (!sim_space_find(c->dst, NULL)) /* pageable target: done when we return, as the driver does it */
            return sim_submit_wait(s, work);
        r = own_source(c);
    }
    return r ? r : sim_submit(s, work);
}

static CUresult linear(uint64_t dst, enum side to, uint64_t src, enum side from, size_t bytes, CUstream stream, bool async)
{
    struct sim_work w = {
        .kind = SIM_WORK_COPY,
        .copy = { .src = src, .dst = dst, .width = bytes, .height = 1, .depth = 1 },
    };
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r || !bytes)
        return r;
    r = check_side(from, src, 0, 0, &w.copy);
    if (!r)
        r = check_side(to, dst, 0, 0, &w.copy);
    w.copy_params = (CUDA_MEMCPY3D){
        .srcMemoryType = from == HOST ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_UNIFIED,
        .srcHost = (void *)(uintptr_t)src, .srcDevice = src,
        .dstMemoryType = to == HOST ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_UNIFIED,
        .dstHost = (void *)(uintptr_t)dst, .dstDevice = dst, .WidthInBytes = bytes, .Height = 1, .Depth = 1,
    };
    return r ? r : submit(stream, &w, async);
}

SIM_API CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t n)
{
    return linear(dst, ANY, src, ANY, n, NULL, false);
}

SIM_API CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream stream)
{
    return linear(dst, ANY, src, ANY, n, stream, true);
}

SIM_API CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t n)
{
    return linear(dst, DEVICE, (uint64_t)(uintptr_t)src, HOST, n, NULL, false);
}

SIM_API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t n, CUstream stream)
{
    return linear(dst, DEVICE, (uint64_t)(uintptr_t)src, HOST, n, stream, true);
}

SIM_API CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t n)
{
    return linear((uint64_t)(uintptr_t)dst, HOST, src, DEVICE, n, NULL, false);
}

SIM_API CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t n, CUstream stream)
{
    return linear((uint64_t)(uintptr_t)dst, HOST, src, DEVICE, n, stream, true);
}

SIM_API CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t n)
{
    return linear(dst, DEVICE, src, DEVICE, n, NULL, false);
}

SIM_API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t n, CUstream stream)
{
    return linear(dst, DEVICE, src, DEVICE, n, stream, true);
}

static bool two_contexts(CUcontext a, CUcontext b)
{
    return sim_context_valid(a) && sim_context_valid(b);
}

SIM_API CUresult cuMemcpyPeer(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t n)
{
    return two_contexts(to, from) ? linear(dst, DEVICE, src, DEVICE, n, NULL, false) : CUDA_ERROR_INVALID_CONTEXT;
}

SIM_API CUresult cuMemcpyPeerAsync(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t n,
                                   CUstream stream)
{
    return two_contexts(to, from) ? linear(dst, DEVICE, src, DEVICE, n, stream, true) : CUDA_ERROR_INVALID_CONTEXT;
}

/* Address, pitch and slice of one side of a 3D copy. */
static CUresult resolve_side(CUmemorytype type, const void *host, CUdeviceptr device, size_t pitch, size_t height,
                             const CUDA_MEMCPY3D *p, struct sim_copy *c, bool src)
{
    size_t x = src ? p->srcXInBytes : p->dstXInBytes, y = src ? p->srcY : p->dstY, z = src ? p->srcZ : p->dstZ;
    uint64_t base;

    if (!pitch)
        pitch = p->WidthInBytes + x;
    if (!height)
        height = p->Height + y;
    if (pitch < p->WidthInBytes)
        return CUDA_ERROR_INVALID_VALUE;
    base = type == CU_MEMORYTYPE_HOST ? (uint64_t)(uintptr_t)host : device;
    base += z * pitch * height + y * pitch + x;
    *(src ? &c->src : &c->dst) = base;
    *(src ? &c->src_pitch : &c->dst_pitch) = pitch;
    *(src ? &c->src_slice : &c->dst_slice) = pitch * height;
    if (!c->width || !c->height || !c->depth)
        return CUDA_SUCCESS;
    return check_side(type == CU_MEMORYTYPE_HOST ? HOST : type == CU_MEMORYTYPE_DEVICE ? DEVICE : ANY, base, pitch,
                      pitch * height, c);
}

CUresult sim_copy_resolve(const CUDA_MEMCPY3D *p, struct sim_copy *c)
{
    size_t from[3] = { p->srcXInBytes, p->srcY, p->srcZ }, to[3] = { p->dstXInBytes, p->dstY, p->dstZ };
    CUresult r;

    memset(c, 0, sizeof(*c));
    c->width = p->WidthInBytes;
    c->height = p->Height;
    c->depth = p->Depth;
    if (p->srcMemoryType == CU_MEMORYTYPE_ARRAY)
        r = sim_array_box(p->srcArray, from, c, &c->src, true);
    else
        r = resolve_side(p->srcMemoryType, p->srcHost, p->srcDevice, p->srcPitch, p->srcHeight, p, c, true);
    if (r)
        return r;
    if (p->dstMemoryType == CU_MEMORYTYPE_ARRAY)
        return sim_array_box(p->dstArray, to, c, &c->dst, false);
    return resolve_side(p->dstMemoryType, p->dstHost, p->dstDevice, p->dstPitch, p->dstHeight, p, c, false);
}

static CUresult box(const CUDA_MEMCPY3D *p, CUstream stream, bool async)
{
    struct sim_work w = { .kind = SIM_WORK_COPY };
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    w.copy_params = *p;
    r = sim_copy_resolve(p, &w.copy);
    return r ? r : submit(stream, &w, async);
}

static CUresult flat(const CUDA_MEMCPY2D *p, CUstream stream, bool async)
{
    CUDA_MEMCPY3D q;

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    q = (CUDA_MEMCPY3D){
        .srcXInBytes = p->srcXInBytes, .srcY = p->srcY, .srcMemoryType = p->srcMemoryType, .srcHost = p->srcHost,
        .srcDevice = p->srcDevice, .srcArray = p->srcArray, .srcPitch = p->srcPitch,
        .dstXInBytes = p->dstXInBytes, .dstY = p->dstY, .dstMemoryType = p->dstMemoryType, .dstHost = p->dstHost,
        .dstDevice = p->dstDevice, .dstArray = p->dstArray, .dstPitch = p->dstPitch,
        .WidthInBytes = p->WidthInBytes, .Height = p->Height, .Depth = 1,
    };
    return box(&q, stream, async);
}

SIM_API CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *p)
{
    return flat(p, NULL, false);
}

SIM_API CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *p)
{
    return flat(p, NULL, false);
}

SIM_API CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *p, CUstream stream)
{
    return flat(p, stream, true);
}

SIM_API CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *p)
{
    return box(p, NULL, false);
}

SIM_API CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *p, CUstream stream)
{
    return box(p, stream, true);
}

/* All memory is one: whose it is does not matter. */
static CUresult peer(const CUDA_MEMCPY3D_PEER *p, CUstream stream, bool async)
{
    CUDA_MEMCPY3D q;

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    if (!two_contexts(p->srcContext, p->dstContext))
        return CUDA_ERROR_INVALID_CONTEXT;
    memcpy(&q, p, sizeof(q));
    q.reserved0 = q.reserved1 = NULL;
    return box(&q, stream, async);
}

SIM_API CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *p)
{
    return peer(p, NULL, false);
}

SIM_API CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *p, CUstream stream)
{
    return peer(p, stream, true);
}

static CUresult set(uint64_t dst, size_t pitch, unsigned value, unsigned element, size_t width, size_t height,
                    CUstream stream, bool async)
{
    struct sim_work w = {
        .kind = SIM_WORK_SET,
        .set = { .dst = dst, .pitch = pitch, .width = width, .height = height, .value = value, .element = element },
        .set_params = { .dst = dst, .pitch = pitch, .value = value, .elementSize = element, .width = width,
                        .height = height },
    };
    struct sim_copy range = { .width = width * element, .height = height, .depth = 1 };
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r || !width || !height)
        return r;
    if (dst % element || pitch % element || (height > 1 && pitch < width * element) || !inside(dst, pitch, 0, &range))
        return CUDA_ERROR_INVALID_VALUE;
    if (async)
        return sim_submit(s, &w);
    r = sim_may_block(s->ctx);
    return r ? r : sim_submit_wait(s, &w);
}

SIM_API CUresult cuMemsetD8_v2(CUdeviceptr p, unsigned char v, size_t n) { return set(p, 0, v, 1, n, 1, NULL, false); }
SIM_API CUresult cuMemsetD16_v2(CUdeviceptr p, unsigned short v, size_t n) { return set(p, 0, v, 2, n, 1, NULL, false); }
SIM_API CUresult cuMemsetD32_v2(CUdeviceptr p, unsigned v, size_t n) { return set(p, 0, v, 4, n, 1, NULL, false); }

SIM_API CUresult cuMemsetD8Async(CUdeviceptr p, unsigned char v, size_t n, CUstream s)
{
    return set(p, 0, v, 1, n, 1, s, true);
}

SIM_API CUresult cuMemsetD16Async(CUdeviceptr p, unsigned short v, size_t n, CUstream s)
{
    return set(p, 0, v, 2, n, 1, s, true);
}

SIM_API CUresult cuMemsetD32Async(CUdeviceptr p, unsigned v, size_t n, CUstream s)
{
    return set(p, 0, v, 4, n, 1, s, true);
}

SIM_API CUresult cuMemsetD2D8_v2(CUdeviceptr p, size_t pitch, unsigned char v, size_t w, size_t h)
{
    return set(p, pitch, v, 1, w, h, NULL, false);
}

SIM_API CUresult cuMemsetD2D16_v2(CUdeviceptr p, size_t pitch, unsigned short v, size_t w, size_t h)
{
    return set(p, pitch, v, 2, w, h, NULL, false);
}

SIM_API CUresult cuMemsetD2D32_v2(CUdeviceptr p, size_t pitch, unsigned v, size_t w, size_t h)
{
    return set(p, pitch, v, 4, w, h, NULL, false);
}

SIM_API CUresult cuMemsetD2D8Async(CUdeviceptr p, size_t pitch, unsigned char v, size_t w, size_t h, CUstream s)
{
    return set(p, pitch, v, 1, w, h, s, true);
}

SIM_API CUresult cuMemsetD2D16Async(CUdeviceptr p, size_t pitch, unsigned short v, size_t w, size_t h, CUstream s)
{
    return set(p, pitch, v, 2, w, h, s, true);
}

SIM_API CUresult cuMemsetD2D32Async(CUdeviceptr p, size_t pitch, unsigned v, size_t w, size_t h, CUstream s)
{
    return set(p, pitch, v, 4, w, h, s, true);
}
