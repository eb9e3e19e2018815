/* SPDX-License-Identifier: Apache-2.0 */
/* Address reservations, remembered where they lie outside the usual window, and references to allocations. */
#include <pthread.h>

#include "memory.h"
#include "gen/send.h"

OG_EXPORT CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr,
                                       unsigned long long flags)
{
    CUresult r = og_send_cuMemAddressReserve(ptr, size, alignment, addr, flags);

    if (r == CUDA_SUCCESS)
        og_device_add(*ptr, size);
    return r;
}

OG_EXPORT CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
    CUresult r = og_send_cuMemAddressFree(ptr, size);

    if (r == CUDA_SUCCESS)
        og_device_del(ptr);
    return r;
}

/* An allocation's client-side data is how often the handle is held beyond the first time. Held over the round trips,
 * so that the number goes when the host lets it go. */
static pthread_mutex_t holding = PTHREAD_MUTEX_INITIALIZER;

static void held(CUmemGenericAllocationHandle handle, long more)
{
    og_set_data(handle, (void *)((intptr_t)og_data(handle) + more));
}

OG_EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    CUresult r = og_check_init();

    if (r != CUDA_SUCCESS) /* in a forked child the lock may be held for ever */
        return r;
    pthread_mutex_lock(&holding);
    r = og_send_cuMemRelease(handle);
    if (r == CUDA_SUCCESS && og_data(handle))
        held(handle, -1);
    else if (r == CUDA_SUCCESS)
        og_unmint(OW_KIND_MEM_ALLOCATION, handle);
    pthread_mutex_unlock(&holding);
    return r;
}

OG_EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
    CUresult r = og_connect();
    uint64_t made, has = 0;

    if (!handle)
        return CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS)
        return r;
    made = og_mint(OW_KIND_MEM_ALLOCATION);
    if (!made)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&holding);
    r = og_send_orion_retain((uint64_t)(uintptr_t)addr, made, &has);
    if (r != CUDA_SUCCESS || has != made)
        og_unmint(OW_KIND_MEM_ALLOCATION, made);
    if (r == CUDA_SUCCESS && has != made)
        held(has, 1);
    pthread_mutex_unlock(&holding);
    if (r == CUDA_SUCCESS)
        *handle = has;
    return r;
}
