/* SPDX-License-Identifier: Apache-2.0 */
/* Green contexts: parts of a card and contexts that run on them. Resources stay on the host; what the application
 * holds has their public fields, and their number where the driver keeps its own. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "gen/send.h"

enum { OG_OF_DEVICE = 0, OG_OF_CONTEXT = 1, OG_OF_GREEN = 2, OG_OF_STREAM = 3 };
enum { OG_WANTS_GROUPS = 1, OG_WANTS_REST = 2 };
#define OG_TYPE_SM 1u

struct og_green {
    uint64_t handle;
    struct og_context *context;
    unsigned long long id;
};

static struct og_green *og_green(uint64_t handle)
{
    return handle && og_valid(OW_KIND_GREEN_CONTEXT, handle) ? og_data(handle) : NULL;
}

uint64_t og_green_context(uint64_t green)
{
    const struct og_green *g = og_green(green);

    return g ? g->context->handle : 0;
}

/* ---- resources ---- */
static CUresult og_resource_get(uint32_t what, uint64_t object, int device, CUdevResource *resource, uint32_t type)
{
    CUresult r;

    if (!resource)
        return CUDA_ERROR_INVALID_VALUE;
    r = og_connect();
    return r == CUDA_SUCCESS ? og_send_orion_resource_get(what, object, device, type, (uint8_t *)resource) : r;
}

OG_EXPORT CUresult cuDeviceGetDevResource(CUdevice device, CUdevResource *resource, CUdevResourceType type)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (device < 0 || device >= og_nr_devices())
        return CUDA_ERROR_INVALID_DEVICE;
    return og_resource_get(OG_OF_DEVICE, 0, device, resource, type);
}

OG_EXPORT CUresult cuCtxGetDevResource(CUcontext hCtx, CUdevResource *resource, CUdevResourceType type)
{
    const struct og_context *c;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    c = og_context(og_context_resolve((uintptr_t)hCtx));
    if (!c || !atomic_load(&c->active))
        return CUDA_ERROR_INVALID_CONTEXT;
    return og_resource_get(OG_OF_CONTEXT, c->handle, c->device, resource, type);
}

OG_EXPORT CUresult cuGreenCtxGetDevResource(CUgreenCtx hCtx, CUdevResource *resource, CUdevResourceType type)
{
    const struct og_green *g;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    g = og_green((uintptr_t)hCtx);
    if (!g)
        return CUDA_ERROR_INVALID_CONTEXT;
    return og_resource_get(OG_OF_GREEN, g->handle, g->context->device, resource, type);
}

OG_EXPORT CUresult cuStreamGetDevResource(CUstream hStream, CUdevResource *resource, CUdevResourceType type)
{
    CUdevice device = 0;
    CUresult r = cuStreamGetDevice(hStream, &device);

    return r == CUDA_SUCCESS ? og_resource_get(OG_OF_STREAM, (uintptr_t)hStream, device, resource, type) : r;
}

static uint64_t og_resource_number(const CUdevResource *resource)
{
    uint64_t number;

    memcpy(&number, resource->_internal_padding, sizeof(number));
    return number;
}

OG_EXPORT CUresult cuDevSmResourceSplitByCount(CUdevResource *result, unsigned int *nbGroups,
                                               const CUdevResource *input, CUdevResource *remainder,
                                               unsigned int flags, unsigned int minCount)
{
    uint32_t wanted = (result ? OG_WANTS_GROUPS : 0) | (remainder ? OG_WANTS_REST : 0), count = 0;
    uint64_t first = 0, rest = 0;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!nbGroups || !input)
        return CUDA_ERROR_INVALID_VALUE;
    if (input->type != OG_TYPE_SM)
        return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    r = og_send_orion_resource_split(og_resource_number(input), *nbGroups, flags, minCount, wanted, &first, &rest, &count);
    for (uint32_t i = 0; r == CUDA_SUCCESS && result && i < count && i < *nbGroups; i++)
        r = og_send_orion_resource_read(first + i, (uint8_t *)&result[i]);
    if (r == CUDA_SUCCESS && remainder)
        r = og_send_orion_resource_read(rest, (uint8_t *)remainder);
    if (r == CUDA_SUCCESS)
        *nbGroups = count;
    return r;
}

OG_EXPORT CUresult cuDevResourceGenerateDesc(CUdevResourceDesc *phDesc, CUdevResource *resources,
                                             unsigned int nbResources)
{
    CUresult r = og_check_init();
    uint64_t desc;

    if (r != CUDA_SUCCESS)
        return r;
    if (!phDesc || !resources || !nbResources || nbResources > OG_MAX_PAYLOAD / sizeof(*resources))
        return CUDA_ERROR_INVALID_VALUE;
    desc = og_mint(OW_KIND_RESOURCE_DESC);
    if (!desc)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = og_send_orion_resource_desc(desc, nbResources * (uint32_t)sizeof(*resources), (const uint8_t *)resources);
    if (r == CUDA_SUCCESS)
        *phDesc = (CUdevResourceDesc)(uintptr_t)desc;
    else
        og_unmint(OW_KIND_RESOURCE_DESC, desc);
    return r;
}

/* ---- green contexts ---- */
/* The primary context ended, and its green ones with it; the host knows. */
struct og_ended {
    int device;
    struct og_green *green;
};

static void og_green_of(uint64_t handle, void *data, void *arg)
{
    struct og_green *g = data;
    struct og_ended *e = arg;

    (void)handle;
    if (g && g->context->device == e->device)
        e->green = g;
}

static void og_green_free(struct og_green *g)
{
    if (g->context)
        og_context_green_end(g->context);
    if (g->handle)
        og_unmint(OW_KIND_GREEN_CONTEXT, g->handle);
    free(g);
}

static void og_green_primary_died(uint64_t context)
{
    const struct og_context *c = og_context(context);
    struct og_ended e = { c && c->primary ? c->device : -1, NULL };

    do {
        e.green = NULL;
        if (e.device >= 0)
            og_each(OW_KIND_GREEN_CONTEXT, og_green_of, &e);
        if (e.green)
            og_green_free(e.green);
    } while (e.green);
}

static CUresult og_green_make(struct og_green *g, uint64_t desc, int device, unsigned flags)
{
    static _Atomic bool watching;
    static _Atomic unsigned long long next = 1;

    if (!atomic_exchange(&watching, true))
        og_on_context_death(og_green_primary_died);
    g->id = atomic_fetch_add(&next, 1);
    g->context = og_context_green(device);
    g->handle = og_mint(OW_KIND_GREEN_CONTEXT);
    if (!g->context || !g->handle)
        return CUDA_ERROR_OUT_OF_MEMORY;
    g->context->green = g->handle;
    return og_send_orion_green_create(g->handle, g->context->handle, desc, device, flags);
}

OG_EXPORT CUresult cuGreenCtxCreate(CUgreenCtx *phCtx, CUdevResourceDesc desc, CUdevice dev, unsigned int flags)
{
    struct og_green *g;
    CUcontext primary;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (dev < 0 || dev >= og_nr_devices())
        return CUDA_ERROR_INVALID_DEVICE;
    if (!phCtx || !og_valid(OW_KIND_RESOURCE_DESC, (uintptr_t)desc))
        return CUDA_ERROR_INVALID_VALUE;
    r = cuDevicePrimaryCtxRetain(&primary, dev);
    if (r != CUDA_SUCCESS)
        return r;
    g = calloc(1, sizeof(*g));
    r = g ? og_green_make(g, (uintptr_t)desc, dev, flags) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r == CUDA_SUCCESS) {
        og_set_data(g->handle, g);
        *phCtx = (CUgreenCtx)(uintptr_t)g->handle;
        return CUDA_SUCCESS;
    }
    if (g)
        og_green_free(g);
    (void)cuDevicePrimaryCtxRelease_v2(dev);
    return r;
}

OG_EXPORT CUresult cuGreenCtxDestroy(CUgreenCtx hCtx)
{
    struct og_green *g;
    int device;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    g = og_green((uintptr_t)hCtx);
    if (!g)
        return CUDA_ERROR_INVALID_CONTEXT;
    device = g->context->device;
    r = og_send_orion_green_end(g->handle);
    og_green_free(g);
    (void)cuDevicePrimaryCtxRelease_v2(device);
    return r;
}

OG_EXPORT CUresult cuCtxFromGreenCtx(CUcontext *pContext, CUgreenCtx hCtx)
{
    uint64_t context;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    context = og_green_context((uintptr_t)hCtx);
    if (!context)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!pContext)
        return CUDA_ERROR_INVALID_VALUE;
    *pContext = (CUcontext)(uintptr_t)context;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuGreenCtxGetId(CUgreenCtx greenCtx, unsigned long long *greenCtxId)
{
    const struct og_green *g;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    g = og_green((uintptr_t)greenCtx);
    if (!g)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!greenCtxId)
        return CUDA_ERROR_INVALID_VALUE;
    *greenCtxId = g->id;
    return CUDA_SUCCESS;
}

/* ---- whose a stream is ---- */
OG_EXPORT CUresult cuStreamGetCtx_v2(CUstream hStream, CUcontext *pCtx, CUgreenCtx *pGreenCtx)
{
    CUcontext of = NULL;
    const struct og_context *c;
    CUresult r = cuStreamGetCtx(hStream, &of);

    if (r != CUDA_SUCCESS)
        return r;
    if (!pCtx || !pGreenCtx)
        return CUDA_ERROR_INVALID_VALUE;
    c = og_context((uintptr_t)of);
    if (c && c->green && hStream == (CUstream)2) /* there is no per-thread stream in a green context */
        return CUDA_ERROR_INVALID_HANDLE;
    *pGreenCtx = (CUgreenCtx)(uintptr_t)(c ? c->green : 0);
    *pCtx = (CUcontext)(uintptr_t)og_context_home((uintptr_t)of);
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuStreamGetGreenCtx(CUstream hStream, CUgreenCtx *phCtx)
{
    CUcontext unused;

    return cuStreamGetCtx_v2(hStream, &unused, phCtx);
}
