/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pools, and allocation and release in stream order. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

#define STEP (32ull << 20) /* a card's pools grow by so much */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t sums = PTHREAD_MUTEX_INITIALIZER; /* what pools take and keep; taken behind all others */
static struct CUmemPoolHandle_st *pools;

/* The smaller ones where the driver takes nothing for itself (context_bytes). */
static uint64_t steps(const struct CUmemPoolHandle_st *pool, uint64_t bytes)
{
    uint64_t step = pool->device->context_bytes ? STEP : SIM_GRANULE;

    return (bytes + step - 1) / step * step;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

bool sim_pool_book(struct CUmemPoolHandle_st *pool, uint64_t bytes)
{
    uint64_t more;
    bool ok;

    pthread_mutex_lock(&sums);
    more = bytes > pool->kept ? steps(pool, bytes - pool->kept) : 0;
    ok = !more || sim_space_book(pool->device, more);
    if (ok) {
        pool->taken += bytes;
        pool->high = most(pool->high, pool->taken);
        pool->kept += more - bytes;
        pool->reserved_high = most(pool->reserved_high, pool->taken + pool->kept);
    }
    pthread_mutex_unlock(&sums);
    return ok;
}

static void release_locked(struct CUmemPoolHandle_st *pool, uint64_t keep)
{
    uint64_t reserved = pool->taken + pool->kept, left = most(steps(pool, pool->taken), keep);

    if (pool->ended)
        left = pool->taken;
    if (reserved <= left)
        return;
    pool->kept = left - pool->taken;
    sim_space_unbook(pool->device, reserved - left);
}

void sim_pool_unbook(struct CUmemPoolHandle_st *pool, uint64_t bytes)
{
    pthread_mutex_lock(&sums);
    pool->taken -= bytes;
    pool->kept += bytes;
    if (pool->ended)
        release_locked(pool, 0);
    pthread_mutex_unlock(&sums);
}

void sim_pools_release(struct sim_device *device, bool all)
{
    pthread_mutex_lock(&sums);
    for (struct CUmemPoolHandle_st *p = pools; p; p = p->next)
        if (p->device == device)
            release_locked(p, all ? 0 : p->threshold);
    pthread_mutex_unlock(&sums);
}

static struct CUmemPoolHandle_st *pool_new(struct sim_device *device, bool built_in)
{
    struct CUmemPoolHandle_st *p = calloc(1, sizeof(*p));

    if (!p || !sim_register(p, SIM_POOL)) {
        free(p);
        return NULL;
    }
    p->device = device;
    p->built_in = built_in;
    p->reuse[1] = p->reuse[2] = p->reuse[3] = 1;
    pthread_mutex_lock(&sums);
    p->next = pools;
    pools = p;
    pthread_mutex_unlock(&sums);
    return p;
}

SIM_API CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice dev)
{
    struct sim_device *d = sim_device(dev);

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!pool || !d)
        return pool ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (!d->default_pool)
        d->default_pool = pool_new(d, true);
    if (!d->pool)
        d->pool = d->default_pool;
    *pool = d->default_pool;
    pthread_mutex_unlock(&lock);
    return *pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

SIM_API CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice dev)
{
    CUresult r = cuDeviceGetDefaultMemPool(pool, dev);

    if (!r)
        *pool = sim_device(dev)->pool;
    return r;
}

SIM_API CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool)
{
    if (!sim_device(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (!sim_valid(pool, SIM_POOL) || pool->device != sim_device(dev) || pool->imported)
        return CUDA_ERROR_INVALID_VALUE;
    sim_device(dev)->pool = pool;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props)
{
    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!pool || !props || !sim_device(props->location.id))
        return CUDA_ERROR_INVALID_VALUE;
    if (props->handleTypes & ~1u) /* descriptors only */
        return CUDA_ERROR_NOT_SUPPORTED;
    *pool = pool_new(sim_device(props->location.id), false);
    if (!*pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*pool)->types = props->handleTypes;
    return CUDA_SUCCESS;
}

/* What the descriptor of an exported pool holds. Its memory comes pointer by pointer: see ipc.c. */
struct pool_file {
    uint64_t magic;
    int32_t device, reserved;
};
#define POOL_MAGIC 0x6c6f6f706d697301ull

SIM_API CUresult cuMemPoolExportToShareableHandle(void *to, CUmemoryPool pool, CUmemAllocationHandleType type,
                                                  unsigned long long flags)
{
    struct pool_file file = { .magic = POOL_MAGIC };
    int fd;

    if (!to || !sim_valid(pool, SIM_POOL) || flags || type != 1 || !(pool->types & 1u) || pool->imported)
        return CUDA_ERROR_INVALID_VALUE;
    fd = memfd_create("orion-sim-pool", MFD_CLOEXEC);
    file.device = pool->device->ordinal;
    if (fd < 0 || write(fd, &file, sizeof(file)) != sizeof(file)) {
        close(fd);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *(int *)to = fd;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool, void *from, CUmemAllocationHandleType type,
                                                    unsigned long long flags)
{
    struct pool_file file;

    if (!sim_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!pool || flags || type != 1 || pread((int)(intptr_t)from, &file, sizeof(file), 0) != sizeof(file) ||
        file.magic != POOL_MAGIC || !sim_device(file.device))
        return CUDA_ERROR_INVALID_VALUE;
    *pool = pool_new(sim_device(file.device), false);
    if (!*pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    (*pool)->imported = true;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    struct CUmemPoolHandle_st **at;

    if (!sim_valid(pool, SIM_POOL) || pool->built_in)
        return CUDA_ERROR_INVALID_VALUE;
    if (pool->device->pool == pool)
        pool->device->pool = pool->device->default_pool;
    sim_unregister(pool); /* its allocations live on, and point here: the struct stays */
    pthread_mutex_lock(&sums);
    for (at = &pools; *at && *at != pool; at = &(*at)->next)
        ;
    if (*at) /* no other thread destroys it too */
        *at = pool->next;
    pool->ended = true;
    release_locked(pool, 0);
    pthread_mutex_unlock(&sums);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    if (!sim_valid(pool, SIM_POOL))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&sums);
    release_locked(pool, keep);
    pthread_mutex_unlock(&sums);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute what, void *value)
{
    if (!sim_valid(pool, SIM_POOL) || !value || (int)what < 1 || (int)what > 8)
        return CUDA_ERROR_INVALID_VALUE;
    if ((int)what <= 3)
        pool->reuse[what] = *(int *)value;
    else if (what == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
        pool->threshold = *(uint64_t *)value;
    else if (what == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        pool->reserved_high = pool->taken + pool->kept;
    else if (what == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        pool->high = pool->taken;
    else /* what is reserved and used now is read only */
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute what, void *value)
{
    uint64_t *to = value;

    if (!sim_valid(pool, SIM_POOL) || !value || (int)what < 1 || (int)what > 8)
        return CUDA_ERROR_INVALID_VALUE;
    switch (what) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: *to = pool->threshold; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: *to = pool->taken + pool->kept; break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: *to = pool->reserved_high; break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT: *to = pool->taken; break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH: *to = pool->high; break;
    default: *(int *)value = pool->reuse[what]; break;
    }
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *map, size_t nr)
{
    return sim_valid(pool, SIM_POOL) && (map || !nr) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

SIM_API CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool pool, CUmemLocation *location)
{
    if (!flags || !location || !sim_valid(pool, SIM_POOL))
        return CUDA_ERROR_INVALID_VALUE;
    *flags = (CUmemAccess_flags)3; /* all memory is the host's */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAllocFromPoolAsync(CUdeviceptr *p, size_t bytes, CUmemoryPool pool, CUstream stream)
{
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);
    uint64_t at;

    if (r)
        return r;
    if (!p || !bytes || !sim_valid(pool, SIM_POOL) || pool->imported) /* another process allocates from that */
        return CUDA_ERROR_INVALID_VALUE;
    if (s->capture)
        return sim_graph_memory_capture(s, bytes, p);
    r = sim_space_alloc_from(pool, s->ctx, bytes, &at);
    if (r == CUDA_ERROR_OUT_OF_MEMORY && !sim_context_wait(s->ctx)) /* frees may be on their way, and other pools keep memory */
        r = sim_space_alloc_from(pool, s->ctx, bytes, &at);
    if (r)
        return r;
    *p = at;
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemAllocAsync(CUdeviceptr *p, size_t bytes, CUstream stream)
{
    struct CUstream_st *s;
    CUmemoryPool pool;
    CUresult r = sim_stream(stream, &s);

    if (!r)
        r = cuDeviceGetMemPool(&pool, s->ctx->device->ordinal);
    return r ? r : cuMemAllocFromPoolAsync(p, bytes, pool, stream);
}

SIM_API CUresult cuMemFreeAsync(CUdeviceptr p, CUstream stream)
{
    struct sim_work work = { .kind = SIM_WORK_FREE, .address = p };
    struct sim_range range;
    struct CUstream_st *s;
    CUresult r = sim_stream(stream, &s);

    if (r || !p)
        return r;
    work.alloc = sim_alloc_find(p);
    if (work.alloc)
        return sim_graph_memory_free(s, &work);
    if (!sim_space_find(p, &range) || range.start != p ||
        (range.kind != SIM_MEM_POOL && range.kind != SIM_MEM_DEVICE && range.kind != SIM_MEM_IMPORTED))
        return CUDA_ERROR_INVALID_VALUE;
    return sim_submit(s, &work);
}
