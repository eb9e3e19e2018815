/* SPDX-License-Identifier: Apache-2.0 */
/* Texture and surface objects: what they read must be the client's; their values are the driver's, and known here. */
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "gen/checks.h"

enum { FROM_ARRAY, FROM_MIPMAP, FROM_LINEAR, FROM_PITCH2D }; /* CUresourcetype */

/* Values are unique in their context only. */
struct object {
    uint64_t value, context;
    bool surface;
    struct object *next;
};
#define BUCKETS 256u
static struct object *objects[BUCKETS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct object **find_locked(uint64_t value, uint64_t context, bool surface)
{
    struct object **o = &objects[value % BUCKETS];

    while (*o && ((*o)->value != value || (*o)->context != context || (*o)->surface != surface))
        o = &(*o)->next;
    return o;
}

static bool known(uint64_t value, bool surface)
{
    uint64_t context = oh_current_context();
    bool is;

    pthread_mutex_lock(&lock);
    is = *find_locked(value, context, surface) != NULL;
    pthread_mutex_unlock(&lock);
    return is;
}

static bool add(uint64_t value, uint64_t context, bool surface)
{
    struct object *o = malloc(sizeof(*o)), **first = &objects[value % BUCKETS];

    if (!o)
        return false;
    pthread_mutex_lock(&lock);
    *o = (struct object){ value, context, surface, *first };
    *first = o;
    pthread_mutex_unlock(&lock);
    return true;
}

static bool take(uint64_t value, uint64_t context, bool surface)
{
    struct object **at, *o;

    pthread_mutex_lock(&lock);
    at = find_locked(value, context, surface);
    o = *at;
    if (o)
        *at = o->next;
    pthread_mutex_unlock(&lock);
    free(o);
    return o != NULL;
}

void oh_drop_textures(uint64_t context)
{
    struct object **at, *o;

    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < BUCKETS; i++)
        for (at = &objects[i]; (o = *at);) {
            if (o->context != context) {
                at = &o->next;
                continue;
            }
            *at = o->next;
            free(o);
        }
    pthread_mutex_unlock(&lock);
}

/* ---- descriptions of resources, between the client's handles and the driver's ---- */

static CUresult resolve(CUDA_RESOURCE_DESC *d)
{
    uint64_t width;
    void *real;
    CUresult r;

    switch (d->resType) {
    case FROM_ARRAY:
        r = oh_get(OW_KIND_ARRAY, (uint64_t)(uintptr_t)d->res.array.hArray, &real);
        d->res.array.hArray = real;
        return r;
    case FROM_MIPMAP:
        r = oh_get(OW_KIND_MIPMAPPED_ARRAY, (uint64_t)(uintptr_t)d->res.mipmap.hMipmappedArray, &real);
        d->res.mipmap.hMipmappedArray = real;
        return r;
    case FROM_LINEAR:
        return oh_touches(d->res.linear.devPtr, d->res.linear.sizeInBytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    case FROM_PITCH2D:
        width = oh_array_bytes(d->res.pitch2D.width, oc_texel_bytes(d->res.pitch2D.format, d->res.pitch2D.numChannels));
        return oh_touches(d->res.pitch2D.devPtr, oh_rows_bytes(width, d->res.pitch2D.pitchInBytes, d->res.pitch2D.height))
                   ? CUDA_SUCCESS
                   : CUDA_ERROR_INVALID_VALUE;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

static void unresolve(CUDA_RESOURCE_DESC *d)
{
    if (d->resType == FROM_ARRAY)
        d->res.array.hArray = (CUarray)(uintptr_t)oh_find(OW_KIND_ARRAY, d->res.array.hArray);
    else if (d->resType == FROM_MIPMAP)
        d->res.mipmap.hMipmappedArray =
            (CUmipmappedArray)(uintptr_t)oh_find(OW_KIND_MIPMAPPED_ARRAY, d->res.mipmap.hMipmappedArray);
}

/* The next part of a command, copied to where it is aligned; false: the command is malformed. */
static bool next_part(struct ow_cursor *parts, uint32_t got, void *to, uint32_t want)
{
    const void *p;

    if (!oh_array(parts, got, false, want, &p))
        return false;
    memcpy(to, p, want);
    return true;
}

/* A description as the answer's only part. */
static CUresult answer(CUresult r, const void *desc, uint32_t bytes, void *out, uint32_t *out_bytes)
{
    if (r != CUDA_SUCCESS)
        return r;
    *(uint32_t *)out = bytes; /* the one field of each of these answers */
    memcpy((uint8_t *)out + ow_align(sizeof(uint32_t)), desc, bytes);
    *out_bytes = (uint32_t)ow_align(sizeof(uint32_t)) + bytes;
    return CUDA_SUCCESS;
}

_Static_assert(sizeof(struct ow_cuTexObjectGetResourceDesc_out) == 8, "what answer() writes");
_Static_assert(sizeof(struct ow_cuTexObjectGetTextureDesc_out) == 8, "what answer() writes");
_Static_assert(sizeof(struct ow_cuTexObjectGetResourceViewDesc_out) == 8, "what answer() writes");
_Static_assert(sizeof(struct ow_cuSurfObjectGetResourceDesc_out) == 8, "what answer() writes");

/* ---- operations ---- */

CUresult oh_cuTexObjectCreate(struct oh_twin *t, const struct ow_cuTexObjectCreate_in *in, uint32_t bytes,
                              struct ow_cuTexObjectCreate_out *out, uint32_t *out_bytes)
{
    struct ow_cursor parts = { (const uint8_t *)(in + 1), bytes - sizeof(*in) };
    bool with_view = in->pResViewDesc_bytes != OW_NULL;
    CUDA_RESOURCE_DESC resource;
    CUDA_TEXTURE_DESC texture;
    CUDA_RESOURCE_VIEW_DESC view;
    CUtexObject object = 0;
    CUresult r;

    if (!next_part(&parts, in->pResDesc_bytes, &resource, sizeof(resource)) ||
        !next_part(&parts, in->pTexDesc_bytes, &texture, sizeof(texture)) ||
        (with_view && !next_part(&parts, in->pResViewDesc_bytes, &view, sizeof(view))))
        return oh_fault(t, "a texture's descriptions are cut short");
    r = resolve(&resource);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuTexObjectCreate, &object, &resource, &texture, with_view ? &view : NULL);
    if (r != CUDA_SUCCESS)
        return r;
    if (!add(object, oh_current_context(), false)) {
        OH_CALL(cuTexObjectDestroy, object);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    out->pTexObject = object;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_cuSurfObjectCreate(struct oh_twin *t, const struct ow_cuSurfObjectCreate_in *in, uint32_t bytes,
                               struct ow_cuSurfObjectCreate_out *out, uint32_t *out_bytes)
{
    struct ow_cursor parts = { (const uint8_t *)(in + 1), bytes - sizeof(*in) };
    CUDA_RESOURCE_DESC resource;
    CUsurfObject object = 0;
    CUresult r;

    if (!next_part(&parts, in->pResDesc_bytes, &resource, sizeof(resource)))
        return oh_fault(t, "a surface's description is cut short");
    r = resolve(&resource);
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuSurfObjectCreate, &object, &resource);
    if (r != CUDA_SUCCESS)
        return r;
    if (!add(object, oh_current_context(), true)) {
        OH_CALL(cuSurfObjectDestroy, object);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    out->pSurfObject = object;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

/* Forgotten first, lest two threads have the driver destroy one object. */
static CUresult end(uint64_t object, bool surface)
{
    uint64_t context = oh_current_context();
    CUresult r;

    if (!take(object, context, surface))
        return CUDA_ERROR_INVALID_VALUE;
    r = surface ? OH_CALL(cuSurfObjectDestroy, object) : OH_CALL(cuTexObjectDestroy, object);
    return r == CUDA_SUCCESS || add(object, context, surface) ? r : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult oh_cuTexObjectDestroy(struct oh_twin *t, const struct ow_cuTexObjectDestroy_in *in, uint32_t bytes,
                               struct ow_cuTexObjectDestroy_out *out, uint32_t *out_bytes)
{
    (void)t, (void)bytes, (void)out, (void)out_bytes;
    return end(in->texObject, false);
}

CUresult oh_cuSurfObjectDestroy(struct oh_twin *t, const struct ow_cuSurfObjectDestroy_in *in, uint32_t bytes,
                                struct ow_cuSurfObjectDestroy_out *out, uint32_t *out_bytes)
{
    (void)t, (void)bytes, (void)out, (void)out_bytes;
    return end(in->surfObject, true);
}

CUresult oh_cuTexObjectGetResourceDesc(struct oh_twin *t, const struct ow_cuTexObjectGetResourceDesc_in *in,
                                       uint32_t bytes, struct ow_cuTexObjectGetResourceDesc_out *out,
                                       uint32_t *out_bytes)
{
    CUDA_RESOURCE_DESC d = { 0 };
    CUresult r = known(in->texObject, false) ? OH_CALL(cuTexObjectGetResourceDesc, &d, in->texObject)
                                             : CUDA_ERROR_INVALID_VALUE;

    (void)t, (void)bytes;
    unresolve(&d);
    return answer(r, &d, sizeof(d), out, out_bytes);
}

CUresult oh_cuTexObjectGetTextureDesc(struct oh_twin *t, const struct ow_cuTexObjectGetTextureDesc_in *in,
                                      uint32_t bytes, struct ow_cuTexObjectGetTextureDesc_out *out,
                                      uint32_t *out_bytes)
{
    CUDA_TEXTURE_DESC d = { 0 };
    CUresult r = known(in->texObject, false) ? OH_CALL(cuTexObjectGetTextureDesc, &d, in->texObject)
                                             : CUDA_ERROR_INVALID_VALUE;

    (void)t, (void)bytes;
    return answer(r, &d, sizeof(d), out, out_bytes);
}

CUresult oh_cuTexObjectGetResourceViewDesc(struct oh_twin *t, const struct ow_cuTexObjectGetResourceViewDesc_in *in,
                                           uint32_t bytes, struct ow_cuTexObjectGetResourceViewDesc_out *out,
                                           uint32_t *out_bytes)
{
    CUDA_RESOURCE_VIEW_DESC d = { 0 };
    CUresult r = known(in->texObject, false) ? OH_CALL(cuTexObjectGetResourceViewDesc, &d, in->texObject)
                                             : CUDA_ERROR_INVALID_VALUE;

    (void)t, (void)bytes;
    return answer(r, &d, sizeof(d), out, out_bytes);
}

CUresult oh_cuSurfObjectGetResourceDesc(struct oh_twin *t, const struct ow_cuSurfObjectGetResourceDesc_in *in,
                                        uint32_t bytes, struct ow_cuSurfObjectGetResourceDesc_out *out,
                                        uint32_t *out_bytes)
{
    CUDA_RESOURCE_DESC d = { 0 };
    CUresult r = known(in->surfObject, true) ? OH_CALL(cuSurfObjectGetResourceDesc, &d, in->surfObject)
                                             : CUDA_ERROR_INVALID_VALUE;

    (void)t, (void)bytes;
    unresolve(&d);
    return answer(r, &d, sizeof(d), out, out_bytes);
}
