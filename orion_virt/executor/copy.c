/* SPDX-License-Identifier: Apache-2.0 */
/* Copies: every address is checked against the channel's extents or the ledger before the driver sees it. */
#include <string.h>

#include "memory.h"

#define LEGACY ((CUstream)0)
#define UNUSED_OUT (void)out, (void)out_bytes

CUresult oh_place_get(uint32_t side, uint64_t addr, uint64_t bytes, struct oh_place *place)
{
    place->side = side == OC_SIDE_REGION ? OC_SIDE_REGION : OC_SIDE_DEVICE;
    place->addr = addr;
    if (side == OC_SIDE_REGION) {
        place->addr = (uint64_t)(uintptr_t)oh_region(addr, bytes);
        return place->addr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    }
    if (side == OC_SIDE_DEVICE && oh_ledger_has(addr, bytes))
        return CUDA_SUCCESS;
    return CUDA_ERROR_INVALID_VALUE;
}

bool oh_span(uint64_t width, uint64_t pitch, uint64_t height, uint64_t slice_rows, uint64_t depth, uint64_t *bytes)
{
    uint64_t rows, lead;

    /* ((depth - 1) * slice_rows + height - 1) * pitch + width */
    if (__builtin_mul_overflow(depth - 1, slice_rows, &rows) || __builtin_add_overflow(rows, height - 1, &rows))
        return false;
    return !__builtin_mul_overflow(rows, pitch, &lead) && !__builtin_add_overflow(lead, width, bytes);
}

static void count(uint64_t bytes)
{
    atomic_fetch_add_explicit(&oh_bytes_copied, bytes, memory_order_relaxed);
}

static CUresult issue_async(struct oh_place dst, struct oh_place src, uint64_t bytes, CUstream stream)
{
    void *to = (void *)(uintptr_t)dst.addr;
    const void *from = (const void *)(uintptr_t)src.addr;

    count(bytes);
    if (dst.side == OC_SIDE_DEVICE && src.side == OC_SIDE_DEVICE)
        return oh_drv.cuMemcpyDtoDAsync_v2(dst.addr, src.addr, bytes, stream);
    if (dst.side == OC_SIDE_DEVICE)
        return oh_drv.cuMemcpyHtoDAsync_v2(dst.addr, from, bytes, stream);
    if (src.side == OC_SIDE_DEVICE)
        return oh_drv.cuMemcpyDtoHAsync_v2(to, src.addr, bytes, stream);
    return oh_drv.cuMemcpyAsync(dst.addr, src.addr, bytes, stream);
}

/* The driver's own synchronous functions on the legacy stream, so that it decides what they wait
 * for and whether a capture forbids them. */
static CUresult issue_sync(struct oh_place dst, struct oh_place src, uint64_t bytes, CUstream stream)
{
    CUresult r;

    if (stream != LEGACY) {
        r = issue_async(dst, src, bytes, stream);
        return r == CUDA_SUCCESS ? oh_drv.cuStreamSynchronize(stream) : r;
    }
    count(bytes);
    if (dst.side == OC_SIDE_DEVICE && src.side == OC_SIDE_DEVICE)
        return oh_drv.cuMemcpyDtoD_v2(dst.addr, src.addr, bytes);
    if (dst.side == OC_SIDE_DEVICE)
        return oh_drv.cuMemcpyHtoD_v2(dst.addr, (const void *)(uintptr_t)src.addr, bytes);
    if (src.side == OC_SIDE_DEVICE)
        return oh_drv.cuMemcpyDtoH_v2((void *)(uintptr_t)dst.addr, src.addr, bytes);
    return oh_drv.cuMemcpy(dst.addr, src.addr, bytes);
}

/* The driver would record the address of memory that is ours or is reused: the guest sends such
 * copies by a shadow instead. */
static bool must_not_record(CUstream stream, bool passing)
{
    return passing && oh_is_capturing(stream);
}

/* `data` are the `extra` bytes that followed the command. */
static CUresult row(const struct ow_orion_copy_in *in, const uint8_t *data, uint32_t extra, CUstream stream, bool sync)
{
    struct oh_place dst, src = { OC_SIDE_REGION, (uint64_t)(uintptr_t)data };
    CUresult r = oh_place_get(in->dst_side, in->dst, in->bytes, &dst);
    bool passing = in->fence != 0 || in->src_side == OC_SIDE_INLINE;

    if (r == CUDA_SUCCESS && in->src_side != OC_SIDE_INLINE)
        r = oh_place_get(in->src_side, in->src, in->bytes, &src);
    else if (in->src_side == OC_SIDE_INLINE && in->bytes > extra)
        r = CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS && must_not_record(stream, passing))
        r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (r != CUDA_SUCCESS)
        return r;
    return sync && !in->fence ? issue_sync(dst, src, in->bytes, stream) : issue_async(dst, src, in->bytes, stream);
}

/* A staged piece is done when its fence is, also if it could not be copied: the guest waits for it. */
static CUresult run_row(const struct ow_orion_copy_in *in, uint32_t bytes, bool sync)
{
    void *stream = NULL;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    if (r == CUDA_SUCCESS)
        r = row(in, (const uint8_t *)in + sizeof(*in), bytes - (uint32_t)sizeof(*in), stream, sync);
    if (in->fence)
        oh_fence_add(in->fence, stream, r == CUDA_SUCCESS, in->dst,
                     in->dst_side == OC_SIDE_REGION ? in->bytes : 0);
    return r;
}

CUresult oh_orion_copy(struct oh_twin *t, const struct ow_orion_copy_in *in, uint32_t bytes,
                       struct ow_orion_copy_out *out, uint32_t *out_bytes)
{
    (void)t;
    UNUSED_OUT;
    return run_row(in, bytes, true);
}

_Static_assert(sizeof(struct ow_orion_copy_in) == sizeof(struct ow_orion_copy_async_in), "one payload, two operations");

CUresult oh_orion_copy_async(struct oh_twin *t, const struct ow_orion_copy_async_in *in, uint32_t bytes,
                             struct ow_orion_copy_async_out *out, uint32_t *out_bytes)
{
    (void)t;
    UNUSED_OUT;
    return run_row((const struct ow_orion_copy_in *)in, bytes, false);
}

CUresult oh_orion_read(struct oh_twin *t, const struct ow_orion_read_in *in, uint32_t bytes,
                       struct ow_orion_read_out *out, uint32_t *out_bytes)
{
    uint8_t room[OC_READ_MAX]; /* not the slot itself: it is the guest's, and registered */
    struct oh_place src, dst = { OC_SIDE_REGION, (uint64_t)(uintptr_t)room };
    void *stream;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)t;
    (void)bytes;
    if (in->bytes > sizeof(room))
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = oh_place_get(in->src_side, in->src, in->bytes, &src);
    if (r == CUDA_SUCCESS && must_not_record(stream, true))
        r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (r == CUDA_SUCCESS)
        r = issue_sync(dst, src, in->bytes, stream);
    if (r != CUDA_SUCCESS)
        return r;
    out->got = in->bytes;
    memcpy((uint8_t *)out + sizeof(*out), room, in->bytes);
    *out_bytes = (uint32_t)sizeof(*out) + in->bytes;
    return CUDA_SUCCESS;
}

/* ---- two and three dimensions ---- */

static CUresult nd_place(uint32_t side, uint64_t addr, uint64_t pitch, uint64_t rows, const struct oc_copy_nd *nd,
                         struct oh_place *place)
{
    uint64_t bytes;
    void *array;
    CUresult r;

    if (side == OC_SIDE_ARRAY) { /* the driver checks positions and extents */
        r = oh_get(OW_KIND_ARRAY, addr, &array);
        *place = (struct oh_place){ OC_SIDE_ARRAY, (uint64_t)(uintptr_t)array };
        return r;
    }
    if (nd->depth > 1 && rows < nd->height)
        return CUDA_ERROR_INVALID_VALUE;
    if ((nd->height > 1 || nd->depth > 1) && pitch < nd->width)
        return CUDA_ERROR_INVALID_VALUE;
    if (!oh_span(nd->width, pitch, nd->height, rows, nd->depth, &bytes))
        return CUDA_ERROR_INVALID_VALUE;
    return oh_place_get(side, addr, bytes, place);
}

static CUmemorytype type_of(struct oh_place place)
{
    return place.side == OC_SIDE_DEVICE ? OC_MEMORY_DEVICE
           : place.side == OC_SIDE_ARRAY ? OC_MEMORY_ARRAY
                                         : OC_MEMORY_HOST;
}

/* Of an array, pitch and rows say where in it: see OC_SIDE_ARRAY. */
static void put_src(CUDA_MEMCPY3D *p, struct oh_place src, uint64_t pitch, uint64_t rows)
{
    p->srcMemoryType = type_of(src);
    if (src.side == OC_SIDE_ARRAY) {
        p->srcArray = (CUarray)(uintptr_t)src.addr;
        p->srcXInBytes = pitch;
        p->srcY = OC_ARRAY_Y(rows);
        p->srcZ = OC_ARRAY_Z(rows);
        return;
    }
    p->srcHost = (const void *)(uintptr_t)src.addr;
    p->srcDevice = src.addr;
    p->srcPitch = pitch;
    p->srcHeight = rows;
}

static void put_dst(CUDA_MEMCPY3D *p, struct oh_place dst, uint64_t pitch, uint64_t rows)
{
    p->dstMemoryType = type_of(dst);
    if (dst.side == OC_SIDE_ARRAY) {
        p->dstArray = (CUarray)(uintptr_t)dst.addr;
        p->dstXInBytes = pitch;
        p->dstY = OC_ARRAY_Y(rows);
        p->dstZ = OC_ARRAY_Z(rows);
        return;
    }
    p->dstHost = (void *)(uintptr_t)dst.addr;
    p->dstDevice = dst.addr;
    p->dstPitch = pitch;
    p->dstHeight = rows;
}

CUresult oh_copy_nd_get(const struct oc_copy_nd *nd, CUDA_MEMCPY3D *p)
{
    struct oh_place dst, src;
    CUresult r;

    memset(p, 0, sizeof(*p));
    if (!nd->width || !nd->height || !nd->depth)
        return CUDA_ERROR_INVALID_VALUE; /* the guest answers empty copies */
    r = nd_place(nd->dst_side, nd->dst, nd->dst_pitch, nd->dst_rows, nd, &dst);
    if (r == CUDA_SUCCESS)
        r = nd_place(nd->src_side, nd->src, nd->src_pitch, nd->src_rows, nd, &src);
    if (r != CUDA_SUCCESS)
        return r;
    put_src(p, src, nd->src_pitch, nd->src_rows);
    put_dst(p, dst, nd->dst_pitch, nd->dst_rows);
    p->WidthInBytes = nd->width;
    p->Height = nd->height;
    p->Depth = nd->depth;
    return CUDA_SUCCESS;
}

static void flatten(const CUDA_MEMCPY3D *p, CUDA_MEMCPY2D *flat)
{
    memset(flat, 0, sizeof(*flat));
    flat->srcMemoryType = p->srcMemoryType;
    flat->srcHost = p->srcHost;
    flat->srcDevice = p->srcDevice;
    flat->srcPitch = p->srcPitch;
    flat->dstMemoryType = p->dstMemoryType;
    flat->dstHost = p->dstHost;
    flat->dstDevice = p->dstDevice;
    flat->dstPitch = p->dstPitch;
    flat->WidthInBytes = p->WidthInBytes;
    flat->Height = p->Height;
}

static CUresult issue_nd(const CUDA_MEMCPY3D *p, bool unaligned, CUstream stream, bool sync)
{
    bool deep = p->Depth > 1 || p->srcMemoryType == OC_MEMORY_ARRAY || p->dstMemoryType == OC_MEMORY_ARRAY;
    CUDA_MEMCPY2D flat;
    CUresult r;

    flatten(p, &flat);
    if (sync && stream == LEGACY && !deep)
        return unaligned ? oh_drv.cuMemcpy2DUnaligned_v2(&flat) : oh_drv.cuMemcpy2D_v2(&flat);
    if (sync && stream == LEGACY)
        return oh_drv.cuMemcpy3D_v2(p);
    r = !deep ? oh_drv.cuMemcpy2DAsync_v2(&flat, stream) : oh_drv.cuMemcpy3DAsync_v2(p, stream);
    return r == CUDA_SUCCESS && sync ? oh_drv.cuStreamSynchronize(stream) : r;
}

static CUresult run_nd(uint64_t stream_id, uint64_t fence, const struct oc_copy_nd *nd, uint32_t extra, bool sync)
{
    CUDA_MEMCPY3D p;
    void *stream = NULL;
    CUresult r = oh_get(OW_KIND_STREAM, stream_id, &stream);

    if (extra < sizeof(*nd))
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = oh_copy_nd_get(nd, &p);
    if (r == CUDA_SUCCESS && must_not_record(stream, fence != 0))
        r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (r == CUDA_SUCCESS)
        r = issue_nd(&p, nd->unaligned != 0, stream, sync && !fence);
    if (fence) /* staged rows are packed: their bytes are one piece */
        oh_fence_add(fence, stream, r == CUDA_SUCCESS, nd->dst,
                     nd->dst_side == OC_SIDE_REGION ? nd->width * nd->height * nd->depth : 0);
    return r;
}

CUresult oh_orion_copy_nd(struct oh_twin *t, const struct ow_orion_copy_nd_in *in, uint32_t bytes,
                          struct ow_orion_copy_nd_out *out, uint32_t *out_bytes)
{
    (void)t;
    UNUSED_OUT;
    return run_nd(in->stream, in->fence, (const void *)(in + 1), bytes - (uint32_t)sizeof(*in), true);
}

CUresult oh_orion_copy_nd_async(struct oh_twin *t, const struct ow_orion_copy_nd_async_in *in, uint32_t bytes,
                                struct ow_orion_copy_nd_async_out *out, uint32_t *out_bytes)
{
    (void)t;
    UNUSED_OUT;
    return run_nd(in->stream, in->fence, (const void *)(in + 1), bytes - (uint32_t)sizeof(*in), false);
}

_Static_assert(sizeof(CUDA_MEMCPY3D) == sizeof(CUDA_MEMCPY3D_PEER), "contexts lie where the reserved words are");

/* Memory says by its address whose it is; an array only by its context. */
CUresult oh_orion_copy_peer(struct oh_twin *t, const struct ow_orion_copy_peer_in *in, uint32_t bytes,
                            struct ow_orion_copy_peer_out *out, uint32_t *out_bytes)
{
    void *stream, *dst_context, *src_context;
    CUDA_MEMCPY3D_PEER peer;
    CUDA_MEMCPY3D p;
    CUresult r = oh_get(OW_KIND_STREAM, in->stream, &stream);

    (void)t;
    UNUSED_OUT;
    if (bytes < sizeof(*in) + sizeof(struct oc_copy_nd))
        return CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_CONTEXT, in->dst_context, &dst_context);
    if (r == CUDA_SUCCESS)
        r = oh_get(OW_KIND_CONTEXT, in->src_context, &src_context);
    if (r == CUDA_SUCCESS)
        r = oh_copy_nd_get((const void *)(in + 1), &p);
    if (r != CUDA_SUCCESS)
        return r;
    memcpy(&peer, &p, sizeof(peer));
    peer.dstContext = dst_context;
    peer.srcContext = src_context;
    return in->wait ? OH_CALL(cuMemcpy3DPeer, &peer) : OH_CALL(cuMemcpy3DPeerAsync, &peer, stream);
}
