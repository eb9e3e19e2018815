/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual memory management: reservations, physical allocations booked until they are unmapped and released. */
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "gen/checks.h"

#define MAX_ACCESS 32u
/* Where reservations go that name no address: inside the window that the guest keeps free. */
#define HINT_FIRST 0x2a1000000000ull
#define HINT_LAST 0x2aa000000000ull
#define HINT_ALIGN (2ull << 20)

struct reservation {
    uint64_t ptr, bytes;
    struct reservation *next;
};
struct memory { /* a physical allocation */
    uint64_t bytes;
    int device;
    unsigned refs; /* the handle, and each mapping */
};
struct mapping {
    uint64_t ptr, bytes;
    struct memory *memory;
    struct mapping *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct reservation *reservations;
static struct mapping *mappings;
static uint64_t next_hint = HINT_FIRST;

static bool inside(uint64_t ptr, uint64_t bytes, uint64_t start, uint64_t size)
{
    return ptr >= start && ptr - start <= size && bytes <= size - (ptr - start);
}

bool oh_reservation_find(uint64_t ptr, uint64_t *start, uint64_t *bytes)
{
    struct reservation *r;

    pthread_mutex_lock(&lock);
    for (r = reservations; r && !inside(ptr, 1, r->ptr, r->bytes); r = r->next)
        ;
    if (r) {
        *start = r->ptr;
        *bytes = r->bytes;
    }
    pthread_mutex_unlock(&lock);
    return r != NULL;
}

static bool reserved(uint64_t ptr, uint64_t bytes)
{
    uint64_t start, size;

    return bytes && oh_reservation_find(ptr, &start, &size) && inside(ptr, bytes, start, size);
}

static uint64_t hint(uint64_t size, uint64_t alignment)
{
    uint64_t align = alignment > HINT_ALIGN ? alignment : HINT_ALIGN, at;

    if (align & (align - 1) || size > HINT_LAST - HINT_FIRST)
        return 0;
    pthread_mutex_lock(&lock);
    at = (next_hint + align - 1) & ~(align - 1);
    if (at + size > HINT_LAST)
        at = HINT_FIRST;
    next_hint = at + size + HINT_ALIGN;
    pthread_mutex_unlock(&lock);
    return at;
}

CUresult oh_cuMemAddressReserve(struct oh_twin *t, const struct ow_cuMemAddressReserve_in *in, uint32_t bytes,
                                struct ow_cuMemAddressReserve_out *out, uint32_t *out_bytes)
{
    struct reservation *r = calloc(1, sizeof(*r));
    uint64_t want = in->addr ? in->addr : hint(in->size, in->alignment);
    CUdeviceptr p = 0;
    CUresult result;

    (void)t;
    (void)bytes;
    if (!r)
        return CUDA_ERROR_OUT_OF_MEMORY;
    result = OH_CALL(cuMemAddressReserve, &p, in->size, in->alignment, want, in->flags);
    if (result != CUDA_SUCCESS && !in->addr)
        result = OH_CALL(cuMemAddressReserve, &p, in->size, in->alignment, 0, in->flags);
    if (result != CUDA_SUCCESS) {
        free(r);
        return result;
    }
    r->ptr = p;
    r->bytes = in->size;
    pthread_mutex_lock(&lock);
    r->next = reservations;
    reservations = r;
    pthread_mutex_unlock(&lock);
    out->ptr = p;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

static bool is_mapped_locked(uint64_t ptr, uint64_t bytes)
{
    for (struct mapping *m = mappings; m; m = m->next)
        if (inside(m->ptr, m->bytes, ptr, bytes))
            return true;
    return false;
}

CUresult oh_cuMemAddressFree(struct oh_twin *t, const struct ow_cuMemAddressFree_in *in, uint32_t bytes,
                             struct ow_cuMemAddressFree_out *out, uint32_t *out_bytes)
{
    struct reservation **at, *r = NULL;
    CUresult result;

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    pthread_mutex_lock(&lock);
    for (at = &reservations; *at && (*at)->ptr != in->ptr; at = &(*at)->next)
        ;
    if (*at && (*at)->bytes == in->size && !is_mapped_locked(in->ptr, in->size)) {
        r = *at;
        *at = r->next;
    }
    pthread_mutex_unlock(&lock);
    if (!r)
        return CUDA_ERROR_INVALID_VALUE;
    result = OH_CALL(cuMemAddressFree, in->ptr, in->size);
    if (result == CUDA_SUCCESS) {
        free(r);
        return result;
    }
    pthread_mutex_lock(&lock);
    r->next = reservations;
    reservations = r;
    pthread_mutex_unlock(&lock);
    return result;
}

/* The properties with the physical card in them, and nothing that names memory or handles of ours. */
static CUresult prop_of(const void *data, uint32_t bytes, CUmemAllocationProp *prop, int *device)
{
    if (bytes < sizeof(*prop))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(prop, data, sizeof(*prop));
    if (prop->requestedHandleTypes || prop->location.type != 1)
        return CUDA_ERROR_NOT_SUPPORTED; /* memory for other processes, or of the host */
    prop->win32HandleMetaData = NULL;
    prop->allocFlags.gpuDirectRDMACapable = 0;
    *device = prop->location.id;
    return oh_ordinal(*device, &prop->location.id);
}

CUresult oh_cuMemGetAllocationGranularity(struct oh_twin *t, const struct ow_cuMemGetAllocationGranularity_in *in,
                                          uint32_t bytes, struct ow_cuMemGetAllocationGranularity_out *out,
                                          uint32_t *out_bytes)
{
    CUmemAllocationProp prop;
    size_t granularity = 0;
    int device;
    CUresult r = prop_of(in + 1, bytes - (uint32_t)sizeof(*in), &prop, &device);

    (void)t;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuMemGetAllocationGranularity, &granularity, &prop, in->option);
    if (r != CUDA_SUCCESS)
        return r;
    out->granularity = granularity;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

static void put_locked(struct memory *m)
{
    if (--m->refs > 0)
        return;
    oh_unbook(m->device, m->bytes);
    free(m);
}

CUresult oh_cuMemCreate(struct oh_twin *t, const struct ow_cuMemCreate_in *in, uint32_t bytes,
                        struct ow_cuMemCreate_out *out, uint32_t *out_bytes)
{
    CUmemGenericAllocationHandle handle = 0;
    CUmemAllocationProp prop;
    struct memory *m;
    int device;
    CUresult r = prop_of(in + 1, bytes - (uint32_t)sizeof(*in), &prop, &device);

    (void)t;
    (void)out;
    (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = oh_book(device, in->size);
    if (r != CUDA_SUCCESS)
        return r;
    m = calloc(1, sizeof(*m));
    r = m ? OH_CALL(cuMemCreate, &handle, in->size, &prop, in->flags) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r == CUDA_SUCCESS) {
        r = oh_put(OW_KIND_MEM_ALLOCATION, in->handle, (void *)(uintptr_t)handle);
        if (r != CUDA_SUCCESS)
            OH_CALL(cuMemRelease, handle);
    }
    if (r != CUDA_SUCCESS) {
        oh_unbook(device, in->size);
        free(m);
        return r;
    }
    *m = (struct memory){ .bytes = in->size, .device = device, .refs = 1 };
    oh_set_data(OW_KIND_MEM_ALLOCATION, in->handle, m);
    return CUDA_SUCCESS;
}

CUresult oh_cuMemRelease(struct oh_twin *t, const struct ow_cuMemRelease_in *in, uint32_t bytes,
                         struct ow_cuMemRelease_out *out, uint32_t *out_bytes)
{
    struct memory *m;
    void *handle;
    CUresult r = oh_get(OW_KIND_MEM_ALLOCATION, in->handle, &handle);

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuMemRelease, (CUmemGenericAllocationHandle)(uintptr_t)handle);
    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&lock);
    m = oh_data(OW_KIND_MEM_ALLOCATION, in->handle);
    oh_del(OW_KIND_MEM_ALLOCATION, in->handle);
    if (m)
        put_locked(m);
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

/* The allocation behind the client's number, with a reference; NULL: none. */
static struct memory *memory_get(uint64_t id, void **handle)
{
    struct memory *m = NULL;

    pthread_mutex_lock(&lock); /* oh_cuMemRelease drops number and object under it */
    if (oh_get(OW_KIND_MEM_ALLOCATION, id, handle) == CUDA_SUCCESS)
        m = oh_data(OW_KIND_MEM_ALLOCATION, id);
    if (m)
        m->refs++;
    pthread_mutex_unlock(&lock);
    return m;
}

static void memory_put(struct memory *m)
{
    pthread_mutex_lock(&lock);
    put_locked(m);
    pthread_mutex_unlock(&lock);
}

void *oh_memory_hold(uint64_t id, void **handle)
{
    return memory_get(id, handle);
}

void oh_memory_let_go(void *memory)
{
    memory_put(memory);
}

/* Takes over the reference. */
static void mapping_add(struct mapping *map, uint64_t ptr, uint64_t bytes, struct memory *m)
{
    *map = (struct mapping){ .ptr = ptr, .bytes = bytes, .memory = m };
    pthread_mutex_lock(&lock);
    map->next = mappings;
    mappings = map;
    pthread_mutex_unlock(&lock);
    oh_ledger_add(ptr, bytes, m->device, 0); /* booked when it was created */
}

CUresult oh_cuMemMap(struct oh_twin *t, const struct ow_cuMemMap_in *in, uint32_t bytes, struct ow_cuMemMap_out *out,
                     uint32_t *out_bytes)
{
    struct mapping *map = NULL;
    void *handle;
    struct memory *m = memory_get(in->handle, &handle);
    CUresult r = CUDA_ERROR_INVALID_VALUE;

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (!m)
        return r;
    if (reserved(in->ptr, in->size) && inside(in->offset, in->size, 0, m->bytes)) {
        map = calloc(1, sizeof(*map));
        r = map ? OH_CALL(cuMemMap, in->ptr, in->size, in->offset, (CUmemGenericAllocationHandle)(uintptr_t)handle,
                                  in->flags)
                : CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r == CUDA_SUCCESS) {
        mapping_add(map, in->ptr, in->size, m);
    } else {
        free(map);
        memory_put(m);
    }
    return r;
}

CUresult oh_cuMemUnmap(struct oh_twin *t, const struct ow_cuMemUnmap_in *in, uint32_t bytes,
                       struct ow_cuMemUnmap_out *out, uint32_t *out_bytes)
{
    struct mapping **at;
    CUresult r;

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (!reserved(in->ptr, in->size))
        return CUDA_ERROR_INVALID_VALUE;
    r = OH_CALL(cuMemUnmap, in->ptr, in->size); /* the driver refuses a range that cuts a mapping */
    if (r != CUDA_SUCCESS)
        return r;
    pthread_mutex_lock(&lock);
    for (at = &mappings; *at;) {
        struct mapping *m = *at;

        if (!inside(m->ptr, m->bytes, in->ptr, in->size)) {
            at = &m->next;
            continue;
        }
        *at = m->next;
        oh_ledger_del(m->ptr);
        put_locked(m->memory);
        free(m);
    }
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult oh_cuMemSetAccess(struct oh_twin *t, const struct ow_cuMemSetAccess_in *in, uint32_t bytes,
                           struct ow_cuMemSetAccess_out *out, uint32_t *out_bytes)
{
    CUmemAccessDesc access[MAX_ACCESS];
    CUresult r = CUDA_SUCCESS;

    (void)t;
    (void)out;
    (void)out_bytes;
    if (in->count == 0 || in->count > MAX_ACCESS || bytes < sizeof(*in) + in->count * sizeof(access[0]) ||
        !reserved(in->ptr, in->size))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(access, in + 1, in->count * sizeof(access[0]));
    for (uint64_t i = 0; i < in->count && r == CUDA_SUCCESS; i++)
        r = access[i].location.type == 1 ? oh_ordinal(access[i].location.id, &access[i].location.id)
                                         : CUDA_ERROR_NOT_SUPPORTED;
    return r == CUDA_SUCCESS ? OH_CALL(cuMemSetAccess, in->ptr, in->size, access, in->count) : r;
}

CUresult oh_cuMemGetAccess(struct oh_twin *t, const struct ow_cuMemGetAccess_in *in, uint32_t bytes,
                           struct ow_cuMemGetAccess_out *out, uint32_t *out_bytes)
{
    CUmemLocation location;
    unsigned long long flags = 0;
    CUresult r;

    (void)t;
    if (bytes < sizeof(*in) + sizeof(location) || !reserved(in->ptr, 1))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(&location, in + 1, sizeof(location));
    r = location.type == 1 ? oh_ordinal(location.id, &location.id) : CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuMemGetAccess, &flags, &location, in->ptr);
    if (r != CUDA_SUCCESS)
        return r;
    out->flags = flags;
    *out_bytes = sizeof(*out);
    return CUDA_SUCCESS;
}

CUresult oh_cuMemGetAllocationPropertiesFromHandle(struct oh_twin *t,
                                                   const struct ow_cuMemGetAllocationPropertiesFromHandle_in *in,
                                                   uint32_t bytes,
                                                   struct ow_cuMemGetAllocationPropertiesFromHandle_out *out,
                                                   uint32_t *out_bytes)
{
    CUmemAllocationProp prop;
    struct memory *m;
    void *handle;
    CUresult r = oh_get(OW_KIND_MEM_ALLOCATION, in->handle, &handle);

    (void)t;
    (void)bytes;
    if (r == CUDA_SUCCESS)
        r = OH_CALL(cuMemGetAllocationPropertiesFromHandle, &prop, (CUmemGenericAllocationHandle)(uintptr_t)handle);
    if (r != CUDA_SUCCESS)
        return r;
    m = oh_data(OW_KIND_MEM_ALLOCATION, in->handle);
    prop.location.id = m ? m->device : 0;
    out->prop_bytes = sizeof(prop);
    memcpy(out + 1, &prop, sizeof(prop));
    *out_bytes = (uint32_t)(sizeof(*out) + sizeof(prop));
    return CUDA_SUCCESS;
}
