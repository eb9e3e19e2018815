/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA arrays: booked by their descriptors, since nothing tells what the driver takes for one. */
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "gen/checks.h"

enum { NO_STORAGE = 0x40 | 0x80, CUBEMAP = 4, LAYERED = 1 }; /* CUDA_ARRAY3D_SPARSE, DEFERRED_MAPPING: mapped later */
#define MAX_LEVELS 32u
#define TILE_BYTES 64u
#define TILE_ROWS 8u

/* Saturates. */
static uint64_t whole(uint64_t n, uint64_t unit)
{
    return n > UINT64_MAX - unit ? UINT64_MAX : (n + unit - 1) / unit * unit;
}

static uint64_t level_size(uint64_t size, unsigned level)
{
    return size >> level ? size >> level : 1;
}

/* Saturates: what overflows is over every quota. Layers and faces do not shrink with the level. `tiled`: at most, as rows
 * are whole tiles of 64 bytes and 8 rows on the card. */
static uint64_t array_bytes(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned levels, bool tiled)
{
    bool layers = d->Flags & (LAYERED | CUBEMAP);
    uint64_t total = 0, bytes;

    if (d->Flags & NO_STORAGE)
        return 0;
    for (unsigned i = 0; i < MAX_LEVELS && (i == 0 || i < levels); i++) {
        bytes = oh_array_bytes(oc_texel_bytes(d->Format, d->NumChannels), level_size(d->Width, i));
        bytes = oh_array_bytes(tiled ? whole(bytes, TILE_BYTES) : bytes,
                               tiled ? whole(level_size(d->Height, i), TILE_ROWS) : level_size(d->Height, i));
        bytes = oh_array_bytes(bytes, level_size(d->Depth, layers ? 0 : i));
        if (__builtin_add_overflow(total, bytes, &total))
            return UINT64_MAX;
    }
    return total;
}

/* ---- the table ---- */

static CUresult destroy(enum ow_kind kind, void *real)
{
    return kind == OW_KIND_ARRAY ? OH_CALL(cuArrayDestroy, real) : OH_CALL(cuMipmappedArrayDestroy, real);
}

static CUresult put(enum ow_kind kind, uint64_t id, void *real, const struct oh_array *as)
{
    struct oh_array *a = malloc(sizeof(*a));
    CUresult r;

    if (!a)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *a = *as;
    r = oh_put(kind, id, real);
    if (r == CUDA_SUCCESS)
        oh_set_data(kind, id, a);
    else
        free(a);
    return r;
}

/* After the driver's answer: keeps what it made, or takes the booking back. */
static CUresult keep(enum ow_kind kind, uint64_t id, CUresult made, void *real, const struct oh_array *as)
{
    CUresult r = made;

    if (r == CUDA_SUCCESS) {
        r = put(kind, id, real, as);
        if (r != CUDA_SUCCESS)
            destroy(kind, real);
    }
    if (r != CUDA_SUCCESS)
        oh_unbook(as->device, as->booked);
    return r;
}

static OH_MUST_CHECK CUresult book(struct oh_twin *t, const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned levels, struct oh_array *a)
{
    uint64_t most = array_bytes(d, levels, true);

    *a = (struct oh_array){ .context = oh_current_context(), .device = t->device, .booked = array_bytes(d, levels, false) };
    return t->device < 0 ? CUDA_ERROR_INVALID_CONTEXT : oh_book_rounded(t->device, a->booked, most - a->booked);
}

static void forget(struct oh_array *a)
{
    oh_unbook(a->device, a->booked);
    oh_array_let_go(a);
    oh_retire(a);
}

static void drop(enum ow_kind kind, uint64_t id)
{
    struct oh_array *a = NULL;
    void *real;

    if (!oh_take(kind, id, &real, (void **)&a) || !a)
        return;
    forget(a);
}

static void drop_part(uint64_t id, void *real, void *data, void *owner)
{
    const struct oh_array *a = data;

    (void)real;
    if (a && a->owner == *(const uint64_t *)owner)
        drop(OW_KIND_ARRAY, id);
}

struct drop {
    uint64_t context;
    enum ow_kind kind;
};

static void drop_of(uint64_t id, void *real, void *data, void *arg)
{
    const struct oh_array *a = data;
    const struct drop *d = arg;

    (void)real;
    if (a && a->context == d->context)
        drop(d->kind, id);
}

void oh_drop_arrays(uint64_t context)
{
    struct drop arrays = { context, OW_KIND_ARRAY }, mipmaps = { context, OW_KIND_MIPMAPPED_ARRAY };

    oh_each(OW_KIND_ARRAY, drop_of, &arrays);
    oh_each(OW_KIND_MIPMAPPED_ARRAY, drop_of, &mipmaps);
}

/* Taken out before the driver destroys it, as generated bodies do; put back if that refuses. */
static CUresult end(enum ow_kind kind, uint64_t id)
{
    struct oh_array *a = NULL;
    void *real;
    CUresult r;

    if (!oh_take(kind, id, &real, (void **)&a))
        return CUDA_ERROR_INVALID_HANDLE;
    r = destroy(kind, real);
    if (r != CUDA_SUCCESS) {
        if (oh_put(kind, id, real) != CUDA_SUCCESS)
            return OH_FAULT;
        oh_set_data(kind, id, a);
        return r;
    }
    oh_each(OW_KIND_ARRAY, drop_part, &id);
    if (a)
        forget(a);
    return CUDA_SUCCESS;
}

/* ---- operations ---- */

CUresult oh_cuArrayCreate_v2(struct oh_twin *t, const struct ow_cuArrayCreate_v2_in *in, uint32_t bytes,
                             struct ow_cuArrayCreate_v2_out *out, uint32_t *out_bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR wide = { 0 };
    CUDA_ARRAY_DESCRIPTOR d;
    CUarray array = NULL;
    struct oh_array a;
    CUresult r;

    (void)out, (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(d))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&d, in + 1, sizeof(d));
    wide.Width = d.Width;
    wide.Height = d.Height;
    wide.Format = d.Format;
    wide.NumChannels = d.NumChannels;
    r = book(t, &wide, 1, &a);
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuArrayCreate_v2, &array, &d);
    return keep(OW_KIND_ARRAY, in->pHandle, r, array, &a);
}

CUresult oh_cuArray3DCreate_v2(struct oh_twin *t, const struct ow_cuArray3DCreate_v2_in *in, uint32_t bytes,
                               struct ow_cuArray3DCreate_v2_out *out, uint32_t *out_bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR d;
    CUarray array = NULL;
    struct oh_array a;
    CUresult r;

    (void)out, (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(d))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&d, in + 1, sizeof(d));
    r = book(t, &d, 1, &a);
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuArray3DCreate_v2, &array, &d);
    return keep(OW_KIND_ARRAY, in->pHandle, r, array, &a);
}

CUresult oh_cuMipmappedArrayCreate(struct oh_twin *t, const struct ow_cuMipmappedArrayCreate_in *in, uint32_t bytes,
                                   struct ow_cuMipmappedArrayCreate_out *out, uint32_t *out_bytes)
{
    CUDA_ARRAY3D_DESCRIPTOR d;
    CUmipmappedArray array = NULL;
    struct oh_array a;
    CUresult r;

    (void)out, (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(d))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&d, in + 1, sizeof(d));
    r = book(t, &d, in->numMipmapLevels, &a);
    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuMipmappedArrayCreate, &array, &d, in->numMipmapLevels);
    return keep(OW_KIND_MIPMAPPED_ARRAY, in->pHandle, r, array, &a);
}

CUresult oh_cuArrayDestroy(struct oh_twin *t, const struct ow_cuArrayDestroy_in *in, uint32_t bytes,
                           struct ow_cuArrayDestroy_out *out, uint32_t *out_bytes)
{
    (void)t, (void)bytes, (void)out, (void)out_bytes;
    return end(OW_KIND_ARRAY, in->hArray);
}

CUresult oh_cuMipmappedArrayDestroy(struct oh_twin *t, const struct ow_cuMipmappedArrayDestroy_in *in, uint32_t bytes,
                                    struct ow_cuMipmappedArrayDestroy_out *out, uint32_t *out_bytes)
{
    (void)t, (void)bytes, (void)out, (void)out_bytes;
    return end(OW_KIND_MIPMAPPED_ARRAY, in->hMipmappedArray);
}

/* A part of another's storage gets the number that it has, else the client's candidate. */
static CUresult part(struct oh_twin *t, uint64_t owner, CUarray real, uint64_t candidate, uint64_t *id)
{
    struct oh_array a = { .context = oh_current_context(), .owner = owner, .device = t->device };

    *id = oh_find(OW_KIND_ARRAY, real);
    if (*id)
        return CUDA_SUCCESS;
    *id = candidate;
    return put(OW_KIND_ARRAY, candidate, real, &a);
}

CUresult oh_cuMipmappedArrayGetLevel(struct oh_twin *t, const struct ow_cuMipmappedArrayGetLevel_in *in, uint32_t bytes,
                                     struct ow_cuMipmappedArrayGetLevel_out *out, uint32_t *out_bytes)
{
    CUarray level = NULL;
    void *array;
    CUresult r = oh_get(OW_KIND_MIPMAPPED_ARRAY, in->hMipmappedArray, &array);

    (void)bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuMipmappedArrayGetLevel, &level, array, in->level);
    if (r == CUDA_SUCCESS)
        r = part(t, in->hMipmappedArray, level, in->pLevelArray, &out->pLevelArray);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_cuArrayGetPlane(struct oh_twin *t, const struct ow_cuArrayGetPlane_in *in, uint32_t bytes,
                            struct ow_cuArrayGetPlane_out *out, uint32_t *out_bytes)
{
    CUarray plane = NULL;
    void *array;
    CUresult r = oh_get(OW_KIND_ARRAY, in->hArray, &array);

    (void)bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuArrayGetPlane, &plane, array, in->planeIdx);
    if (r == CUDA_SUCCESS)
        r = part(t, in->hArray, plane, in->pPlaneArray, &out->pPlaneArray);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}
