/* SPDX-License-Identifier: Apache-2.0 */
/* Memory pools: handles of the devices' own pools, attributes, and where pool memory lies. */
#include "memory.h"
#include "gen/send.h"

/* CUmemPool_attribute: REUSE_* are int, the rest cuuint64_t. */
static bool attribute_is_int(CUmemPool_attribute attr)
{
    return attr >= 1 && attr <= 3;
}

static bool attribute_known(CUmemPool_attribute attr)
{
    return attr >= 1 && attr <= 8;
}

/* The host names the pool with our number if it has none yet; the number that was not needed goes back. */
static CUresult device_pool(CUresult (*ask)(CUmemoryPool *, CUdevice), CUmemoryPool *pool, CUdevice dev)
{
    uint64_t minted = og_mint(OW_KIND_MEMPOOL);
    CUmemoryPool answer = (CUmemoryPool)(uintptr_t)minted;
    CUresult r;

    if (!minted)
        return CUDA_ERROR_OUT_OF_MEMORY;
    r = ask(&answer, dev);
    if (r != CUDA_SUCCESS || (uint64_t)(uintptr_t)answer != minted)
        og_unmint(OW_KIND_MEMPOOL, minted);
    if (r == CUDA_SUCCESS)
        *pool = answer;
    return r;
}

OG_EXPORT CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool_out, CUdevice dev)
{
    CUresult r = og_connect();

    if (!pool_out)
        return CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    if (dev < 0 || dev >= og_nr_devices())
        return CUDA_ERROR_INVALID_DEVICE;
    return device_pool(og_send_cuDeviceGetDefaultMemPool, pool_out, dev);
}

OG_EXPORT CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice dev)
{
    CUresult r = og_connect();

    if (!pool)
        return CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    if (dev < 0 || dev >= og_nr_devices())
        return CUDA_ERROR_INVALID_DEVICE;
    return device_pool(og_send_cuDeviceGetMemPool, pool, dev);
}

static CUresult check_pool(CUmemoryPool pool, CUmemPool_attribute attr, const void *value)
{
    CUresult r = og_connect();

    if (r != CUDA_SUCCESS)
        return r;
    if (!value || !attribute_known(attr) || !og_valid(OW_KIND_MEMPOOL, (uint64_t)(uintptr_t)pool))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

OG_EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    CUresult r = check_pool(pool, attr, value);
    uint64_t wide, got;

    if (r != CUDA_SUCCESS)
        return r;
    wide = attribute_is_int(attr) ? (uint64_t)(uint32_t)*(int *)value : *(uint64_t *)value;
    return og_send_orion_pool_attribute((uint64_t)(uintptr_t)pool, attr, 1, wide, &got);
}

OG_EXPORT CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    CUresult r = check_pool(pool, attr, value);
    uint64_t got = 0;

    if (r == CUDA_SUCCESS)
        r = og_send_orion_pool_attribute((uint64_t)(uintptr_t)pool, attr, 0, 0, &got);
    if (r != CUDA_SUCCESS)
        return r;
    if (attribute_is_int(attr))
        *(int *)value = (int)got;
    else
        *(uint64_t *)value = got;
    return CUDA_SUCCESS;
}

/* Pool addresses lie outside the window of other device memory, so we remember them; what a capture records, its
 * graph makes again at each launch. */
static void remember(CUdeviceptr p, size_t bytes, CUstream stream)
{
    if (og_is_capturing(stream))
        og_device_keep(p, bytes);
    else
        og_device_add(p, bytes);
}

OG_EXPORT CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
{
    CUresult r = og_send_cuMemAllocAsync(dptr, bytesize, hStream);

    if (r == CUDA_SUCCESS)
        remember(*dptr, bytesize, hStream);
    return r;
}

OG_EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool, CUstream hStream)
{
    CUresult r = og_send_cuMemAllocFromPoolAsync(dptr, bytesize, pool, hStream);

    if (r == CUDA_SUCCESS)
        remember(*dptr, bytesize, hStream);
    return r;
}

OG_EXPORT CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
{
    CUresult r = og_send_cuMemFreeAsync(dptr, hStream);

    if (r == CUDA_SUCCESS)
        og_device_del(dptr);
    return r;
}

/* Pools of devices; the host's own would lie in the worker's memory. */
static CUresult device_of(const CUmemLocation *location, CUmemAllocationType type)
{
    CUresult r = og_connect();

    if (r != CUDA_SUCCESS)
        return r;
    if (!location || location->type < 1 || location->type > 4)
        return CUDA_ERROR_INVALID_VALUE;
    return location->type == 1 && type == 1 ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
}

OG_EXPORT CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool_out, CUmemLocation *location, CUmemAllocationType type)
{
    CUresult r = device_of(location, type);

    return r == CUDA_SUCCESS ? cuDeviceGetDefaultMemPool(pool_out, location->id) : r;
}

OG_EXPORT CUresult cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type)
{
    CUresult r = device_of(location, type);

    return r == CUDA_SUCCESS ? cuDeviceGetMemPool(pool, location->id) : r;
}

OG_EXPORT CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
    CUresult r = device_of(location, type);

    return r == CUDA_SUCCESS ? cuDeviceSetMemPool(location->id, pool) : r;
}
