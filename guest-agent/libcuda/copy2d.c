/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of two and three dimensions: whole where the worker reaches both sides, else in packed pieces. */
#include <string.h>

#include "graph.h"
#include "variable.h"
#include "gen/send.h"

#define LEGACY ((CUstream)0)

/* One side of a CUDA_MEMCPY*, before it is folded into the address of its first byte. */
struct end {
    CUmemorytype type;
    const void *host;
    CUdeviceptr device;
    CUarray array;
    size_t x, y, z, pitch, rows;
};

static CUresult place_array(const struct end *e, struct og_place *place, uint64_t *pitch, uint64_t *rows)
{
    *place = (struct og_place){ OG_SIDE_ARRAY, (uint64_t)(uintptr_t)e->array };
    *pitch = e->x;
    *rows = OC_ARRAY_AT(e->y, e->z);
    if (!og_valid(OW_KIND_ARRAY, place->addr))
        return CUDA_ERROR_INVALID_HANDLE;
    return e->y <= UINT32_MAX && e->z <= UINT32_MAX ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult fold(const struct end *e, const struct oc_copy_nd *nd, struct og_place *place, uint64_t *pitch,
                     uint64_t *rows)
{
    uint64_t base = e->type == OC_MEMORY_HOST ? (uint64_t)(uintptr_t)e->host : e->device, lines, off, span;

    *pitch = e->pitch ? e->pitch : e->x + nd->width;
    *rows = e->rows ? e->rows : e->y + nd->height;
    if (e->type == OC_MEMORY_ARRAY)
        return place_array(e, place, pitch, rows);
    if (e->type != OC_MEMORY_HOST && e->type != OC_MEMORY_DEVICE && e->type != OC_MEMORY_UNIFIED)
        return CUDA_ERROR_INVALID_VALUE;
    if (!base || e->x + nd->width < nd->width || e->y + nd->height < nd->height || *pitch < e->x + nd->width)
        return CUDA_ERROR_INVALID_VALUE;
    if (nd->depth > 1 && *rows < e->y + nd->height)
        return CUDA_ERROR_INVALID_VALUE;
    if (__builtin_mul_overflow(e->z, *rows, &lines) || __builtin_add_overflow(lines, e->y, &lines) ||
        __builtin_mul_overflow(lines, *pitch, &off) || __builtin_add_overflow(off, e->x, &off) ||
        __builtin_add_overflow(off, base, &base))
        return CUDA_ERROR_INVALID_VALUE;
    span = ((nd->depth - 1) * *rows + nd->height - 1) * *pitch + nd->width;
    *place = og_classify(base, span, e->type == OC_MEMORY_DEVICE);
    return CUDA_SUCCESS;
}

CUresult og_box_of(const CUDA_MEMCPY3D *p, struct og_box *box)
{
    struct end src = { p->srcMemoryType, p->srcHost, p->srcDevice, p->srcArray, p->srcXInBytes, p->srcY, p->srcZ,
                       p->srcPitch, p->srcHeight };
    struct end dst = { p->dstMemoryType, p->dstHost, p->dstDevice, p->dstArray, p->dstXInBytes, p->dstY, p->dstZ,
                       p->dstPitch, p->dstHeight };
    CUresult r;

    memset(box, 0, sizeof(*box));
    box->nd.width = p->WidthInBytes;
    box->nd.height = p->Height;
    box->nd.depth = p->Depth;
    if (!p->WidthInBytes || !p->Height || !p->Depth)
        return CUDA_SUCCESS; /* nothing to copy: the caller looks */
    r = fold(&src, &box->nd, &box->src, &box->nd.src_pitch, &box->nd.src_rows);
    if (r == CUDA_SUCCESS)
        r = fold(&dst, &box->nd, &box->dst, &box->nd.dst_pitch, &box->nd.dst_rows);
    box->nd.dst = og_wire_addr(box->dst);
    box->nd.dst_side = og_wire_side(box->dst);
    box->nd.src = og_wire_addr(box->src);
    box->nd.src_side = og_wire_side(box->src);
    return r;
}

CUresult og_copy_direct(const struct oc_copy_nd *copy, CUstream stream, bool sync, uint64_t fence)
{
    struct ow_orion_copy_nd_in *in;
    struct og_call c;
    CUresult r = og_begin(&c, sync ? OW_OP_orion_copy_nd : OW_OP_orion_copy_nd_async,
                          (uint32_t)(sizeof(*in) + sizeof(*copy)));

    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    in->stream = (uint64_t)(uintptr_t)stream;
    in->fence = fence;
    memcpy(in + 1, copy, sizeof(*copy));
    return sync ? og_call(&c) : og_post(&c);
}

/* Moves rows between ordinary memory and a packed piece. */
static void pack(uint8_t *piece, uint8_t *rows, uint64_t pitch, uint64_t width, uint64_t nr_rows, bool into_piece)
{
    for (uint64_t i = 0; i < nr_rows; i++, piece += width, rows += pitch) {
        if (into_piece)
            memcpy(piece, rows, width);
        else
            memcpy(rows, piece, width);
    }
}

/* Moves the side of a copy that the worker reaches on by so much. */
static void advance(struct oc_copy_nd *nd, bool of_dst, uint64_t rows, uint64_t slices)
{
    uint64_t *addr = of_dst ? &nd->dst : &nd->src, *at = of_dst ? &nd->dst_rows : &nd->src_rows;

    if ((of_dst ? nd->dst_side : nd->src_side) == OC_SIDE_ARRAY)
        *at += OC_ARRAY_AT(rows, slices);
    else
        *addr += (slices * *at + rows) * (of_dst ? nd->dst_pitch : nd->src_pitch);
}

/* One packed piece of at most *rows rows through staging memory; *rows: how many it was. */
static CUresult piece(struct oc_copy_nd nd, uint8_t *host, uint64_t host_pitch, uint64_t *rows, bool up,
                      CUstream stream)
{
    uint64_t bytes = *rows * nd.width, off, fence;
    void *p;
    CUresult r = og_staging_get(&bytes, &off, &p);

    if (r != CUDA_SUCCESS)
        return r;
    *rows = bytes / nd.width; /* 1 at least: PIECE_MIN */
    bytes = *rows * nd.width;
    nd.height = *rows;
    nd.depth = 1;
    if (up) {
        pack(p, host, host_pitch, nd.width, *rows, true);
        og_flush(off, bytes);
        nd.src = off;
        nd.src_side = OC_SIDE_REGION;
        nd.src_pitch = nd.width;
        nd.src_rows = *rows;
    } else {
        nd.dst = off;
        nd.dst_side = OC_SIDE_REGION;
        nd.dst_pitch = nd.width;
        nd.dst_rows = *rows;
    }
    fence = og_fence_begin();
    r = og_copy_direct(&nd, stream, !up, fence);
    og_fence_end();
    if (r == CUDA_SUCCESS && !up)
        r = og_send_orion_fence_wait(fence);
    if (r == CUDA_SUCCESS && !up)
        pack(p, host, host_pitch, nd.width, *rows, false);
    og_staging_fence(off, r == CUDA_SUCCESS && up ? fence : 0);
    return r;
}

/* Longest row that a piece surely holds: pieces are at least this long. */
#define PIECE_MIN (64ull << 10)

/* A row of an array that is longer than a piece; PIECE_MIN is whole elements of every format. */
static CUresult long_array_row(struct oc_copy_nd nd, uint8_t *host, bool up, CUstream stream)
{
    uint64_t left = nd.width, one = 1, *x = up ? &nd.dst_pitch : &nd.src_pitch;
    CUresult r = CUDA_SUCCESS;

    for (; left && r == CUDA_SUCCESS; left -= nd.width, host += nd.width, *x += nd.width) {
        nd.width = left < PIECE_MIN ? left : PIECE_MIN;
        r = piece(nd, host, nd.width, &one, up, stream);
    }
    return r;
}

/* A row longer than a piece is a copy of its own. */
static CUresult long_row(const struct oc_copy_nd *nd, uint8_t *host, bool up, CUstream stream, bool sync)
{
    if ((up ? nd->dst_side : nd->src_side) == OC_SIDE_ARRAY)
        return long_array_row(*nd, host, up, stream);
    if (up)
        return sync && stream == LEGACY ? cuMemcpyHtoD_v2(nd->dst, host, nd->width)
                                        : cuMemcpyHtoDAsync_v2(nd->dst, host, nd->width, stream);
    return cuMemcpyDtoHAsync_v2(host, nd->src, nd->width, stream);
}

static CUresult slice(struct oc_copy_nd nd, uint8_t *host, bool up, CUstream stream, bool sync)
{
    uint64_t host_pitch = up ? nd.src_pitch : nd.dst_pitch, left = nd.height, rows;
    CUresult r = CUDA_SUCCESS;

    while (left && r == CUDA_SUCCESS) {
        rows = nd.width > PIECE_MIN ? 1 : left;
        if (nd.width > PIECE_MIN)
            r = long_row(&nd, host, up, stream, sync);
        else
            r = piece(nd, host, host_pitch, &rows, up, stream);
        advance(&nd, up, rows, 0);
        host += rows * host_pitch;
        left -= rows;
    }
    return r;
}

static CUresult by_pieces(const struct og_box *box, CUstream stream, bool sync)
{
    bool up = og_place_is_host(box->src);
    struct oc_copy_nd nd = box->nd;
    uint8_t *host = (uint8_t *)(uintptr_t)(up ? box->src.addr : box->dst.addr);
    CUresult r = CUDA_SUCCESS;

    if ((up ? box->src : box->dst).side == OG_SIDE_REGISTERED)
        r = og_copy_drain(stream);
    og_staging_grow(nd.width * nd.height * nd.depth);
    for (uint64_t z = 0; z < box->nd.depth && r == CUDA_SUCCESS; z++) {
        r = slice(nd, host, up, stream, sync);
        advance(&nd, up, 0, 1);
        host += up ? nd.src_pitch * nd.src_rows : nd.dst_pitch * nd.dst_rows;
    }
    return r == CUDA_SUCCESS && sync ? og_copy_drain(stream) : r;
}

static CUresult host_to_host(const struct og_box *box, CUstream stream)
{
    CUresult r = og_copy_drain(stream);

    for (uint64_t z = 0; z < box->nd.depth && r == CUDA_SUCCESS; z++)
        for (uint64_t y = 0; y < box->nd.height; y++)
            memmove((void *)(uintptr_t)(box->dst.addr + (z * box->nd.dst_rows + y) * box->nd.dst_pitch),
                    (void *)(uintptr_t)(box->src.addr + (z * box->nd.src_rows + y) * box->nd.src_pitch),
                    box->nd.width);
    return r;
}

CUresult og_copy_box(const CUDA_MEMCPY3D *p, CUstream stream, bool sync, bool unaligned)
{
    OG_ON((uint64_t)(uintptr_t)stream);
    struct og_box box;
    CUresult r = og_need_context();

    if (r == CUDA_SUCCESS)
        r = og_box_of(p, &box);
    if (r != CUDA_SUCCESS || !p->WidthInBytes || !p->Height || !p->Depth)
        return r;
    if (og_has_variables())
        og_variables_before(OG_VARIABLES_NOW);
    box.nd.unaligned = unaligned;
    if (!og_place_is_host(box.dst) && !og_place_is_host(box.src))
        return og_copy_direct(&box.nd, stream, sync, 0);
    if (!sync && og_is_capturing(stream))
        return og_shadow_record(&box, p, stream);
    if (og_place_is_host(box.dst) && og_place_is_host(box.src))
        return host_to_host(&box, stream);
    return by_pieces(&box, stream, sync);
}

static void widen(const CUDA_MEMCPY2D *p, CUDA_MEMCPY3D *q)
{
    memset(q, 0, sizeof(*q));
    q->srcXInBytes = p->srcXInBytes;
    q->srcY = p->srcY;
    q->srcMemoryType = p->srcMemoryType;
    q->srcHost = p->srcHost;
    q->srcDevice = p->srcDevice;
    q->srcArray = p->srcArray;
    q->srcPitch = p->srcPitch;
    q->dstXInBytes = p->dstXInBytes;
    q->dstY = p->dstY;
    q->dstMemoryType = p->dstMemoryType;
    q->dstHost = p->dstHost;
    q->dstDevice = p->dstDevice;
    q->dstArray = p->dstArray;
    q->dstPitch = p->dstPitch;
    q->WidthInBytes = p->WidthInBytes;
    q->Height = p->Height;
    q->Depth = 1;
}

static CUresult flat(const CUDA_MEMCPY2D *p, CUstream stream, bool sync, bool unaligned)
{
    CUDA_MEMCPY3D q;

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    widen(p, &q);
    return og_copy_box(&q, stream, sync, unaligned);
}

static CUresult deep(const CUDA_MEMCPY3D *p, CUstream stream, bool sync)
{
    return p ? og_copy_box(p, stream, sync, false) : CUDA_ERROR_INVALID_VALUE;
}

/* Arrays of two contexts: the worker tells the driver whose they are. */
static CUresult peer_arrays(const CUDA_MEMCPY3D_PEER *p, const struct og_box *box, CUstream stream, bool sync)
{
    struct ow_orion_copy_peer_in *in;
    struct og_call c;
    CUresult r;

    if (!og_valid(OW_KIND_CONTEXT, (uint64_t)(uintptr_t)p->dstContext) ||
        !og_valid(OW_KIND_CONTEXT, (uint64_t)(uintptr_t)p->srcContext))
        return CUDA_ERROR_INVALID_CONTEXT;
    r = og_begin(&c, OW_OP_orion_copy_peer, (uint32_t)(sizeof(*in) + sizeof(box->nd)));
    if (r != CUDA_SUCCESS)
        return r;
    in = c.in;
    memset(in, 0, sizeof(*in));
    in->stream = (uint64_t)(uintptr_t)stream;
    in->dst_context = (uint64_t)(uintptr_t)p->dstContext;
    in->src_context = (uint64_t)(uintptr_t)p->srcContext;
    in->wait = sync;
    memcpy(in + 1, &box->nd, sizeof(box->nd));
    return og_call(&c);
}

/* Between contexts: the layouts agree but for the contexts, which addresses imply. */
static CUresult peer(const CUDA_MEMCPY3D_PEER *p, CUstream stream, bool sync)
{
    CUDA_MEMCPY3D q;
    struct og_box box;
    CUresult r;

    _Static_assert(sizeof(CUDA_MEMCPY3D) == sizeof(CUDA_MEMCPY3D_PEER), "contexts lie where the reserved words are");
    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&q, p, sizeof(q));
    q.reserved0 = q.reserved1 = NULL;
    if (q.srcMemoryType != OC_MEMORY_ARRAY && q.dstMemoryType != OC_MEMORY_ARRAY)
        return og_copy_box(&q, stream, sync, false);
    r = og_need_context();
    if (r == CUDA_SUCCESS)
        r = og_box_of(&q, &box);
    if (r != CUDA_SUCCESS || !q.WidthInBytes || !q.Height || !q.Depth)
        return r;
    if (og_place_is_host(box.src) || og_place_is_host(box.dst))
        return og_copy_box(&q, stream, sync, false);
    return peer_arrays(p, &box, stream, sync);
}

OG_EXPORT CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *pCopy)
{
    return flat(pCopy, LEGACY, true, false);
}

OG_EXPORT CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *pCopy)
{
    return flat(pCopy, LEGACY, true, true);
}

OG_EXPORT CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
    return flat(pCopy, hStream, false, false);
}

OG_EXPORT CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *pCopy)
{
    return deep(pCopy, LEGACY, true);
}

OG_EXPORT CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *pCopy, CUstream hStream)
{
    return deep(pCopy, hStream, false);
}

OG_EXPORT CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *pCopy)
{
    return peer(pCopy, LEGACY, true);
}

OG_EXPORT CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *pCopy, CUstream hStream)
{
    return peer(pCopy, hStream, false);
}
