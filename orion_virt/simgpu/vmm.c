/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual memory management: reservations, physical memory (a memfd) and mappings of it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim.h"

struct physical {
    int fd, refs;                 /* the handle's and one for each mapping */
    int handles;                  /* times that the application holds the handle */
    size_t bytes;
    struct sim_device *device;
    CUmemAllocationProp prop;
    bool imported;                /* booked by the process that made it */
};
/* What lies behind the memory in its file, for a process that imports it. */
struct trailer {
    uint64_t magic, bytes;
    CUmemAllocationProp prop;
};
#define TRAILER_MAGIC 0x6c69617274756d6dull
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct physical *physical(CUmemGenericAllocationHandle handle)
{
    struct physical *p = (struct physical *)(uintptr_t)handle;

    return sim_valid(p, SIM_VMM) ? p : NULL;
}

static void put(struct physical *p)
{
    pthread_mutex_lock(&lock);
    bool last = !--p->refs;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    if (!p->imported)
        sim_space_unbook(p->device, p->bytes);
    close(p->fd);
    free(p);
}

SIM_API CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
                                               CUmemAllocationGranularity_flags option)
{
    (void)option;
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!granularity || !prop || (prop->location.type == 1 && !sim_device(prop->location.id)))
        return CUDA_ERROR_INVALID_VALUE;
    *granularity = SIM_GRANULE;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAddressReserve(CUdeviceptr *p, size_t bytes, size_t align, CUdeviceptr hint,
                                     unsigned long long flags)
{
    struct sim_range r = { .bytes = bytes, .kind = SIM_MEM_RESERVED, .mapped = bytes };
    CUresult result;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!p || !bytes || bytes % SIM_GRANULE || flags || align & (align - 1))
        return CUDA_ERROR_INVALID_VALUE;
    r.start = sim_space_reserve(bytes, align, hint);
    if (!r.start)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r.reservation = r.start;
    result = sim_space_add(&r);
    if (!result)
        *p = r.start;
    return result;
}

/* The piece that starts at `at`, if it is of `kind` and lies in [at, end). */
static bool piece(uint64_t at, uint64_t end, enum sim_memory kind, struct sim_range *r)
{
    return sim_space_find(at, r) && r->start == at && r->kind == kind && at + r->bytes <= end;
}

/* True when [at, at + bytes) is exactly some pieces of `kind`, side by side in one reservation. */
static bool pieces(uint64_t at, uint64_t bytes, enum sim_memory kind)
{
    uint64_t end = at + bytes, reservation = 0;
    struct sim_range r;

    for (uint64_t p = at; p < end; p += r.bytes) {
        if (!piece(p, end, kind, &r) || (p != at && r.reservation != reservation))
            return false;
        reservation = r.reservation;
    }
    return bytes > 0;
}

SIM_API CUresult cuMemAddressFree(CUdeviceptr p, size_t bytes)
{
    struct sim_range r;

    /* All of one reservation, and nothing is mapped in it. */
    if (!pieces(p, bytes, SIM_MEM_RESERVED) || !sim_space_find(p, &r) || r.reservation != p ||
        (sim_space_find(p + bytes, &r) && r.reservation == p))
        return CUDA_ERROR_INVALID_VALUE;
    for (uint64_t at = p; at < p + bytes && sim_space_find(at, &r); at += r.bytes)
        sim_space_del(at, SIM_MEM_RESERVED);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes, const CUmemAllocationProp *prop,
                             unsigned long long flags)
{
    struct sim_device *d = prop ? sim_device(prop->location.id) : NULL;
    struct physical *p;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!handle || !d || !bytes || bytes % SIM_GRANULE || flags || prop->location.type != 1)
        return CUDA_ERROR_INVALID_VALUE;
    if (prop->requestedHandleTypes & ~1u) /* descriptors only */
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!sim_space_book(d, bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    p = calloc(1, sizeof(*p));
    if (p)
        p->fd = memfd_create("orion-sim", MFD_CLOEXEC);
    struct trailer t = { .magic = TRAILER_MAGIC, .bytes = bytes, .prop = *prop };
    if (!p || p->fd < 0 || pwrite(p->fd, &t, sizeof(t), (off_t)bytes) != sizeof(t) || !sim_register(p, SIM_VMM)) {
        if (p && p->fd >= 0)
            close(p->fd);
        free(p);
        sim_space_unbook(d, bytes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    p->refs = p->handles = 1;
    p->bytes = bytes;
    p->device = d;
    p->prop = *prop;
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)p;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    struct physical *p = physical(handle);

    if (!p)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    bool last = !--p->handles;
    pthread_mutex_unlock(&lock);
    if (last)
        sim_unregister(p);
    put(p);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *at)
{
    struct physical *p;
    struct sim_range r;
    bool first;

    if (!handle || !sim_space_find((uint64_t)(uintptr_t)at, &r) || r.kind != SIM_MEM_MAPPED)
        return CUDA_ERROR_INVALID_VALUE;
    p = r.owner;
    pthread_mutex_lock(&lock);
    p->refs++;
    first = !p->handles++;
    pthread_mutex_unlock(&lock);
    if (first && !sim_register(p, SIM_VMM))
        return CUDA_ERROR_OUT_OF_MEMORY;
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)p;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemExportToShareableHandle(void *to, CUmemGenericAllocationHandle handle,
                                              CUmemAllocationHandleType type, unsigned long long flags)
{
    struct physical *p = physical(handle);
    int fd;

    if (!to || !p || flags || type != 1 || !(p->prop.requestedHandleTypes & 1u))
        return CUDA_ERROR_INVALID_VALUE;
    fd = fcntl(p->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *(int *)to = fd;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *from,
                                                CUmemAllocationHandleType type)
{
    int fd = (int)(intptr_t)from;
    struct trailer t;
    struct physical *p;
    struct stat st;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!handle || type != 1 || fstat(fd, &st) || st.st_size < (off_t)sizeof(t) ||
        pread(fd, &t, sizeof(t), st.st_size - (off_t)sizeof(t)) != sizeof(t) || t.magic != TRAILER_MAGIC ||
        (off_t)t.bytes != st.st_size - (off_t)sizeof(t) || !sim_device(t.prop.location.id))
        return CUDA_ERROR_INVALID_VALUE;
    p = calloc(1, sizeof(*p));
    if (p)
        *p = (struct physical){ .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0), .refs = 1, .handles = 1, .bytes = t.bytes,
                                .device = sim_device(t.prop.location.id), .prop = t.prop, .imported = true };
    if (!p || p->fd < 0 || !sim_register(p, SIM_VMM)) {
        free(p);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *handle = (CUmemGenericAllocationHandle)(uintptr_t)p;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemMap(CUdeviceptr at, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                          unsigned long long flags)
{
    struct physical *p = physical(handle);
    struct sim_range r;

    if (!p || flags || !bytes || bytes % SIM_GRANULE || offset || bytes > p->bytes || at % SIM_GRANULE)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_space_find(at, &r) || r.kind != SIM_MEM_RESERVED || at - r.start + bytes > r.bytes)
        return CUDA_ERROR_INVALID_VALUE;
    if (!sim_space_split(at) || !sim_space_split(at + bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct sim_range mapping = { .start = at, .bytes = bytes, .kind = SIM_MEM_MAPPED, .device = p->device, .owner = p,
                                 .mapped = bytes, .reservation = r.reservation };
    if (mmap((void *)(uintptr_t)at, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, p->fd, 0) == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    p->refs++;
    pthread_mutex_unlock(&lock);
    return sim_space_replace(at, &mapping) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemUnmap(CUdeviceptr at, size_t bytes)
{
    struct sim_range r;

    if (!pieces(at, bytes, SIM_MEM_MAPPED))
        return CUDA_ERROR_INVALID_VALUE;
    struct CUctx_st *ctx = sim_current();
    if (sim_context_valid(ctx))
        sim_context_wait(ctx);
    for (uint64_t p = at; p < at + bytes && sim_space_find(p, &r); p += r.bytes) {
        struct sim_range reserved = { .start = p, .bytes = r.bytes, .kind = SIM_MEM_RESERVED, .mapped = r.bytes,
                                      .reservation = r.reservation };
        mmap((void *)(uintptr_t)p, r.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        sim_space_replace(p, &reserved);
        put(r.owner);
    }
    return CUDA_SUCCESS;
}

static void set_access(struct sim_range *r, void *arg)
{
    r->access = *(int *)arg;
}

SIM_API CUresult cuMemSetAccess(CUdeviceptr at, size_t bytes, const CUmemAccessDesc *desc, size_t nr)
{
    struct sim_range r;
    int access = nr && desc ? (int)desc[0].flags : 0;

    if (!desc || !nr || !pieces(at, bytes, SIM_MEM_MAPPED))
        return CUDA_ERROR_INVALID_VALUE;
    mprotect((void *)(uintptr_t)at, bytes, access == 3 ? PROT_READ | PROT_WRITE : access ? PROT_READ : PROT_NONE);
    for (uint64_t p = at; p < at + bytes && sim_space_find(p, &r); p += r.bytes)
        sim_space_update(p, set_access, &access);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr at)
{
    struct sim_range r;

    if (!flags || !location || !sim_space_find(at, &r) || r.kind != SIM_MEM_MAPPED)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = (unsigned long long)r.access;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop, CUmemGenericAllocationHandle handle)
{
    struct physical *p = physical(handle);

    if (!prop || !p)
        return CUDA_ERROR_INVALID_VALUE;
    *prop = p->prop;
    return CUDA_SUCCESS;
}
