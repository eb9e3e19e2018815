/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of one row: classification by address, inline bytes, staging pipelines. */
#include <string.h>

#include "graph.h"
#include "variable.h"
#include "gen/send.h"

#define LEGACY ((CUstream)0)

struct og_place og_classify(uint64_t addr, uint64_t bytes, bool device_only)
{
    struct og_host_range range;

    if (addr >= OC_DEVICE_LOW && addr < OC_DEVICE_HIGH)
        return (struct og_place){ OG_SIDE_DEVICE, addr };
    if (og_host_find((void *)(uintptr_t)addr, bytes ? bytes : 1, &range)) {
        if (range.in_region)
            return (struct og_place){ OG_SIDE_PINNED, range.region_addr + (addr - range.start) };
        return (struct og_place){ range.registered ? OG_SIDE_REGISTERED : OG_SIDE_PAGEABLE, addr };
    }
    if (device_only || og_is_device(addr))
        return (struct og_place){ OG_SIDE_DEVICE, addr }; /* the host's ledger decides */
    return (struct og_place){ OG_SIDE_PAGEABLE, addr };
}

bool og_place_is_host(struct og_place place)
{
    return place.side == OG_SIDE_PAGEABLE || place.side == OG_SIDE_REGISTERED;
}

enum oc_side og_wire_side(struct og_place place)
{
    return place.side == OG_SIDE_PINNED ? OC_SIDE_REGION : place.side == OG_SIDE_ARRAY ? OC_SIDE_ARRAY : OC_SIDE_DEVICE;
}

uint64_t og_wire_addr(struct og_place place)
{
    return place.side == OG_SIDE_PINNED ? place.addr - (uint64_t)(uintptr_t)og_region() : place.addr;
}

/* Sends one copy of a row; `data` are the bytes of an INLINE source. The two operations have
 * the same payload: one answers, the other does not. */
static CUresult send_row(const struct ow_orion_copy_in *row, const void *data, bool sync)
{
    uint32_t extra = data ? (uint32_t)row->bytes : 0;
    struct og_call c;
    CUresult r = og_begin(&c, sync ? OW_OP_orion_copy : OW_OP_orion_copy_async, (uint32_t)sizeof(*row) + extra);

    if (r != CUDA_SUCCESS)
        return r;
    memcpy(c.in, row, sizeof(*row));
    if (data)
        memcpy((uint8_t *)c.in + sizeof(*row), data, extra);
    return sync ? og_call(&c) : og_post(&c);
}

CUresult og_copy_drain(CUstream stream)
{
    return og_send_cuStreamSynchronize(stream);
}

bool og_is_capturing(CUstream stream)
{
    CUstreamCaptureStatus status = 0;

    if (atomic_load_explicit(&og_captures, memory_order_acquire) == 0 || stream == LEGACY)
        return false;
    return og_send_cuStreamIsCapturing(stream, &status) == CUDA_SUCCESS && status != 0;
}

/* One piece through staging memory under a number of its own. */
static CUresult send_piece(struct ow_orion_copy_in *row, bool sync)
{
    CUresult r;

    row->fence = og_fence_begin();
    r = send_row(row, NULL, sync);
    og_fence_end();
    return r;
}

/* Pieces of copies of this size are written past the cache, out of which the DMA would have to fetch them: measured
 * with the source in a cache, 1 to 16 MiB 8 to 30 % faster (H100 machine); 64 MiB, whose source is in no cache, slower. */
#define PAST_CACHE_FROM (256u << 10)
#define PAST_CACHE_TO (32u << 20)

/* Ordinary memory to the worker: this thread fills piece n+1 while piece n is in DMA. The last piece of a
 * synchronous copy is a round trip, which brings any piece's error and needs no fence. */
static CUresult upload(struct ow_orion_copy_in row, const uint8_t *src, uint64_t bytes, bool sync)
{
    bool past_cache = bytes >= PAST_CACHE_FROM && bytes <= PAST_CACHE_TO;
    CUresult r = CUDA_SUCCESS;

    og_staging_grow(bytes);
    while (bytes && r == CUDA_SUCCESS) {
        uint64_t part = bytes, off;
        void *p;

        r = og_staging_get(&part, &off, &p);
        if (r != CUDA_SUCCESS)
            break;
        if (past_cache)
            og_copy_past_cache(p, src, part);
        else
            memcpy(p, src, part);
        og_flush(off, part);
        row.src_side = OC_SIDE_REGION;
        row.src = off;
        row.bytes = part;
        row.fence = 0;
        r = sync && part == bytes ? send_row(&row, NULL, true) : send_piece(&row, false);
        og_staging_fence(off, r == CUDA_SUCCESS ? row.fence : 0);
        row.dst += part;
        src += part;
        bytes -= part;
    }
    return r;
}

#define IN_FLIGHT 8
#define LARGE (4u << 20) /* more than the caches near a CPU hold: written past them */
struct download {
    uint64_t off[IN_FLIGHT], bytes[IN_FLIGHT], fence[IN_FLIGHT];
    void *from[IN_FLIGHT];
    unsigned head, tail;
    uint8_t *to;
    CUstream stream;
    bool sync;
    bool large;
};

/* Waits for the oldest piece and copies it out. `ask`: by a round trip, which brings deferred errors; of a
 * synchronous copy it is one of the driver's that show what kernels printed, as natively. */
static CUresult download_one(struct download *d, bool ask)
{
    unsigned i = d->head++ % IN_FLIGHT;
    CUresult r = ask && d->sync ? og_copy_drain(d->stream) : CUDA_SUCCESS;

    if (r == CUDA_SUCCESS)
        r = ask && !d->sync ? og_send_orion_fence_wait(d->fence[i]) : og_fence_wait(d->fence[i]);

    if (r == CUDA_SUCCESS && d->large)
        og_copy_past_cache(d->to, d->from[i], d->bytes[i]);
    else if (r == CUDA_SUCCESS)
        memcpy(d->to, d->from[i], d->bytes[i]);
    d->to += d->bytes[i];
    og_staging_fence(d->off[i], r == CUDA_SUCCESS ? 0 : d->fence[i]);
    return r;
}

/* Reserves a piece for the next part; drains our own pieces before it waits for others'. */
static CUresult download_reserve(struct download *d, uint64_t *part, uint64_t *off, void **p)
{
    CUresult r = CUDA_SUCCESS;

    if (d->tail - d->head == IN_FLIGHT)
        r = download_one(d, false);
    while (r == CUDA_SUCCESS && !og_staging_try(part, off, p)) {
        if (d->head == d->tail)
            return og_staging_get(part, off, p);
        r = download_one(d, false);
    }
    return r;
}

/* The last piece with nothing before it in flight: one round trip, no fence. */
static CUresult download_last(struct ow_orion_copy_in *row, uint8_t *dst, const void *from)
{
    CUresult r;

    row->fence = 0;
    r = send_row(row, NULL, true);
    if (r == CUDA_SUCCESS)
        memcpy(dst, from, row->bytes);
    og_staging_fence(row->dst, 0);
    return r;
}

static CUresult download(struct ow_orion_copy_in row, uint8_t *dst, uint64_t bytes, bool sync)
{
    struct download d = { .to = dst, .stream = (CUstream)(uintptr_t)row.stream, .sync = sync,
                          .large = bytes >= LARGE };
    CUresult r = CUDA_SUCCESS, each;

    og_staging_grow(bytes);
    while (bytes && r == CUDA_SUCCESS) {
        uint64_t part = bytes, off;
        void *p;

        r = download_reserve(&d, &part, &off, &p);
        if (r != CUDA_SUCCESS)
            break;
        row.dst_side = OC_SIDE_REGION;
        row.dst = off;
        row.bytes = part;
        if (part == bytes && d.head == d.tail && og_shared_memory())
            return download_last(&row, d.to, p);
        r = send_piece(&row, false);
        if (r != CUDA_SUCCESS) {
            og_staging_fence(off, 0);
            break;
        }
        /* The piece stays ours, not the fence's: done, it still holds bytes that we have not taken. */
        d.off[d.tail % IN_FLIGHT] = off;
        d.bytes[d.tail % IN_FLIGHT] = part;
        d.from[d.tail % IN_FLIGHT] = p;
        d.fence[d.tail++ % IN_FLIGHT] = row.fence;
        row.src += part;
        bytes -= part;
    }
    while (d.head != d.tail) {
        each = download_one(&d, d.head + 1 == d.tail);
        if (r == CUDA_SUCCESS)
            r = each;
    }
    return r;
}

/* A short read: the bytes come back in the completion slot, one round trip in all. */
static CUresult read_small(struct og_place src, void *dst, uint64_t bytes, CUstream stream)
{
    struct og_call c;
    struct ow_orion_read_in *in;
    CUresult r = og_begin(&c, OW_OP_orion_read, sizeof(*in));

    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    memset(in, 0, sizeof(*in));
    in->src = og_wire_addr(src);
    in->src_side = og_wire_side(src);
    in->bytes = (uint32_t)bytes;
    in->stream = (uint64_t)(uintptr_t)stream;
    r = og_call(&c);
    if (r != CUDA_SUCCESS)
        return r;
    if (c.out_bytes != sizeof(struct ow_orion_read_out) + bytes)
        return CUDA_ERROR_UNKNOWN;
    memcpy(dst, (const uint8_t *)c.out + sizeof(struct ow_orion_read_out), bytes);
    return CUDA_SUCCESS;
}

/* A copy that a graph records: its node does it when the graph runs. */
static CUresult record(const struct ow_orion_copy_in *row, struct og_place dst, struct og_place src, CUstream stream)
{
    const uint64_t bytes = row->bytes;
    struct og_box box = { { .dst = row->dst, .src = row->src, .dst_pitch = bytes, .src_pitch = bytes, .dst_rows = 1,
                            .src_rows = 1, .width = bytes, .height = 1, .depth = 1, .dst_side = row->dst_side,
                            .src_side = row->src_side }, dst, src };
    CUDA_MEMCPY3D p;

    memset(&p, 0, sizeof(p));
    p.srcMemoryType = og_place_is_host(src) ? OC_MEMORY_HOST : OC_MEMORY_DEVICE;
    p.dstMemoryType = og_place_is_host(dst) ? OC_MEMORY_HOST : OC_MEMORY_DEVICE;
    p.srcHost = (const void *)(uintptr_t)src.addr;
    p.dstHost = (void *)(uintptr_t)dst.addr;
    p.srcDevice = src.addr;
    p.dstDevice = dst.addr;
    p.srcPitch = p.dstPitch = p.WidthInBytes = bytes;
    p.srcHeight = p.dstHeight = p.Height = p.Depth = 1;
    return og_shadow_record(&box, &p, stream);
}

/* Ordinary memory to ordinary memory, in stream order. */
static CUresult host_to_host(struct og_place dst, struct og_place src, uint64_t bytes, CUstream stream)
{
    CUresult r = og_copy_drain(stream);

    if (r == CUDA_SUCCESS)
        memmove((void *)(uintptr_t)dst.addr, (const void *)(uintptr_t)src.addr, bytes);
    return r;
}

static CUresult from_host(struct ow_orion_copy_in *row, struct og_place src, bool sync)
{
    const void *from = (const void *)(uintptr_t)src.addr;
    CUresult r = CUDA_SUCCESS;

    /* Registered memory may be written by work that is still queued in the stream. */
    if (src.side == OG_SIDE_REGISTERED)
        r = og_copy_drain((CUstream)(uintptr_t)row->stream);
    if (r != CUDA_SUCCESS)
        return r;
    if (row->bytes > OC_INLINE_MAX)
        return upload(*row, from, row->bytes, sync);
    row->src_side = OC_SIDE_INLINE;
    return send_row(row, from, sync);
}

static CUresult carry(struct og_place dst, struct og_place src, uint64_t bytes, CUstream stream, bool sync)
{
    OG_ON((uint64_t)(uintptr_t)stream);
    struct ow_orion_copy_in row = { 0 };
    CUresult r = og_need_context();

    if (r != CUDA_SUCCESS || bytes == 0)
        return r;
    row.dst = og_wire_addr(dst);
    row.dst_side = og_wire_side(dst);
    row.src = og_wire_addr(src);
    row.src_side = og_wire_side(src);
    row.bytes = bytes;
    row.stream = (uint64_t)(uintptr_t)stream;
    if (!og_place_is_host(dst) && !og_place_is_host(src))
        return send_row(&row, NULL, sync);
    if (!sync && og_is_capturing(stream))
        return record(&row, dst, src, stream);
    if (og_place_is_host(dst) && og_place_is_host(src))
        return host_to_host(dst, src, bytes, stream);
    if (og_place_is_host(src))
        return from_host(&row, src, sync);
    if (bytes <= OC_READ_MAX)
        return read_small(src, (void *)(uintptr_t)dst.addr, bytes, stream);
    return download(row, (void *)(uintptr_t)dst.addr, bytes, sync);
}

static CUresult transfer(struct og_place dst, struct og_place src, uint64_t bytes, CUstream stream, bool sync)
{
    CUresult r;

    if (og_has_variables())
        og_variables_before(OG_VARIABLES_NOW);
    r = carry(dst, src, bytes, stream, sync);
    if (og_has_variables() && sync && r == CUDA_SUCCESS)
        og_variables_after(OG_VARIABLES_NOW);
    return r;
}

/* ---- the API. The variants for per-thread default streams are generated. ---- */

static CUresult to_device(CUdeviceptr dst, const void *src, size_t bytes, CUstream stream, bool sync)
{
    if (bytes && !src)
        return CUDA_ERROR_INVALID_VALUE;
    return transfer(og_classify(dst, bytes, true), og_classify((uint64_t)(uintptr_t)src, bytes, false), bytes, stream,
                    sync);
}

static CUresult to_host(void *dst, CUdeviceptr src, size_t bytes, CUstream stream, bool sync)
{
    if (bytes && !dst)
        return CUDA_ERROR_INVALID_VALUE;
    return transfer(og_classify((uint64_t)(uintptr_t)dst, bytes, false), og_classify(src, bytes, true), bytes, stream,
                    sync);
}

static CUresult on_device(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream, bool sync)
{
    return transfer(og_classify(dst, bytes, true), og_classify(src, bytes, true), bytes, stream, sync);
}

static CUresult unified(CUdeviceptr dst, CUdeviceptr src, size_t bytes, CUstream stream, bool sync)
{
    if (bytes && (!dst || !src))
        return CUDA_ERROR_INVALID_VALUE;
    return transfer(og_classify(dst, bytes, false), og_classify(src, bytes, false), bytes, stream, sync);
}

OG_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount)
{
    return to_device(dstDevice, srcHost, ByteCount, LEGACY, true);
}

OG_EXPORT CUresult cuMemcpyDtoH_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)
{
    return to_host(dstHost, srcDevice, ByteCount, LEGACY, true);
}

OG_EXPORT CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)
{
    return unified(dst, src, ByteCount, LEGACY, true);
}

OG_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)
{
    return to_device(dstDevice, srcHost, ByteCount, hStream, false);
}

OG_EXPORT CUresult cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
    return to_host(dstHost, srcDevice, ByteCount, hStream, false);
}

OG_EXPORT CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream)
{
    return unified(dst, src, ByteCount, hStream, false);
}

/* Between contexts: with unified addressing the addresses say where the bytes are. */
static CUresult peer(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t bytes, CUstream stream,
                     bool sync)
{
    if (!og_valid(OW_KIND_CONTEXT, (uint64_t)(uintptr_t)to) || !og_valid(OW_KIND_CONTEXT, (uint64_t)(uintptr_t)from))
        return CUDA_ERROR_INVALID_CONTEXT;
    return on_device(dst, src, bytes, stream, sync);
}

OG_EXPORT CUresult cuMemcpyPeer(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
                                CUcontext srcContext, size_t ByteCount)
{
    return peer(dstDevice, dstContext, srcDevice, srcContext, ByteCount, LEGACY, true);
}

OG_EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
                                     CUcontext srcContext, size_t ByteCount, CUstream hStream)
{
    return peer(dstDevice, dstContext, srcDevice, srcContext, ByteCount, hStream, false);
}
