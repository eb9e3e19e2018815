/* SPDX-License-Identifier: Apache-2.0 */
/* Texture and surface objects: numbers that kernels carry, and what each names. */
#include <stdlib.h>
#include <string.h>

#include "array.h"

enum { FROM_ARRAY, FROM_MIPMAP, FROM_LINEAR, FROM_PITCH2D }; /* CUresourcetype */
enum { READ_AS_INTEGER = 1, NORMALIZED_COORDINATES = 2 };    /* CU_TRSF_* */

struct object {
    uint64_t value;
    bool surface, with_view;
    struct CUctx_st *ctx;
    CUDA_RESOURCE_DESC resource;
    CUDA_TEXTURE_DESC texture;
    CUDA_RESOURCE_VIEW_DESC view;
    struct object *next;
};
static struct object *objects;
static uint64_t last_value;
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

static struct object *find_locked(uint64_t value, bool surface)
{
    struct object *o;

    for (o = objects; o && (o->value != value || o->surface != surface); o = o->next)
        ;
    return o;
}

static CUresult check_memory(CUarray_format format, unsigned channels, uint64_t p, uint64_t bytes)
{
    if (!sim_component_bytes(format) || (channels != 1 && channels != 2 && channels != 4))
        return CUDA_ERROR_INVALID_VALUE;
    return p && p % 512 == 0 && sim_space_extent(p) >= bytes ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult check_resource(const CUDA_RESOURCE_DESC *d)
{
    uint64_t texel;

    switch (d->resType) {
    case FROM_ARRAY:
        return sim_valid(d->res.array.hArray, SIM_ARRAY) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    case FROM_MIPMAP:
        return sim_valid(d->res.mipmap.hMipmappedArray, SIM_MIPMAP) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
    case FROM_LINEAR:
        return d->res.linear.sizeInBytes ? check_memory(d->res.linear.format, d->res.linear.numChannels,
                                                        d->res.linear.devPtr, d->res.linear.sizeInBytes)
                                         : CUDA_ERROR_INVALID_VALUE;
    case FROM_PITCH2D:
        texel = sim_component_bytes(d->res.pitch2D.format) * d->res.pitch2D.numChannels;
        if (!d->res.pitch2D.width || !d->res.pitch2D.height || d->res.pitch2D.pitchInBytes % 32 ||
            d->res.pitch2D.pitchInBytes < d->res.pitch2D.width * texel)
            return CUDA_ERROR_INVALID_VALUE;
        return check_memory(d->res.pitch2D.format, d->res.pitch2D.numChannels, d->res.pitch2D.devPtr,
                            d->res.pitch2D.pitchInBytes * (d->res.pitch2D.height - 1) + d->res.pitch2D.width * texel);
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

static CUresult add(struct object *o, unsigned long long *value)
{
    struct object *copy = malloc(sizeof(*copy));

    if (!copy)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_rwlock_wrlock(&lock);
    *copy = *o;
    *value = copy->value = ++last_value;
    copy->next = objects;
    objects = copy;
    pthread_rwlock_unlock(&lock);
    return CUDA_SUCCESS;
}

/* A view of another format or size is not simulated; one that repeats the array's own is no matter. */
static CUresult check_view(const CUDA_RESOURCE_VIEW_DESC *view, const CUDA_RESOURCE_DESC *resource)
{
    if (!view)
        return CUDA_SUCCESS;
    if (resource->resType > FROM_MIPMAP)
        return CUDA_ERROR_INVALID_VALUE;
    return view->format || view->firstLayer || view->firstMipmapLevel ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;
}

SIM_API CUresult cuTexObjectCreate(CUtexObject *object, const CUDA_RESOURCE_DESC *resource,
                                   const CUDA_TEXTURE_DESC *texture, const CUDA_RESOURCE_VIEW_DESC *view)
{
    struct object o = { .with_view = view };
    CUresult r = sim_enter(&o.ctx);

    if (r)
        return r;
    if (!object || !resource || !texture || texture->filterMode > 1 || texture->addressMode[0] > 3)
        return CUDA_ERROR_INVALID_VALUE;
    r = check_resource(resource);
    if (!r)
        r = check_view(view, resource);
    if (r)
        return r;
    o.resource = *resource;
    o.texture = *texture;
    if (view)
        o.view = *view;
    return add(&o, object);
}

SIM_API CUresult cuSurfObjectCreate(CUsurfObject *object, const CUDA_RESOURCE_DESC *resource)
{
    struct object o = { .surface = true };
    CUresult r = sim_enter(&o.ctx);

    if (r)
        return r;
    if (!object || !resource || resource->resType != FROM_ARRAY)
        return CUDA_ERROR_INVALID_VALUE;
    r = check_resource(resource);
    if (r)
        return r;
    if (!(resource->res.array.hArray->desc.Flags & CUDA_ARRAY3D_SURFACE_LDST))
        return CUDA_ERROR_INVALID_VALUE;
    o.resource = *resource;
    return add(&o, object);
}

static CUresult forget(uint64_t value, bool surface)
{
    struct object **at, *o;

    pthread_rwlock_wrlock(&lock);
    for (at = &objects; (o = *at) && (o->value != value || o->surface != surface); at = &o->next)
        ;
    if (o)
        *at = o->next;
    pthread_rwlock_unlock(&lock);
    free(o);
    return o ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

void sim_texture_forget(uint64_t value)
{
    (void)forget(value, false);
}

static CUresult end(uint64_t value, bool surface)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (!r)
        r = sim_context_wait(ctx); /* kernels may still use it */
    return r ? r : forget(value, surface);
}

SIM_API CUresult cuTexObjectDestroy(CUtexObject object)
{
    return end(object, false);
}

SIM_API CUresult cuSurfObjectDestroy(CUsurfObject object)
{
    return end(object, true);
}

static CUresult get(uint64_t value, bool surface, struct object *o)
{
    struct object *found;

    pthread_rwlock_rdlock(&lock);
    found = find_locked(value, surface);
    if (found)
        *o = *found;
    pthread_rwlock_unlock(&lock);
    return found ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuTexObjectGetResourceDesc(CUDA_RESOURCE_DESC *d, CUtexObject object)
{
    struct object o;
    CUresult r = d ? get(object, false, &o) : CUDA_ERROR_INVALID_VALUE;

    if (!r)
        *d = o.resource;
    return r;
}

SIM_API CUresult cuTexObjectGetTextureDesc(CUDA_TEXTURE_DESC *d, CUtexObject object)
{
    struct object o;
    CUresult r = d ? get(object, false, &o) : CUDA_ERROR_INVALID_VALUE;

    if (!r)
        *d = o.texture;
    return r;
}

SIM_API CUresult cuTexObjectGetResourceViewDesc(CUDA_RESOURCE_VIEW_DESC *d, CUtexObject object)
{
    struct object o;
    CUresult r = d ? get(object, false, &o) : CUDA_ERROR_INVALID_VALUE;

    if (!r && !o.with_view)
        r = CUDA_ERROR_INVALID_VALUE;
    if (!r)
        *d = o.view;
    return r;
}

SIM_API CUresult cuSurfObjectGetResourceDesc(CUDA_RESOURCE_DESC *d, CUsurfObject object)
{
    struct object o;
    CUresult r = d ? get(object, true, &o) : CUDA_ERROR_INVALID_VALUE;

    if (!r)
        *d = o.resource;
    return r;
}

void sim_textures_drop(struct CUctx_st *ctx)
{
    struct object **at, *o;

    pthread_rwlock_wrlock(&lock);
    for (at = &objects; (o = *at);) {
        if (o->ctx != ctx) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        free(o);
    }
    pthread_rwlock_unlock(&lock);
}

/* ---- for kernels ---- */

static void view_format(struct ptx_texture *t, CUarray_format format, unsigned channels)
{
    t->channels = channels;
    t->component_bytes = sim_component_bytes(format);
    t->component = format == 0x10 || format == 0x20 ? PTX_FLOAT : format >= 0x08 ? PTX_SIGNED : PTX_UNSIGNED;
}

static void view_array(struct ptx_level *l, const struct CUarray_st *a)
{
    l->base = (uint8_t *)(uintptr_t)a->address;
    l->size[0] = (uint32_t)a->desc.Width;
    l->size[1] = a->desc.Height ? (uint32_t)a->desc.Height : 1;
    l->size[2] = a->desc.Depth ? (uint32_t)a->desc.Depth : 1;
    l->pitch = a->pitch;
    l->slice = a->slice;
}

static void view_memory(struct ptx_texture *t, const CUDA_RESOURCE_DESC *d)
{
    struct ptx_level *l = &t->level[0];
    size_t texel;

    t->levels = 1;
    l->base = (uint8_t *)(uintptr_t)d->res.linear.devPtr; /* where pitch2D has its own too */
    view_format(t, d->res.linear.format, d->res.linear.numChannels);
    texel = t->component_bytes * t->channels;
    l->size[1] = l->size[2] = 1;
    if (d->resType == FROM_LINEAR) {
        l->size[0] = (uint32_t)(d->res.linear.sizeInBytes / texel);
        t->linear_memory = true;
        return;
    }
    l->size[0] = (uint32_t)d->res.pitch2D.width;
    l->size[1] = (uint32_t)d->res.pitch2D.height;
    l->pitch = d->res.pitch2D.pitchInBytes;
}

static void view_sampling(struct ptx_texture *t, const CUDA_TEXTURE_DESC *d)
{
    for (unsigned i = 0; i < 3; i++)
        t->mode[i] = (enum ptx_address_mode)d->addressMode[i];
    t->linear = d->filterMode == 1;
    t->mip_linear = d->mipmapFilterMode == 1;
    t->normalized_coordinates = d->flags & NORMALIZED_COORDINATES;
    t->as_integer = d->flags & READ_AS_INTEGER;
    t->bias = d->mipmapLevelBias;
    t->min_lod = d->minMipmapLevelClamp;
    t->max_lod = d->maxMipmapLevelClamp;
    memcpy(t->border, d->borderColor, sizeof(t->border));
}

bool sim_texture_view(void *arg, uint64_t object, bool surface, struct ptx_texture *t)
{
    const struct CUmipmappedArray_st *m;
    struct object o;

    (void)arg;
    memset(t, 0, sizeof(*t));
    if (get(object, surface, &o) || check_resource(&o.resource))
        return false;
    view_sampling(t, &o.texture);
    if (o.resource.resType >= FROM_LINEAR) {
        view_memory(t, &o.resource);
    } else if (o.resource.resType == FROM_ARRAY) {
        t->levels = 1;
        view_format(t, o.resource.res.array.hArray->desc.Format, o.resource.res.array.hArray->desc.NumChannels);
        view_array(&t->level[0], o.resource.res.array.hArray);
    } else {
        m = o.resource.res.mipmap.hMipmappedArray;
        t->levels = m->nr_levels;
        view_format(t, m->desc.Format, m->desc.NumChannels);
        for (unsigned i = 0; i < t->levels; i++)
            view_array(&t->level[i], &m->levels[i]);
    }
    return true;
}
