/* SPDX-License-Identifier: Apache-2.0 */
/* Address reservations as the guest sees them: remembered where they lie outside the usual window. */
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
