/* SPDX-License-Identifier: Apache-2.0 */
/* cuInit and the version that this library offers. */
#include "client.h"
#include "gen/procaddr.h"


OG_EXPORT CUresult cuInit(unsigned int Flags)
{
    if (Flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    return og_init();
}

/* Works before cuInit: the runtime asks first whether the driver is new enough. */
OG_EXPORT CUresult cuDriverGetVersion(int *driverVersion)
{
    const struct oc_snapshot *s = og_snapshot();

    if (!driverVersion)
        return CUDA_ERROR_INVALID_VALUE;
    if (s && s->driver_version < OG_SURFACE_VERSION)
        *driverVersion = (int)s->driver_version;
    else
        *driverVersion = OG_SURFACE_VERSION;
    return CUDA_SUCCESS;
}
