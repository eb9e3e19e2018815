/* SPDX-License-Identifier: Apache-2.0 */
/* Texture and surface references: they live as long as their module. */
#include <string.h>

#include "array.h"
#include "gen/checks.h"

/* Data of a TEXREF or SURFREF is its module's handle; NULL: made by cuTexRefCreate. */
struct drop {
    uint64_t owner;
    enum ow_kind kind;
};

static void drop_of(uint64_t id, void *real, void *data, void *arg)
{
    const struct drop *d = arg;

    (void)real;
    if ((uint64_t)(uintptr_t)data == d->owner)
        oh_del(d->kind, id);
}

void oh_drop_references(uint64_t owner)
{
    struct drop textures = { owner, OW_KIND_TEXREF }, surfaces = { owner, OW_KIND_SURFREF };

    oh_each(OW_KIND_TEXREF, drop_of, &textures);
    oh_each(OW_KIND_SURFREF, drop_of, &surfaces);
}

/* The number that the reference has, else the client's candidate. */
static CUresult name(enum ow_kind kind, void *real, uint64_t module, uint64_t candidate, uint64_t *id)
{
    CUresult r;

    *id = oh_find(kind, real);
    if (*id)
        return CUDA_SUCCESS;
    *id = candidate;
    r = oh_put(kind, candidate, real);
    oh_set_data(kind, candidate, (void *)(uintptr_t)module);
    return r;
}

CUresult oh_cuModuleGetTexRef(struct oh_twin *t, const struct ow_cuModuleGetTexRef_in *in, uint32_t bytes,
                              struct ow_cuModuleGetTexRef_out *out, uint32_t *out_bytes)
{
    struct ow_cursor parts = { (const uint8_t *)(in + 1), bytes - sizeof(*in) };
    const void *text;
    CUtexref reference = NULL;
    void *module;
    CUresult r = oh_get(OW_KIND_MODULE, in->hmod, &module);

    if (r != CUDA_SUCCESS)
        return r;
    if (!oh_text(&parts, in->name_bytes, false, &text))
        return oh_fault(t, "a texture reference's name without end");
    r = OH_CALL(cuModuleGetTexRef, &reference, module, text);
    if (r == CUDA_SUCCESS)
        r = name(OW_KIND_TEXREF, reference, in->hmod, in->pTexRef, &out->pTexRef);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_cuModuleGetSurfRef(struct oh_twin *t, const struct ow_cuModuleGetSurfRef_in *in, uint32_t bytes,
                               struct ow_cuModuleGetSurfRef_out *out, uint32_t *out_bytes)
{
    struct ow_cursor parts = { (const uint8_t *)(in + 1), bytes - sizeof(*in) };
    const void *text;
    CUsurfref reference = NULL;
    void *module;
    CUresult r = oh_get(OW_KIND_MODULE, in->hmod, &module);

    if (r != CUDA_SUCCESS)
        return r;
    if (!oh_text(&parts, in->name_bytes, false, &text))
        return oh_fault(t, "a surface reference's name without end");
    r = OH_CALL(cuModuleGetSurfRef, &reference, module, text);
    if (r == CUDA_SUCCESS)
        r = name(OW_KIND_SURFREF, reference, in->hmod, in->pSurfRef, &out->pSurfRef);
    if (r == CUDA_SUCCESS)
        *out_bytes = sizeof(*out);
    return r;
}

CUresult oh_cuTexRefSetAddress2D_v3(struct oh_twin *t, const struct ow_cuTexRefSetAddress2D_v3_in *in, uint32_t bytes,
                                    struct ow_cuTexRefSetAddress2D_v3_out *out, uint32_t *out_bytes)
{
    CUDA_ARRAY_DESCRIPTOR d;
    uint64_t width;
    void *reference;
    CUresult r = oh_get(OW_KIND_TEXREF, in->hTexRef, &reference);

    (void)t, (void)out, (void)out_bytes;
    if (bytes < sizeof(*in) + sizeof(d))
        return CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    memcpy(&d, in + 1, sizeof(d));
    width = oh_array_bytes(d.Width, oc_texel_bytes(d.Format, d.NumChannels));
    if (!oh_touches(in->dptr, oh_rows_bytes(width, in->Pitch, d.Height)))
        return CUDA_ERROR_INVALID_VALUE;
    return OH_CALL(cuTexRefSetAddress2D_v3, reference, &d, in->dptr, in->Pitch);
}
