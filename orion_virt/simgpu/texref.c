/* SPDX-License-Identifier: Apache-2.0 */
/* Texture references of modules: variables that hold a texture object, made anew whenever the reference changes. */
#include <stdlib.h>

#include "array.h"

#define NOTHING 0xffu /* resType of a reference that is bound to nothing */

struct CUtexref_st {
    struct CUmod_st *module;
    uint64_t variable;
    CUDA_RESOURCE_DESC resource;
    CUDA_TEXTURE_DESC texture;
    CUarray_format format;
    unsigned channels;
    CUtexObject object;
    struct CUtexref_st *next;
};

static CUresult check(CUtexref ref, const void *out)
{
    struct CUctx_st *ctx;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(ref, SIM_TEXREF))
        return CUDA_ERROR_INVALID_HANDLE;
    return out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Kernels that are queued have the old object still: destroying it waits for them. */
static CUresult bind(struct CUtexref_st *ref)
{
    CUresult r = ref->object ? cuTexObjectDestroy(ref->object) : CUDA_SUCCESS;

    ref->object = 0;
    if (r)
        return r;
    if (ref->resource.resType != NOTHING)
        r = cuTexObjectCreate(&ref->object, &ref->resource, &ref->texture, NULL);
    *(uint64_t *)(uintptr_t)ref->variable = r ? 0 : ref->object;
    return r;
}

SIM_API CUresult cuModuleGetTexRef(CUtexref *out, CUmodule module, const char *name)
{
    struct CUtexref_st *ref;
    struct CUctx_st *ctx;
    uint64_t variable;
    CUresult r = sim_enter(&ctx);

    if (r)
        return r;
    if (!sim_valid(module, SIM_MODULE))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!out || !name)
        return CUDA_ERROR_INVALID_VALUE;
    if (!module->ptx || !ptx_find_reference(module->ptx, name, &variable))
        return CUDA_ERROR_NOT_FOUND;
    for (ref = module->references; ref && ref->variable != variable; ref = ref->next)
        ;
    if (!ref) {
        ref = calloc(1, sizeof(*ref));
        if (!ref || !sim_register(ref, SIM_TEXREF)) {
            free(ref);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        ref->module = module;
        ref->variable = variable;
        ref->resource.resType = NOTHING;
        ref->format = 0x20; /* CU_AD_FORMAT_FLOAT */
        ref->channels = 1;
        for (unsigned i = 0; i < 3; i++)
            ref->texture.addressMode[i] = PTX_CLAMP;
        ref->next = module->references;
        module->references = ref;
    }
    *out = ref;
    return CUDA_SUCCESS;
}

void sim_references_drop(struct CUmod_st *module)
{
    struct CUtexref_st *ref;

    while ((ref = module->references)) {
        module->references = ref->next;
        sim_texture_forget(ref->object);
        sim_unregister(ref);
        free(ref);
    }
}

/* ---- what it is bound to ---- */

SIM_API CUresult cuTexRefSetArray(CUtexref ref, CUarray array, unsigned flags)
{
    CUresult r = check(ref, ref);

    if (r)
        return r;
    if (!sim_valid(array, SIM_ARRAY))
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags != 1) /* CU_TRSA_OVERRIDE_FORMAT */
        return CUDA_ERROR_INVALID_VALUE;
    ref->resource = (CUDA_RESOURCE_DESC){ .resType = 0 };
    ref->resource.res.array.hArray = array;
    ref->format = array->desc.Format;
    ref->channels = array->desc.NumChannels;
    return bind(ref);
}

SIM_API CUresult cuTexRefSetAddress_v2(size_t *offset, CUtexref ref, CUdeviceptr p, size_t bytes)
{
    CUresult r = check(ref, ref);

    if (r)
        return r;
    if (offset)
        *offset = 0;
    ref->resource = (CUDA_RESOURCE_DESC){ .resType = 2 };
    ref->resource.res.linear.devPtr = p;
    ref->resource.res.linear.format = ref->format;
    ref->resource.res.linear.numChannels = ref->channels;
    ref->resource.res.linear.sizeInBytes = bytes;
    return bind(ref);
}

SIM_API CUresult cuTexRefSetAddress2D_v3(CUtexref ref, const CUDA_ARRAY_DESCRIPTOR *d, CUdeviceptr p, size_t pitch)
{
    CUresult r = check(ref, d);

    if (r)
        return r;
    ref->format = d->Format;
    ref->channels = d->NumChannels;
    ref->resource = (CUDA_RESOURCE_DESC){ .resType = 3 };
    ref->resource.res.pitch2D.devPtr = p;
    ref->resource.res.pitch2D.format = d->Format;
    ref->resource.res.pitch2D.numChannels = d->NumChannels;
    ref->resource.res.pitch2D.width = d->Width;
    ref->resource.res.pitch2D.height = d->Height;
    ref->resource.res.pitch2D.pitchInBytes = pitch;
    return bind(ref);
}

SIM_API CUresult cuTexRefGetArray(CUarray *array, CUtexref ref)
{
    CUresult r = check(ref, array);

    if (r)
        return r;
    *array = ref->resource.resType == 0 ? ref->resource.res.array.hArray : NULL;
    return *array ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuTexRefGetAddress_v2(CUdeviceptr *p, CUtexref ref)
{
    CUresult r = check(ref, p);

    if (r)
        return r;
    if (ref->resource.resType != 2 && ref->resource.resType != 3)
        return CUDA_ERROR_INVALID_VALUE;
    *p = ref->resource.res.linear.devPtr;
    return CUDA_SUCCESS;
}

/* ---- how it is read ---- */

SIM_API CUresult cuTexRefSetFormat(CUtexref ref, CUarray_format format, int channels)
{
    CUresult r = check(ref, ref);

    if (r)
        return r;
    if (!sim_component_bytes(format) || (channels != 1 && channels != 2 && channels != 4))
        return CUDA_ERROR_INVALID_VALUE;
    ref->format = format;
    ref->channels = (unsigned)channels;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuTexRefSetAddressMode(CUtexref ref, int dim, CUaddress_mode mode)
{
    CUresult r = check(ref, ref);

    if (r)
        return r;
    if (dim < 0 || dim > 2 || mode > 3)
        return CUDA_ERROR_INVALID_VALUE;
    ref->texture.addressMode[dim] = mode;
    return bind(ref);
}

SIM_API CUresult cuTexRefSetFilterMode(CUtexref ref, CUfilter_mode mode)
{
    CUresult r = check(ref, ref);

    if (r)
        return r;
    if (mode > 1)
        return CUDA_ERROR_INVALID_VALUE;
    ref->texture.filterMode = mode;
    return bind(ref);
}

SIM_API CUresult cuTexRefSetFlags(CUtexref ref, unsigned flags)
{
    CUresult r = check(ref, ref);

    if (r)
        return r;
    ref->texture.flags = flags;
    return bind(ref);
}

SIM_API CUresult cuTexRefGetFormat(CUarray_format *format, int *channels, CUtexref ref)
{
    CUresult r = check(ref, ref);

    if (r)
        return r;
    if (format)
        *format = ref->format;
    if (channels)
        *channels = (int)ref->channels;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuTexRefGetAddressMode(CUaddress_mode *mode, CUtexref ref, int dim)
{
    CUresult r = check(ref, mode);

    if (r)
        return r;
    if (dim < 0 || dim > 2)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = ref->texture.addressMode[dim];
    return CUDA_SUCCESS;
}

SIM_API CUresult cuTexRefGetFilterMode(CUfilter_mode *mode, CUtexref ref)
{
    CUresult r = check(ref, mode);

    if (!r)
        *mode = ref->texture.filterMode;
    return r;
}

SIM_API CUresult cuTexRefGetFlags(unsigned *flags, CUtexref ref)
{
    CUresult r = check(ref, flags);

    if (!r)
        *flags = ref->texture.flags;
    return r;
}
