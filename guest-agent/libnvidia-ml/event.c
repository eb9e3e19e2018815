/* SPDX-License-Identifier: Apache-2.0 */
/* Event sets: they can be made and waited for, but a vGPU has no events, since a card's faults are the host's to watch. */
#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "nvml.h"

struct nvmlEventSet_st {
    struct nvmlEventSet_st *self; /* tells one of ours */
};

OG_EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    struct nvmlEventSet_st *s;

    if (og_ready() != NVML_SUCCESS || !set)
        return og_bad();
    s = malloc(sizeof(*s));
    if (!s)
        return NVML_ERROR_MEMORY;
    s->self = s;
    *set = s;
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    if (og_ready() != NVML_SUCCESS || !set || set->self != set)
        return og_bad();
    set->self = NULL;
    free(set);
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long eventTypes, nvmlEventSet_t set)
{
    nvmlReturn_t r = og_device_of(device, NULL);

    if (r != NVML_SUCCESS)
        return r;
    if (!set || set->self != set)
        return NVML_ERROR_INVALID_ARGUMENT;
    return eventTypes ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    struct timespec rest = { timeoutms / 1000, timeoutms % 1000 * 1000000l };

    if (og_ready() != NVML_SUCCESS || !set || set->self != set || !data)
        return og_bad();
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
        ;
    return NVML_ERROR_TIMEOUT;
}
