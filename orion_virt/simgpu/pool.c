/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pools, and allocation and release in stream order. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

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
    if (!sim_valid(pool, SIM_POOL) || pool->built_in)
        return CUDA_ERROR_INVALID_VALUE;
    if (pool->device->pool == pool)
        pool->device->pool = pool->device->default_pool;
    sim_unregister(pool); /* its allocations live on, and point here: the struct stays */
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    (void)keep;
    return sim_valid(pool, SIM_POOL) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE; /* nothing is held back */
}

SIM_API CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute what, void *value)
{
    if (!sim_valid(pool, SIM_POOL) || !value || (int)what < 1 || (int)what > 8)
        return CUDA_ERROR_INVALID_VALUE;
    if ((int)what <= 3)
        pool->reuse[what] = *(int *)value;
    else if ((int)what == 4)
        pool->threshold = *(uint64_t *)value;
    else if ((int)what % 2) /* what is reserved and used now is read only */
        return CUDA_ERROR_INVALID_VALUE;
    else
        pool->high = sim_space_owned(pool);
    return CUDA_SUCCESS;
}

SIM_API CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute what, void *value)
{
    if (!sim_valid(pool, SIM_POOL) || !value || (int)what < 1 || (int)what > 8)
        return CUDA_ERROR_INVALID_VALUE;
    if ((int)what <= 3)
        *(int *)value = pool->reuse[what];
    else if ((int)what == 4)
        *(uint64_t *)value = pool->threshold;
    else /* nothing is held back: reserved is used */
        *(uint64_t *)value = (int)what % 2 ? sim_space_owned(pool) : pool->high;
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

static void set_owner(struct sim_range *r, void *arg)
{
    r->owner = arg;
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
    r = sim_space_alloc(s->ctx, pool->device, bytes, SIM_MEM_POOL, 0, &at);
    if (r == CUDA_ERROR_OUT_OF_MEMORY && !sim_context_wait(s->ctx)) /* frees may be on their way */
        r = sim_space_alloc(s->ctx, pool->device, bytes, SIM_MEM_POOL, 0, &at);
    if (r)
        return r;
    sim_space_update(at, set_owner, pool);
    bytes = sim_space_owned(pool);
    if (bytes > pool->high)
        pool->high = bytes;
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
