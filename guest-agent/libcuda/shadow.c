/* SPDX-License-Identifier: Apache-2.0 */
/* Shadows: what stands for ordinary host memory in copies that graphs do. The rows lie packed in region memory, or over
 * TCP in the worker's, and a host function moves them when the graph runs. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"
#include "gen/send.h"

struct og_shadow {
    CUDA_MEMCPY3D params;
    struct og_box box;
    enum oc_shadow way;
    uint64_t bytes;
    void *region;   /* packed rows; NULL over TCP */
};

/* Over TCP one piece of staging memory serves all shadows, for good. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t bounce_off, bounce_bytes;
static uint8_t *bounce;

static CUresult bounce_get(void)
{
    uint64_t bytes = 256u << 10;
    CUresult r = CUDA_SUCCESS;
    void *p;

    pthread_mutex_lock(&lock);
    if (!bounce) {
        r = og_staging_get(&bytes, &bounce_off, &p);
        if (r == CUDA_SUCCESS) {
            bounce = p;
            bounce_bytes = bytes;
        }
    }
    pthread_mutex_unlock(&lock);
    return r;
}

/* Bytes [off, off + n) of the packed rows, at `packed`, from or to the rows of ordinary memory. */
static void move_part(const struct og_shadow *s, uint8_t *packed, uint64_t off, uint64_t n)
{
    const struct oc_copy_nd *nd = &s->box.nd;
    bool up = s->way == OC_SHADOW_UP;
    uint64_t base = up ? s->box.src.addr : s->box.dst.addr, part;
    uint64_t pitch = up ? nd->src_pitch : nd->dst_pitch, rows = up ? nd->src_rows : nd->dst_rows;

    for (uint64_t end = off + n; off < end; off += part, packed += part) {
        uint64_t row = off / nd->width, x = off % nd->width;
        uint8_t *host = (uint8_t *)(uintptr_t)(base + (row / nd->height * rows + row % nd->height) * pitch + x);

        part = nd->width - x < end - off ? nd->width - x : end - off;
        if (up)
            memcpy(packed, host, part);
        else
            memcpy(host, packed, part);
    }
}

/* Host function over shared memory. */
static void move(void *shadow)
{
    const struct og_shadow *s = shadow;

    move_part(s, s->region, 0, s->bytes);
}

/* Host function over TCP: callback.c gives the piece. */
static void move_piece(void *shadow, uint64_t off, uint64_t n)
{
    const struct og_shadow *s = shadow;

    if (n > bounce_bytes || off > s->bytes || n > s->bytes - off)
        return;
    move_part(s, bounce, off, n);
    if (s->way == OC_SHADOW_UP)
        og_flush(bounce_off, n);
}

/* Host function: ordinary memory to ordinary memory. */
static void move_host(void *shadow)
{
    const struct og_box *b = &((const struct og_shadow *)shadow)->box;

    for (uint64_t z = 0; z < b->nd.depth; z++)
        for (uint64_t y = 0; y < b->nd.height; y++)
            memmove((void *)(uintptr_t)(b->dst.addr + (z * b->nd.dst_rows + y) * b->nd.dst_pitch),
                    (const void *)(uintptr_t)(b->src.addr + (z * b->nd.src_rows + y) * b->nd.src_pitch), b->nd.width);
}

void og_shadow_free(struct og_shadow *s)
{
    if (s->region)
        og_host_drop(s->region);
    free(s);
}

/* The host's graphs with it are gone. */
static void ended(void *shadow)
{
    og_shadow_free(shadow);
}

const CUDA_MEMCPY3D *og_shadow_params(const struct og_shadow *s)
{
    return &s->params;
}

/* The application records; that we need memory for it is not its doing. */
static CUresult region_get(struct og_shadow *s)
{
    CUstreamCaptureMode mode = 2; /* RELAXED */
    CUresult r = cuThreadExchangeStreamCaptureMode(&mode);

    if (r != CUDA_SUCCESS)
        return r;
    r = og_host_alloc(s->bytes, 0, false, &s->region);
    if (cuThreadExchangeStreamCaptureMode(&mode) != CUDA_SUCCESS)
        og_log("the capture mode of this thread stays relaxed");
    return r;
}

/* What the host copies: the ordinary side is the packed rows. */
static void pack_side(const struct og_shadow *s, struct oc_copy_nd *nd)
{
    uint64_t at = s->region ? (uint64_t)((uint8_t *)s->region - (uint8_t *)og_region()) : 0;

    if (s->way == OC_SHADOW_UP) {
        nd->src = at;
        nd->src_side = OC_SIDE_REGION;
        nd->src_pitch = nd->width;
        nd->src_rows = nd->height;
    } else if (s->way == OC_SHADOW_DOWN) {
        nd->dst = at;
        nd->dst_side = OC_SIDE_REGION;
        nd->dst_pitch = nd->width;
        nd->dst_rows = nd->height;
    }
}

static CUresult make(struct og_shadow *s, struct oc_node_shadow *spec)
{
    bool both = s->way == OC_SHADOW_HOST, shared = og_shared_memory();
    CUresult r = og_callbacks_start();

    if (r == CUDA_SUCCESS && !both)
        r = shared ? region_get(s) : bounce_get();
    if (r != CUDA_SUCCESS)
        return r;
    memset(spec, 0, sizeof(*spec));
    spec->nd = s->box.nd;
    pack_side(s, &spec->nd);
    spec->fn = (uint64_t)(uintptr_t)(both ? move_host : move);
    if (!both && !shared) {
        spec->fn = (uint64_t)(uintptr_t)move_piece;
        spec->bounce_off = bounce_off;
        spec->bounce_bytes = (uint32_t)bounce_bytes;
    }
    spec->end = (uint64_t)(uintptr_t)ended;
    spec->data = (uint64_t)(uintptr_t)s;
    spec->bytes = s->bytes;
    spec->way = s->way;
    return CUDA_SUCCESS;
}

CUresult og_shadow_make(const struct og_box *box, const CUDA_MEMCPY3D *params, struct oc_node_shadow *spec,
                        struct og_shadow **shadow)
{
    struct og_shadow *s = calloc(1, sizeof(*s));
    CUresult r;

    if (!s)
        return CUDA_ERROR_OUT_OF_MEMORY;
    s->params = *params;
    s->box = *box;
    s->bytes = box->nd.width * box->nd.height * box->nd.depth;
    s->way = !og_place_is_host(box->src) ? OC_SHADOW_DOWN : og_place_is_host(box->dst) ? OC_SHADOW_HOST : OC_SHADOW_UP;
    r = make(s, spec);
    if (r != CUDA_SUCCESS)
        og_shadow_free(s);
    else
        *shadow = s;
    return r;
}

CUresult og_shadow_record(const struct og_box *box, const CUDA_MEMCPY3D *params, CUstream stream)
{
    struct oc_node_shadow spec;
    struct og_shadow *shadow;
    struct og_call c;
    CUresult r = og_shadow_make(box, params, &spec, &shadow);

    if (r != CUDA_SUCCESS)
        return r;
    r = og_begin(&c, OW_OP_orion_capture_shadow, sizeof(struct ow_orion_capture_shadow_in) + sizeof(spec));
    if (r == CUDA_SUCCESS) {
        struct ow_orion_capture_shadow_in *in = c.in;

        in->stream = (uint64_t)(uintptr_t)stream;
        memcpy(in + 1, &spec, sizeof(spec));
        r = og_call(&c);
    }
    if (r != CUDA_SUCCESS)
        og_shadow_free(shadow);
    return r;
}
