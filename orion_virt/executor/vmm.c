/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual memory management: reservations, physical allocations booked until they are unmapped and released. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"
#include "gen/checks.h"
#include "share.h"

#define MAX_ACCESS 32u
#define BY_DESCRIPTOR 1u /* CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR */
/* Where reservations go that name no address: inside the window that the guest keeps free. */
#define HINT_FIRST 0x2a1000000000ull
#define HINT_LAST 0x2aa000000000ull
#define HINT_ALIGN (2ull << 20)

struct reservation {
    uint64_t ptr, bytes;
    struct reservation *next;
};
struct memory { /* a physical allocation */
    CUmemGenericAllocationHandle real;
    uint64_t bytes;
    int device;
    bool imported;    /* booked by the process that made it */
    unsigned refs;    /* times that the client holds the handle, and each mapping */
    unsigned handles; /* the former */
    uint64_t id;      /* the client's number for it, while `handles` */
    struct oh_share *share;
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
    if (prop->requestedHandleTypes & ~BY_DESCRIPTOR || (prop->requestedHandleTypes && oh_config.region_fd < 0))
        return CUDA_ERROR_NOT_SUPPORTED; /* fabric and other systems' handles; over TCP nothing can be shared */
    prop->win32HandleMetaData = NULL;
    prop->allocFlags.gpuDirectRDMACapable = 0;
    *device = prop->location.id;
    if (prop->location.type != 1) /* the host: its granularity may be asked for */
        return CUDA_SUCCESS;
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

static void memory_put(struct memory *m)
{
    bool last;

    pthread_mutex_lock(&lock);
    last = --m->refs == 0;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    if (!m->imported)
        oh_unbook(m->device, m->bytes);
    if (m->share)
        oh_share_put(m->share, !m->imported);
    free(m);
}

/* Names an allocation that nobody else knows yet; takes both over, also on error. */
static CUresult memory_name(struct memory *m, uint64_t id)
{
    CUresult r = oh_put(OW_KIND_MEM_ALLOCATION, id, (void *)(uintptr_t)m->real);

    m->refs = m->handles = 1;
    m->id = id;
    if (r == CUDA_SUCCESS) {
        oh_set_data(OW_KIND_MEM_ALLOCATION, id, m);
        return CUDA_SUCCESS;
    }
    OH_CALL(cuMemRelease, m->real);
    memory_put(m);
    return r;
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
    if (r == CUDA_SUCCESS && prop.location.type != 1)
        r = CUDA_ERROR_NOT_SUPPORTED; /* the guest could not reach memory of the host */
    if (r == CUDA_SUCCESS)
        r = oh_book(device, in->size);
    if (r != CUDA_SUCCESS)
        return r;
    m = calloc(1, sizeof(*m));
    r = m ? OH_CALL(cuMemCreate, &handle, in->size, &prop, in->flags) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r != CUDA_SUCCESS) {
        oh_unbook(device, in->size);
        free(m);
        return r;
    }
    *m = (struct memory){ .real = handle, .bytes = in->size, .device = device };
    return memory_name(m, in->handle);
}

/* The allocation behind the client's number, with a reference; NULL: none. */
static struct memory *memory_get(uint64_t id)
{
    struct memory *m = NULL;
    void *handle;

    pthread_mutex_lock(&lock); /* oh_cuMemRelease drops number and object under it */
    if (oh_get(OW_KIND_MEM_ALLOCATION, id, &handle) == CUDA_SUCCESS)
        m = oh_data(OW_KIND_MEM_ALLOCATION, id);
    if (m)
        m->refs++;
    pthread_mutex_unlock(&lock);
    return m;
}

CUresult oh_cuMemRelease(struct oh_twin *t, const struct ow_cuMemRelease_in *in, uint32_t bytes,
                         struct ow_cuMemRelease_out *out, uint32_t *out_bytes)
{
    struct memory *m = memory_get(in->handle);
    bool held;
    CUresult r;

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (!m)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    held = m->handles > 0; /* else another thread released it since */
    if (held && --m->handles == 0)
        oh_del(OW_KIND_MEM_ALLOCATION, in->handle);
    pthread_mutex_unlock(&lock);
    r = held ? OH_CALL(cuMemRelease, m->real) : CUDA_ERROR_INVALID_VALUE;
    if (held)
        memory_put(m);
    memory_put(m);
    return r;
}

void *oh_memory_hold(uint64_t id, void **handle)
{
    struct memory *m = memory_get(id);

    *handle = m ? (void *)(uintptr_t)m->real : NULL;
    return m;
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
    struct memory *m = memory_get(in->handle);
    CUresult r = CUDA_ERROR_INVALID_VALUE;

    (void)t;
    (void)bytes;
    (void)out;
    (void)out_bytes;
    if (!m)
        return r;
    if (reserved(in->ptr, in->size) && inside(in->offset, in->size, 0, m->bytes)) {
        map = calloc(1, sizeof(*map));
        r = map ? OH_CALL(cuMemMap, in->ptr, in->size, in->offset, m->real, in->flags) : CUDA_ERROR_OUT_OF_MEMORY;
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
    struct mapping **at, *gone = NULL;
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
        m->next = gone;
        gone = m;
    }
    pthread_mutex_unlock(&lock);
    for (struct mapping *next; gone; gone = next) {
        next = gone->next;
        memory_put(gone->memory);
        free(gone);
    }
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
    struct memory *m = memory_get(in->handle);
    CUresult r = CUDA_ERROR_INVALID_VALUE;

    (void)t;
    (void)bytes;
    if (!m)
        return r;
    r = OH_CALL(cuMemGetAllocationPropertiesFromHandle, &prop, m->real);
    prop.location.id = m->device;
    memory_put(m);
    if (r != CUDA_SUCCESS)
        return r;
    out->prop_bytes = sizeof(prop);
    memcpy(out + 1, &prop, sizeof(prop));
    *out_bytes = (uint32_t)(sizeof(*out) + sizeof(prop));
    return CUDA_SUCCESS;
}

/* ---- allocations of several references, and of other processes ---- */

CUresult oh_orion_retain(struct oh_twin *t, const struct ow_orion_retain_in *in, uint32_t bytes,
                         struct ow_orion_retain_out *out, uint32_t *out_bytes)
{
    CUmemGenericAllocationHandle real = 0;
    struct memory *m = NULL;
    CUresult r = CUDA_SUCCESS;

    (void)t;
    (void)bytes;
    pthread_mutex_lock(&lock);
    for (struct mapping *map = mappings; map && !m; map = map->next)
        if (inside(in->addr, 1, map->ptr, map->bytes))
            m = map->memory;
    if (m)
        r = OH_CALL(cuMemRetainAllocationHandle, &real, (void *)(uintptr_t)in->addr);
    if (m && r == CUDA_SUCCESS && m->handles == 0) {
        r = oh_put(OW_KIND_MEM_ALLOCATION, in->handle, (void *)(uintptr_t)real);
        m->id = in->handle;
        if (r == CUDA_SUCCESS)
            oh_set_data(OW_KIND_MEM_ALLOCATION, in->handle, m);
        else
            OH_CALL(cuMemRelease, real);
    }
    if (m && r == CUDA_SUCCESS) {
        m->real = real;
        m->refs++;
        m->handles++;
        out->held = m->id;
    }
    pthread_mutex_unlock(&lock);
    *out_bytes = sizeof(*out);
    return m ? r : CUDA_ERROR_INVALID_VALUE;
}

/* Shows an allocation to other processes, once. */
static CUresult show(struct memory *m, unsigned long long flags, struct oh_share **share)
{
    struct oh_share as = { .kind = OC_SHARE_ALLOCATION, .bytes = m->bytes, .device = m->device };
    int fd = -1;
    CUresult r = OH_CALL(cuMemExportToShareableHandle, &fd, m->real, BY_DESCRIPTOR, flags);

    if (r != CUDA_SUCCESS)
        return r;
    r = oh_share_new(&as, fd, share);
    close(fd);
    return r;
}

CUresult oh_vmm_export(uint64_t id, unsigned long long flags, uint8_t token[OC_TOKEN_BYTES])
{
    static pthread_mutex_t showing = PTHREAD_MUTEX_INITIALIZER;
    struct memory *m = memory_get(id);
    CUresult r = CUDA_SUCCESS;

    if (!m)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&showing);
    if (!m->share)
        r = show(m, flags, &m->share);
    else if (flags)
        r = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&showing);
    if (r == CUDA_SUCCESS) /* as long as the allocation is, and that is ours for now */
        memcpy(token, m->share->token, OC_TOKEN_BYTES);
    memory_put(m);
    return r;
}

/* The client's device that memory lies on; of a card that it has no part of, the calling thread's. */
static int device_of(struct oh_twin *t, CUmemGenericAllocationHandle real)
{
    CUmemAllocationProp prop = { 0 };
    int device = t->device < 0 ? 0 : t->device;

    if (OH_CALL(cuMemGetAllocationPropertiesFromHandle, &prop, real) != CUDA_SUCCESS ||
        oh_devices[device].ordinal == prop.location.id)
        return device;
    for (uint32_t i = 0; i < oh_nr_devices; i++)
        if (oh_devices[i].ordinal == prop.location.id)
            return (int)i;
    return device;
}

CUresult oh_vmm_import(struct oh_twin *t, uint64_t id, const uint8_t *token)
{
    CUmemGenericAllocationHandle real = 0;
    struct oh_share *share;
    struct memory *m = NULL;
    int fd;
    CUresult r = oh_share_find(OC_SHARE_ALLOCATION, token, t->device < 0 ? 0 : t->device, &fd, &share);

    if (r != CUDA_SUCCESS)
        return r;
    r = OH_CALL(cuMemImportFromShareableHandle, &real, (void *)(intptr_t)fd, BY_DESCRIPTOR);
    close(fd);
    if (r == CUDA_SUCCESS) {
        m = calloc(1, sizeof(*m));
        if (!m)
            OH_CALL(cuMemRelease, real);
    }
    if (!m) {
        oh_share_put(share, false);
        return r != CUDA_SUCCESS ? r : CUDA_ERROR_OUT_OF_MEMORY;
    }
    *m = (struct memory){ .real = real, .bytes = share->bytes, .device = device_of(t, real), .imported = true,
                          .share = share };
    return memory_name(m, id);
}
