/* SPDX-License-Identifier: Apache-2.0 */
/* Functions and kernels: the objects behind their handles, parameters, attributes. */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "gen/send.h"
#include "modules.h"

#define OG_MAX_PARAMS 4096u
#define OG_PARAMS_A_REPLY 200u

pthread_mutex_t og_modules_lock = PTHREAD_MUTEX_INITIALIZER;

static enum ow_kind og_kind_of(uint64_t handle)
{
    return (enum ow_kind)(handle >> 40 & 0x3f);
}

struct og_entry *og_entry(uint64_t handle)
{
    enum ow_kind kind = og_kind_of(handle);

    if ((kind != OW_KIND_FUNCTION && kind != OW_KIND_KERNEL) || !og_valid(kind, handle))
        return NULL;
    return og_data(handle);
}

struct og_function *og_function(uint64_t handle)
{
    struct og_entry *e = og_entry(handle);

    return e ? &e->f : NULL;
}

struct og_entry *og_entry_make(enum ow_kind kind, uint64_t owner, uint64_t context, const char *name, CUresult *r)
{
    struct og_entry *e = calloc(1, sizeof(*e));

    *r = CUDA_ERROR_OUT_OF_MEMORY;
    if (!e)
        return NULL;
    e->owner = owner;
    e->context = context;
    e->f.device = og_self()->device;
    e->name = strdup(name);
    e->f.handle = e->name ? og_mint(kind) : 0;
    if (!e->f.handle) {
        free(e->name);
        free(e);
        return NULL;
    }
    og_set_data(e->f.handle, e);
    *r = CUDA_SUCCESS;
    return e;
}

void og_entry_free(struct og_entry *e)
{
    og_entries_free(e->functions);
    og_unmint(og_kind_of(e->f.handle), e->f.handle);
    for (unsigned i = 0; i < OC_MAX_DEVICES; i++)
        free(atomic_load(&e->attrs[i]));
    free(e->f.offset); /* and size: one block */
    free(e->legacy);
    free(e->name);
    free(e);
}

void og_entries_free(struct og_entry *list)
{
    while (list) {
        struct og_entry *next = list->next;

        og_entry_free(list);
        list = next;
    }
}

struct og_entry *og_entry_find(struct og_entry *list, const char *name)
{
    while (list && strcmp(list->name, name) != 0)
        list = list->next;
    return list;
}

/* ---- parameters ---- */
static CUresult og_params_fetch(struct og_entry *e, uint32_t nr)
{
    uint32_t pairs[OG_PARAMS_A_REPLY], total, got;

    for (uint32_t at = 0; at < nr; at += got) {
        uint32_t room = nr - at < OG_PARAMS_A_REPLY ? nr - at : OG_PARAMS_A_REPLY;
        CUresult r = og_send_orion_function_params(e->f.handle, at, room, &total, &got, pairs);

        if (r != CUDA_SUCCESS)
            return r;
        if (total != nr || got == 0 || got > room)
            return CUDA_ERROR_UNKNOWN;
        for (uint32_t i = 0; i < got; i++) {
            e->f.offset[at + i] = (uint16_t)pairs[i];
            e->f.size[at + i] = (uint16_t)(pairs[i] >> 16);
            if (e->f.offset[at + i] + e->f.size[at + i] > e->f.params_bytes)
                return CUDA_ERROR_UNKNOWN;
        }
    }
    return CUDA_SUCCESS;
}

CUresult og_entry_layout(struct og_entry *e, uint32_t nr_params, uint32_t params_bytes)
{
    if (nr_params > OG_MAX_PARAMS || params_bytes > UINT16_MAX)
        return CUDA_ERROR_UNKNOWN;
    e->f.nr_params = (uint16_t)nr_params;
    e->f.params_bytes = (uint16_t)params_bytes;
    if (!nr_params)
        return CUDA_SUCCESS;
    e->f.offset = calloc(nr_params, 2 * sizeof(uint16_t));
    if (!e->f.offset)
        return CUDA_ERROR_OUT_OF_MEMORY;
    e->f.size = e->f.offset + nr_params;
    return og_params_fetch(e, nr_params);
}

CUresult og_entry_named(uint32_t op, struct og_entry *e)
{
    uint32_t nr = 0, bytes = 0;
    CUresult r;

    if (op == OW_OP_orion_module_function)
        r = og_send_orion_module_function(e->owner, e->f.handle, e->name, &nr, &bytes);
    else
        r = og_send_orion_library_kernel(e->owner, e->f.handle, e->name, &nr, &bytes);
    return r == CUDA_SUCCESS ? og_entry_layout(e, nr, bytes) : r;
}

static CUresult og_param_info(uint64_t handle, enum ow_kind kind, size_t index, size_t *offset, size_t *size)
{
    struct og_entry *e = og_entry(handle);
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!e || og_kind_of(handle) != kind)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!offset || index >= e->f.nr_params)
        return CUDA_ERROR_INVALID_VALUE;
    *offset = e->f.offset[index];
    if (size)
        *size = e->f.size[index];
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
    return og_param_info((uintptr_t)func, OW_KIND_FUNCTION, paramIndex, paramOffset, paramSize);
}

OG_EXPORT CUresult cuKernelGetParamInfo(CUkernel kernel, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
    return og_param_info((uintptr_t)kernel, OW_KIND_KERNEL, paramIndex, paramOffset, paramSize);
}

static CUresult og_param_count(uint64_t handle, enum ow_kind kind, size_t *count)
{
    const struct og_entry *e;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    e = og_kind_of(handle) == kind ? og_entry(handle) : NULL;
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = e->f.nr_params;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuFuncGetParamCount(CUfunction func, size_t *paramCount)
{
    return og_param_count((uintptr_t)func, OW_KIND_FUNCTION, paramCount);
}

OG_EXPORT CUresult cuKernelGetParamCount(CUkernel kernel, size_t *paramCount)
{
    return og_param_count((uintptr_t)kernel, OW_KIND_KERNEL, paramCount);
}

/* ---- attributes ---- */
#define OG_CLUSTER_WIDTH 11u /* CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH */

static struct og_attrs *og_attrs(struct og_entry *e, int device)
{
    struct og_attrs *a = atomic_load_explicit(&e->attrs[device], memory_order_acquire), *none = NULL;

    if (a)
        return a;
    a = calloc(1, sizeof(*a));
    if (!a || atomic_compare_exchange_strong(&e->attrs[device], &none, a))
        return a;
    free(a);
    return none;
}

static void og_attrs_forget(struct og_entry *e)
{
    for (unsigned i = 0; i < OC_MAX_DEVICES; i++) {
        struct og_attrs *a = atomic_load_explicit(&e->attrs[i], memory_order_acquire);

        if (a) {
            atomic_store(&a->known, 0);
            atomic_store(&a->set, 0);
        }
    }
    for (unsigned i = 0; i < OG_SHAPES; i++)
        atomic_store_explicit(&e->shapes[i], 0, memory_order_relaxed);
    atomic_store_explicit(&e->clustered, OG_CLUSTERED_UNKNOWN, memory_order_relaxed);
    memset(e->occupancy, 0, sizeof(e->occupancy));
}

void og_entry_changed(struct og_entry *e)
{
    pthread_mutex_lock(&og_modules_lock);
    og_attrs_forget(e);
    for (struct og_entry *f = e->functions; f; f = f->next)
        og_attrs_forget(f);
    pthread_mutex_unlock(&og_modules_lock);
}

/* `device` -1: that of the current context. Constant until somebody sets one, so it is asked for once. */
static CUresult og_attribute_get(int *value, unsigned attribute, uint64_t handle, int device)
{
    struct og_entry *e = og_entry(handle);
    struct og_attrs *a;
    int at = device < 0 ? og_self()->device : device;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!value || attribute >= OG_ATTRS)
        return CUDA_ERROR_INVALID_VALUE;
    if (at < 0 || at >= og_nr_devices())
        return device < 0 ? CUDA_ERROR_INVALID_CONTEXT : CUDA_ERROR_INVALID_DEVICE;
    a = og_attrs(e, at);
    if (a && (atomic_load_explicit(&a->known, memory_order_acquire) >> attribute & 1)) {
        *value = atomic_load_explicit(&a->value[attribute], memory_order_relaxed);
        return CUDA_SUCCESS;
    }
    r = og_current() ? og_sync_context(false) : CUDA_SUCCESS; /* kernels need no context, functions do */
    if (r == CUDA_SUCCESS)
        r = og_send_orion_function_get(handle, attribute, device, value);
    if (r == CUDA_SUCCESS && a) {
        atomic_store_explicit(&a->value[attribute], *value, memory_order_relaxed);
        atomic_fetch_or_explicit(&a->known, 1u << attribute, memory_order_release);
    }
    return r;
}

bool og_entry_clustered(struct og_entry *e)
{
    unsigned known = atomic_load_explicit(&e->clustered, memory_order_relaxed);
    int width = 0;

    if (known == OG_CLUSTERED_UNKNOWN) { /* drivers that do not know the attribute know no clusters */
        known = og_attribute_get(&width, OG_CLUSTER_WIDTH, e->f.handle, -1) == CUDA_SUCCESS && width ? OG_CLUSTERED_YES
                : OG_CLUSTERED_NO;
        atomic_store_explicit(&e->clustered, (uint8_t)known, memory_order_relaxed);
    }
    return known == OG_CLUSTERED_YES;
}

/* Libraries set the same value before every launch: only the first one crosses. */
static bool og_attribute_is(const struct og_attrs *a, unsigned attribute, int value)
{
    return a && attribute < OG_ATTRS && (atomic_load_explicit(&a->set, memory_order_acquire) >> attribute & 1) &&
           atomic_load_explicit(&a->wanted[attribute], memory_order_relaxed) == value;
}

static CUresult og_attribute_set(uint64_t handle, unsigned attribute, int value, int device)
{
    struct og_entry *e = og_entry(handle);
    int at = device < 0 ? og_self()->device : device;
    struct og_attrs *a = NULL;
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    if (!e)
        return CUDA_ERROR_INVALID_HANDLE;
    if (at >= 0 && at < og_nr_devices())
        a = og_attrs(e, at);
    if (og_attribute_is(a, attribute, value))
        return CUDA_SUCCESS;
    r = og_current() ? og_sync_context(false) : CUDA_SUCCESS;
    if (r == CUDA_SUCCESS)
        r = og_send_orion_function_set(handle, attribute, device, value);
    og_entry_changed(e);
    if (r == CUDA_SUCCESS && a && attribute < OG_ATTRS) {
        atomic_store_explicit(&a->wanted[attribute], value, memory_order_relaxed);
        atomic_fetch_or_explicit(&a->set, 1u << attribute, memory_order_release);
    }
    return r;
}

OG_EXPORT CUresult cuFuncGetAttribute(int *pi, CUfunction_attribute attrib, CUfunction hfunc)
{
    return og_attribute_get(pi, attrib, (uintptr_t)hfunc, -1);
}

OG_EXPORT CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value)
{
    return og_attribute_set((uintptr_t)hfunc, attrib, value, -1);
}

OG_EXPORT CUresult cuKernelGetAttribute(int *pi, CUfunction_attribute attrib, CUkernel kernel, CUdevice dev)
{
    if (dev < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    return og_attribute_get(pi, attrib, (uintptr_t)kernel, dev);
}

OG_EXPORT CUresult cuKernelSetAttribute(CUfunction_attribute attrib, int val, CUkernel kernel, CUdevice dev)
{
    if (dev < 0 || dev >= og_nr_devices())
        return CUDA_ERROR_INVALID_DEVICE;
    return og_attribute_set((uintptr_t)kernel, attrib, val, dev);
}

/* `what` 0: cache preference, 1: shared memory banks. */
static CUresult og_cache_set(uint64_t handle, unsigned what, unsigned config, int device)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS)
        return r;
    return og_entry(handle) ? og_send_orion_function_cache(handle, what, config, device) : CUDA_ERROR_INVALID_HANDLE;
}

OG_EXPORT CUresult cuFuncSetCacheConfig(CUfunction hfunc, CUfunc_cache config)
{
    return og_cache_set((uintptr_t)hfunc, 0, config, -1);
}

OG_EXPORT CUresult cuFuncSetSharedMemConfig(CUfunction hfunc, CUsharedconfig config)
{
    return og_cache_set((uintptr_t)hfunc, 1, config, -1);
}

OG_EXPORT CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev)
{
    if (dev < 0 || dev >= og_nr_devices())
        return CUDA_ERROR_INVALID_DEVICE;
    return og_cache_set((uintptr_t)kernel, 0, config, dev);
}
