/* SPDX-License-Identifier: Apache-2.0 */
/* Events: the old name of destroy; everything else is generated from the spec. */
#include "memory.h"

OG_EXPORT CUresult cuEventDestroy(CUevent hEvent)
{
    return cuEventDestroy_v2(hEvent);
}
