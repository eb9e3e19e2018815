/* SPDX-License-Identifier: Apache-2.0 */
/* Green contexts. A resource holds what is the driver's own, so it never leaves the host: the client has its number. */
#include <stdlib.h>
#include <string.h>

#include "contexts.h"
#include "gen/checks.h"
#include "memory.h"

#define RESOURCES_MAX 65536u
#define GROUPS_MAX 1024u
#define GREENS_MAX 64u
#define WORKQUEUE_CONFIG 1000u /* kind of resource that an application describes itself */
enum { OF_DEVICE = 0, OF_CONTEXT = 1, OF_GREEN = 2, OF_STREAM = 3 };
enum { WANTS_GROUPS = 1, WANTS_REST = 2 };

_Static_assert(sizeof(CUdevResource) == 144, "as the spec lines say");

struct green {
    int device;
    CUcontext context;
    uint64_t context_id;
};
static struct resource {
    CUdevResource of_driver;
    int device;
} *resources; /* number n is resources[n - 1] */
static uint32_t nr_resources, nr_greens;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- resources ---- */
/* Under the lock; 0: no room. */
static uint64_t keep(const CUdevResource *r, int device)
{
    if (nr_resources == RESOURCES_MAX)
        return 0;
    if (nr_resources % 1024 == 0) {
        struct resource *more = realloc(resources, (nr_resources + 1024) * sizeof(*more));

        if (!more)
            return 0;
        resources = more;
    }
    resources[nr_resources] = (struct resource){ *r, device };
    return ++nr_resources;
}

static bool known(uint64_t number, struct resource *r)
{
    bool is;

    pthread_mutex_lock(&lock);
    is = number && number <= nr_resources;
    if (is)
        *r = resources[number - 1];
    pthread_mutex_unlock(&lock);
    return is;
}

/* What the application sees: the public fields, and the number where the driver keeps its own. */
static void show(const struct resource *r, uint64_t number, void *to)
{
    CUdevResource shown = r->of_driver;

    memset(shown._internal_padding, 0, sizeof(shown._internal_padding));
    memcpy(shown._internal_padding, &number, sizeof(number));
    shown.reserved = NULL;
    if (shown.type == WORKQUEUE_CONFIG)
        shown.wqConfig.device = r->device;
    memcpy(to, &shown, sizeof(shown));
}

/* Green contexts are parts of a card's primary context, which is the first vGPU's alone. */
static bool may(int device)
{
    return device >= 0 && (uint32_t)device < oh_nr_devices && oh_devices[device].primary;
}

/* Asks the driver; *device is the client's. */
static CUresult ask(const struct ow_orion_resource_get_in *in, CUdevResource *resource, int *device)
{
    static const enum ow_kind kinds[] = { 0, OW_KIND_CONTEXT, OW_KIND_GREEN_CONTEXT, OW_KIND_STREAM };
    const struct oh_context *c;
    void *real = NULL;
    CUresult r = CUDA_SUCCESS;

    *device = in->device;
    if (in->what != OF_DEVICE)
        r = oh_get(kinds[in->what], in->object, &real);
    c = r == CUDA_SUCCESS && in->what == OF_CONTEXT ? oh_data(OW_KIND_CONTEXT, in->object) : NULL;
    if (c)
        *device = c->device;
    if (r != CUDA_SUCCESS)
        return r;
    if (!may(*device))
        return CUDA_ERROR_NOT_SUPPORTED;
    if (in->what == OF_DEVICE)
        return OH_CALL(cuDeviceGetDevResource, oh_devices[*device].ordinal, resource, in->type);
    if (in->what == OF_CONTEXT)
        return OH_CALL(cuCtxGetDevResource, real, resource, in->type);
    if (in->what == OF_GREEN)
        return OH_CALL(cuGreenCtxGetDevResource, real, resource, in->type);
    return OH_CALL(cuStreamGetDevResource, real, resource, in->type);
}

CUresult oh_orion_resource_get(struct oh_twin *t, const struct ow_orion_resource_get_in *in, uint32_t bytes,
                               struct ow_orion_resource_get_out *out, uint32_t *out_bytes)
{
    struct resource got = { .of_driver = { 0 } };
    uint64_t number;
    CUresult r;

    (void)bytes;
    if (in->what > OF_STREAM || in->device < 0 || (uint32_t)in->device >= oh_nr_devices)
        return oh_fault(t, "resource of object %u on device %d", in->what, in->device);
    r = ask(in, &got.of_driver, &got.device);
    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&lock);
    number = keep(&got.of_driver, got.device);
    pthread_mutex_unlock(&lock);
    if (!number)
        return CUDA_ERROR_OUT_OF_MEMORY;
    show(&got, number, out + 1);
    out->resource_bytes = sizeof(CUdevResource);
    *out_bytes = (uint32_t)(sizeof(*out) + sizeof(CUdevResource));
    return CUDA_SUCCESS;
}

CUresult oh_orion_resource_read(struct oh_twin *t, const struct ow_orion_resource_read_in *in, uint32_t bytes,
                                struct ow_orion_resource_read_out *out, uint32_t *out_bytes)
{
    struct resource r;

    (void)t, (void)bytes;
    if (!known(in->number, &r))
        return CUDA_ERROR_INVALID_VALUE;
    show(&r, in->number, out + 1);
    out->resource_bytes = sizeof(CUdevResource);
    *out_bytes = (uint32_t)(sizeof(*out) + sizeof(CUdevResource));
    return CUDA_SUCCESS;
}

/* Numbers what a split gave. */
static CUresult keep_split(const CUdevResource *groups, uint32_t count, const CUdevResource *rest, int device,
                           struct ow_orion_resource_split_out *out)
{
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&lock);
    out->first = nr_resources + 1;
    if (count + 1 > RESOURCES_MAX - nr_resources)
        r = CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; r == CUDA_SUCCESS && i < count; i++)
        if (!keep(&groups[i], device))
            r = CUDA_ERROR_OUT_OF_MEMORY;
    out->rest = r == CUDA_SUCCESS ? keep(rest, device) : 0;
    pthread_mutex_unlock(&lock);
    return out->rest ? r : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult oh_orion_resource_split(struct oh_twin *t, const struct ow_orion_resource_split_in *in, uint32_t bytes,
                                 struct ow_orion_resource_split_out *out, uint32_t *out_bytes)
{
    bool wanted = in->wanted & WANTS_GROUPS;
    CUdevResource *groups = NULL, rest = { 0 };
    unsigned count = in->groups;
    struct resource from;
    CUresult r;

    (void)t, (void)bytes;
    if (!known(in->input, &from))
        return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    if (wanted && count > GROUPS_MAX)
        count = GROUPS_MAX; /* more than any card has */
    if (wanted && !(groups = calloc(count + 1, sizeof(*groups))))
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = OH_CALL(cuDevSmResourceSplitByCount, groups, &count, &from.of_driver,
                in->wanted & WANTS_REST ? &rest : NULL, in->flags, in->min);
    out->first = out->rest = 0;
    if (r == CUDA_SUCCESS)
        r = keep_split(groups, wanted ? count : 0, &rest, from.device, out);
    free(groups);
    out->count = count;
    *out_bytes = sizeof(*out);
    return r;
}

/* The driver's own of what the application holds; of a work queue's configuration it may have changed the fields. */
static bool resolve(const CUdevResource *given, CUdevResource *to)
{
    struct resource r = { .of_driver = { 0 } };
    uint64_t number;
    int ordinal;

    memcpy(&number, given->_internal_padding, sizeof(number));
    if (given->type != WORKQUEUE_CONFIG ? !known(number, &r) : number && !known(number, &r))
        return false;
    *to = r.of_driver;
    to->reserved = NULL;
    if (given->type != WORKQUEUE_CONFIG)
        return true;
    if (oh_ordinal(given->wqConfig.device, &ordinal) != CUDA_SUCCESS)
        return false;
    to->type = WORKQUEUE_CONFIG;
    to->wqConfig = given->wqConfig;
    to->wqConfig.device = ordinal;
    return true;
}

CUresult oh_orion_resource_desc(struct oh_twin *t, const struct ow_orion_resource_desc_in *in, uint32_t bytes,
                                struct ow_orion_resource_desc_out *out, uint32_t *out_bytes)
{
    uint32_t nr = in->resources_bytes / sizeof(CUdevResource);
    CUdevResource *given = (CUdevResource *)(uintptr_t)(in + 1); /* our private copy */
    CUdevResourceDesc desc = NULL;
    CUresult r;

    (void)out, (void)out_bytes;
    if (in->resources_bytes > bytes - sizeof(*in) || in->resources_bytes != nr * sizeof(CUdevResource))
        return oh_fault(t, "resources in %u bytes", in->resources_bytes);
    for (uint32_t i = 0; i < nr; i++)
        if (!resolve(&given[i], &given[i]))
            return CUDA_ERROR_INVALID_RESOURCE_TYPE;
    r = OH_CALL(cuDevResourceGenerateDesc, &desc, given, nr);
    return r == CUDA_SUCCESS ? oh_put(OW_KIND_RESOURCE_DESC, in->desc, desc) : r;
}

/* ---- green contexts ---- */
static struct oh_context context_of[OC_MAX_DEVICES];

static CUresult adopt(const struct ow_orion_green_create_in *in, CUgreenCtx real, struct green *g)
{
    CUresult r = OH_CALL(cuCtxFromGreenCtx, &g->context, real);

    if (r == CUDA_SUCCESS)
        r = oh_put(OW_KIND_CONTEXT, in->context, g->context);
    if (r != CUDA_SUCCESS)
        return r;
    context_of[in->device] = (struct oh_context){ in->device, false, true };
    oh_set_data(OW_KIND_CONTEXT, in->context, &context_of[in->device]);
    g->device = in->device;
    g->context_id = in->context;
    r = oh_put(OW_KIND_GREEN_CONTEXT, in->green, real);
    if (r == CUDA_SUCCESS)
        oh_set_data(OW_KIND_GREEN_CONTEXT, in->green, g);
    else
        oh_del(OW_KIND_CONTEXT, in->context);
    return r;
}

CUresult oh_orion_green_create(struct oh_twin *t, const struct ow_orion_green_create_in *in, uint32_t bytes,
                               struct ow_orion_green_create_out *out, uint32_t *out_bytes)
{
    CUgreenCtx real = NULL;
    struct green *g;
    void *desc;
    CUresult r;

    (void)t, (void)bytes, (void)out, (void)out_bytes;
    if (!may(in->device))
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!oh_devices[in->device].context)
        return CUDA_ERROR_INVALID_CONTEXT;
    r = oh_get(OW_KIND_RESOURCE_DESC, in->desc, &desc);
    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&lock);
    g = nr_greens < GREENS_MAX ? calloc(1, sizeof(*g)) : NULL;
    r = g ? OH_CALL(cuGreenCtxCreate, &real, desc, oh_devices[in->device].ordinal, in->flags) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r == CUDA_SUCCESS && (r = adopt(in, real, g)) != CUDA_SUCCESS)
        (void)oh_drv.cuGreenCtxDestroy(real);
    nr_greens += r == CUDA_SUCCESS;
    if (r != CUDA_SUCCESS)
        free(g);
    pthread_mutex_unlock(&lock);
    return r;
}

/* Its streams stay, as natively: the driver says of each that its context is destroyed. */
static CUresult end(struct oh_twin *t, uint64_t id)
{
    CUcontext current = NULL;
    struct green *g;
    void *real;
    CUresult r;

    if (!oh_take(OW_KIND_GREEN_CONTEXT, id, &real, (void **)&g))
        return CUDA_ERROR_INVALID_CONTEXT;
    oh_del(OW_KIND_CONTEXT, g->context_id);
    if (oh_drv.cuCtxGetCurrent(&current) == CUDA_SUCCESS && current == g->context) {
        (void)oh_drv.cuCtxSetCurrent(NULL);
        t->device = t->stack_slot = -1;
    }
    r = oh_drv.cuGreenCtxDestroy(real);
    free(g);
    nr_greens--;
    return r;
}

CUresult oh_orion_green_end(struct oh_twin *t, const struct ow_orion_green_end_in *in, uint32_t bytes,
                            struct ow_orion_green_end_out *out, uint32_t *out_bytes)
{
    CUresult r;

    (void)bytes, (void)out, (void)out_bytes;
    oh_fence_drain();
    pthread_mutex_lock(&lock);
    r = end(t, in->green);
    pthread_mutex_unlock(&lock);
    return r;
}

struct ending {
    int device;
    uint32_t nr;
    uint64_t ids[GREENS_MAX];
};

static void collect(uint64_t id, void *real, void *data, void *arg)
{
    const struct green *g = data;
    struct ending *e = arg;

    (void)real;
    if (g && g->device == e->device && e->nr < GREENS_MAX)
        e->ids[e->nr++] = id;
}

void oh_green_end_all(struct oh_twin *t, int device)
{
    struct ending e = { .device = device };

    pthread_mutex_lock(&lock);
    oh_each(OW_KIND_GREEN_CONTEXT, collect, &e);
    for (uint32_t i = 0; i < e.nr; i++)
        (void)end(t, e.ids[i]);
    pthread_mutex_unlock(&lock);
}
