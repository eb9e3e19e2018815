/* SPDX-License-Identifier: Apache-2.0 */
/* cuGetProcAddress: names without version suffix, the newest interface that the caller's version knows. */
#include "core.h"
#include "gen/procaddr.h"

#define OG_PROC_FLAGS 3ull   /* legacy, per-thread default stream */
#define OG_PROC_PER_THREAD 2ull
#define OG_PROC_UNKNOWN 1

OG_EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                                       CUdriverProcAddressQueryResult *symbolStatus)
{
    int version = 0, status;

    (void)cuDriverGetVersion(&version);
    /* Newer than the driver is a mistake, and less than none is not: as natively. */
    if (!symbol || !pfn || (flags & ~OG_PROC_FLAGS) || cudaVersion > version)
        return CUDA_ERROR_INVALID_VALUE;
    status = og_procaddr(symbol, cudaVersion < 0 ? version : cudaVersion, version, flags & OG_PROC_PER_THREAD, pfn);
    if (status == OG_PROC_UNKNOWN && *symbol)
        og_log_at(OG_DEBUG, "cuGetProcAddress: %s of version %d is not known", symbol, cudaVersion);
    if (symbolStatus)
        *symbolStatus = (CUdriverProcAddressQueryResult)status;
    return CUDA_SUCCESS;
}

/* The interface of 11.3: no status, so a name that is not found is an error. */
OG_EXPORT CUresult cuGetProcAddress(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags)
{
    CUdriverProcAddressQueryResult status = 0;
    CUresult r = cuGetProcAddress_v2(symbol, pfn, cudaVersion, flags, &status);

    return r == CUDA_SUCCESS && status != 0 ? CUDA_ERROR_NOT_FOUND : r;
}
