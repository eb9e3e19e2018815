/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA arrays, mipmapped ones too: rows without gaps in memory that kernels reach through textures and surfaces only. */
#include <stdlib.h>
#include <string.h>

#include "array.h"

#define MAX_1D 131072u
#define MAX_2D 131072u
#define MAX_3D 16384u
#define MAX_LAYERS 2048u

static struct CUarray_st *arrays;             /* not parts of mipmapped ones; under lock */
static struct CUmipmappedArray_st *mipmaps;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t at_least_one(uint64_t n)
{
    return n ? n : 1;
}

unsigned sim_component_bytes(unsigned format)
{
    switch (format) {
    case 0x01: case 0x08: return 1;           /* UNSIGNED_INT8, SIGNED_INT8 */
    case 0x02: case 0x09: case 0x10: return 2; /* UNSIGNED_INT16, SIGNED_INT16, HALF */
    case 0x03: case 0x0a: case 0x20: return 4; /* UNSIGNED_INT32, SIGNED_INT32, FLOAT */
    default: return 0;
    }
}

static bool size_ok(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    bool layered = d->Flags & CUDA_ARRAY3D_LAYERED, cube = d->Flags & CUDA_ARRAY3D_CUBEMAP;

    if (!d->Width || d->Width > MAX_1D)
        return false;
    if (cube)
        return d->Width == d->Height && (layered ? d->Depth && d->Depth % 6 == 0 : d->Depth == 6);
    if (layered)
        return d->Depth && d->Depth <= MAX_LAYERS && d->Height <= MAX_2D;
    if (d->Depth)
        return d->Height && d->Width <= MAX_3D && d->Height <= MAX_3D && d->Depth <= MAX_3D;
    return d->Height <= MAX_2D;
}

static CUresult check(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    unsigned known = CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_CUBEMAP |
                     CUDA_ARRAY3D_TEXTURE_GATHER;

    if (d->NumChannels != 1 && d->NumChannels != 2 && d->NumChannels != 4)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_component_bytes(d->Format) || d->Flags & ~known)
        return CUDA_ERROR_NOT_SUPPORTED; /* compressed, planar and sparse ones */
    return size_ok(d) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Slices of an array: layers and faces do not shrink with the level. */
static uint64_t depth_at(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned level)
{
    bool layers = d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);

    return at_least_one(layers ? d->Depth : d->Depth >> level);
}

static void shape(struct CUarray_st *a, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned level)
{
    a->desc = *d;
    a->desc.Width = at_least_one(d->Width >> level);
    a->desc.Height = d->Height ? at_least_one(d->Height >> level) : 0;
    a->desc.Depth = d->Depth ? depth_at(d, level) : 0;
    a->texel = sim_component_bytes(d->Format) * d->NumChannels;
    a->pitch = a->desc.Width * a->texel;
    a->slice = a->pitch * at_least_one(a->desc.Height);
}

static uint64_t bytes_of(const struct CUarray_st *a)
{
    return a->slice * at_least_one(a->desc.Depth);
}

static CUresult create(CUarray *out, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    struct CUctx_st *ctx;
    struct CUarray_st *a;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!out || !d)
        return CUDA_ERROR_INVALID_VALUE;
    r = check(d);
    if (!r)
        r = sim_may_block(ctx);
    if (r)
        return r;
    a = calloc(1, sizeof(*a));
    if (!a)
        return CUDA_ERROR_OUT_OF_MEMORY;
    shape(a, d, 0);
    a->ctx = ctx;
    r = sim_space_alloc(ctx, ctx->device, bytes_of(a), SIM_MEM_ARRAY, 0, &a->address);
    if (r || !sim_register(a, SIM_ARRAY)) {
        free(a);
        return r ? r : CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_lock(&lock);
    a->next = arrays;
    arrays = a;
    pthread_mutex_unlock(&lock);
    *out = a;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArray3DCreate_v2(CUarray *array, const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    return create(array, d);
}

SIM_API CUresult cuArrayCreate_v2(CUarray *array, const CUDA_ARRAY_DESCRIPTOR *d)
{
    CUDA_ARRAY3D_DESCRIPTOR wide = { 0 };

    if (!d)
        return CUDA_ERROR_INVALID_VALUE;
    wide.Width = d->Width;
    wide.Height = d->Height;
    wide.Format = d->Format;
    wide.NumChannels = d->NumChannels;
    return create(array, &wide);
}

SIM_API CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *d, CUarray array)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(array, SIM_ARRAY))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!d)
        return CUDA_ERROR_INVALID_VALUE;
    *d = array->desc;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *d, CUarray array)
{
    CUDA_ARRAY3D_DESCRIPTOR wide;
    CUresult r = d ? cuArray3DGetDescriptor_v2(&wide, array) : CUDA_ERROR_INVALID_VALUE;

    if (r)
        return r;
    *d = (CUDA_ARRAY_DESCRIPTOR){ .Width = wide.Width, .Height = wide.Height, .Format = wide.Format,
                                  .NumChannels = wide.NumChannels };
    return CUDA_SUCCESS;
}

SIM_API CUresult cuArrayDestroy(CUarray array)
{
    struct CUarray_st **at;
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(array, SIM_ARRAY) || array->mipmap)
        return CUDA_ERROR_INVALID_HANDLE;
    r = sim_may_block(ctx);
    if (!r)
        r = sim_context_wait(array->ctx);
    if (r)
        return r;
    pthread_mutex_lock(&lock);
    for (at = &arrays; *at != array; at = &(*at)->next)
        ;
    *at = array->next;
    pthread_mutex_unlock(&lock);
    sim_unregister(array);
    sim_space_free(array->address);
    free(array);
    return CUDA_SUCCESS;
}

/* ---- mipmapped ---- */

static unsigned most_levels(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    bool layers = d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);
    uint64_t most = d->Width > d->Height ? d->Width : d->Height;
    unsigned levels = 0;

    if (!layers && d->Depth > most)
        most = d->Depth;
    for (; most; most >>= 1)
        levels++;
    return levels;
}

static void free_levels(struct CUmipmappedArray_st *m)
{
    for (unsigned i = 0; i < m->nr_levels; i++)
        sim_unregister(&m->levels[i]);
    sim_unregister(m);
    free(m);
}

static CUresult place_levels(struct CUmipmappedArray_st *m)
{
    uint64_t total = 0, at;
    CUresult r;

    for (unsigned i = 0; i < m->nr_levels; i++) {
        shape(&m->levels[i], &m->desc, i);
        m->levels[i].ctx = m->ctx;
        m->levels[i].mipmap = m;
        total += (bytes_of(&m->levels[i]) + 15) & ~15ull;
    }
    r = sim_space_alloc(m->ctx, m->ctx->device, total, SIM_MEM_ARRAY, 0, &m->address);
    at = m->address;
    for (unsigned i = 0; i < m->nr_levels && !r; i++) {
        m->levels[i].address = at;
        at += (bytes_of(&m->levels[i]) + 15) & ~15ull;
        if (!sim_register(&m->levels[i], SIM_ARRAY))
            r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    return r;
}

SIM_API CUresult cuMipmappedArrayCreate(CUmipmappedArray *out, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned levels)
{
    struct CUmipmappedArray_st *m;
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!out || !d)
        return CUDA_ERROR_INVALID_VALUE;
    r = check(d);
    if (r)
        return r;
    m = calloc(1, sizeof(*m));
    if (!m)
        return CUDA_ERROR_OUT_OF_MEMORY;
    m->ctx = ctx;
    m->desc = *d;
    m->nr_levels = levels < 1 ? 1 : levels > most_levels(d) ? most_levels(d) : levels;
    r = place_levels(m);
    if (!r && !sim_register(m, SIM_MIPMAP))
        r = CUDA_ERROR_OUT_OF_MEMORY;
    if (r) {
        free_levels(m);
        return r;
    }
    pthread_mutex_lock(&lock);
    m->next = mipmaps;
    mipmaps = m;
    pthread_mutex_unlock(&lock);
    *out = m;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMipmappedArrayGetLevel(CUarray *level, CUmipmappedArray mipmap, unsigned index)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(mipmap, SIM_MIPMAP))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!level || index >= mipmap->nr_levels)
        return CUDA_ERROR_INVALID_VALUE;
    *level = &mipmap->levels[index];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMipmappedArrayDestroy(CUmipmappedArray mipmap)
{
    struct CUmipmappedArray_st **at;
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(mipmap, SIM_MIPMAP))
        return CUDA_ERROR_INVALID_HANDLE;
    r = sim_context_wait(mipmap->ctx);
    if (r)
        return r;
    pthread_mutex_lock(&lock);
    for (at = &mipmaps; *at != mipmap; at = &(*at)->next)
        ;
    *at = mipmap->next;
    pthread_mutex_unlock(&lock);
    sim_space_free(mipmap->address);
    free_levels(mipmap);
    return CUDA_SUCCESS;
}

/* Their memory goes with the context's. */
void sim_arrays_drop(struct CUctx_st *ctx)
{
    struct CUmipmappedArray_st **m, *dead;
    struct CUarray_st **a, *gone;

    pthread_mutex_lock(&lock);
    for (a = &arrays; (gone = *a);) {
        if (gone->ctx != ctx) {
            a = &gone->next;
            continue;
        }
        *a = gone->next;
        sim_unregister(gone);
        free(gone);
    }
    for (m = &mipmaps; (dead = *m);) {
        if (dead->ctx != ctx) {
            m = &dead->next;
            continue;
        }
        *m = dead->next;
        free_levels(dead);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- copies: the box of an array's elements as bytes ---- */

CUresult sim_array_box(CUarray a, const size_t at[3], struct sim_copy *c, uint64_t *address, bool src)
{
    if (!sim_valid(a, SIM_ARRAY))
        return CUDA_ERROR_INVALID_HANDLE;
    if (at[0] % a->texel || c->width % a->texel)
        return CUDA_ERROR_INVALID_VALUE;
    if (at[0] > a->pitch || c->width > a->pitch - at[0] || at[1] + c->height > at_least_one(a->desc.Height) ||
        at[2] + c->depth > at_least_one(a->desc.Depth))
        return CUDA_ERROR_INVALID_VALUE;
    *address = a->address + at[2] * a->slice + at[1] * a->pitch + at[0];
    *(src ? &c->src_pitch : &c->dst_pitch) = a->pitch;
    *(src ? &c->src_slice : &c->dst_slice) = a->slice;
    return CUDA_SUCCESS;
}
