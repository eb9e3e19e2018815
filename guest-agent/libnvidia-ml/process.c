/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and load of a vGPU and of this machine's processes on it; nothing of other tenants'. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "nvml.h"

/* Refreshed, with the lock held on success. */
static nvmlReturn_t enter(nvmlDevice_t device, int *index)
{
    nvmlReturn_t r = og_device_of(device, index);

    if (r != NVML_SUCCESS)
        return r;
    og_view_lock();
    r = og_view_refresh();
    if (r != NVML_SUCCESS)
        og_view_unlock();
    return r;
}

/* The next process of a vGPU at or after *at; NULL at the end. */
static const struct og_process *next(int index, unsigned *at)
{
    while (*at < og_view.nr_processes) {
        const struct og_process *p = &og_view.process[(*at)++];

        if ((int)p->vgpu == index)
            return p;
    }
    return NULL;
}

static unsigned count(int index)
{
    unsigned at = 0, n = 0;

    while (next(index, &at))
        n++;
    return n;
}

/* ---- memory ---- */

/* The limit is what this process would get. Several processes have each a vGPU of their own under one number, so
 * that together they may use more: then nothing is free. */
static nvmlReturn_t memory_of(nvmlDevice_t device, uint64_t *total, uint64_t *used)
{
    const struct og_process *p;
    unsigned at = 0;
    int index;
    nvmlReturn_t r = enter(device, &index);

    if (r != NVML_SUCCESS)
        return r;
    *total = og_device_bytes(index);
    *used = 0;
    while ((p = next(index, &at)))
        *used += p->used;
    if (*used > *total)
        *used = *total;
    og_view_unlock();
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    uint64_t total, used;
    nvmlReturn_t r;

    if (!memory)
        return og_bad();
    r = memory_of(device, &total, &used);
    if (r == NVML_SUCCESS)
        *memory = (nvmlMemory_t){ total, total - used, used };
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    uint64_t total, used;
    nvmlReturn_t r;

    if (!memory)
        return og_bad();
    r = memory_of(device, &total, &used);
    if (r != NVML_SUCCESS)
        return r;
    if (memory->version != NVML_VERSION_OF(nvmlMemory_v2_t, 2u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    *memory = (nvmlMemory_v2_t){ memory->version, total, 0, total - used, used };
    return NVML_SUCCESS;
}

/* A guest maps nothing of the card's BAR. */
OG_EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *bar1Memory)
{
    uint64_t total[1];
    nvmlReturn_t r;

    if (!bar1Memory)
        return og_bad();
    r = og_figures_of(device, FIG_BAR1MemoryInfo_bar1Total, 1, false, total);
    if (r == NVML_SUCCESS)
        *bar1Memory = (nvmlBAR1Memory_t){ total[0], total[0], 0 };
    return r;
}

/* ---- processes ---- */

/* The arrays of the versions differ in their elements: pid and memory come first in each, the instances of MIG then. */
static nvmlReturn_t list(nvmlDevice_t device, unsigned *room, void *infos, size_t element)
{
    const struct og_process *p;
    unsigned at = 0, n;
    int index;
    nvmlReturn_t r;

    if (!room)
        return og_bad();
    r = enter(device, &index);
    if (r != NVML_SUCCESS)
        return r;
    n = count(index);
    if (n > *room || (n && !infos)) {
        r = *room && !infos ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_INSUFFICIENT_SIZE;
    } else {
        for (char *to = infos; (p = next(index, &at)); to += element) {
            nvmlProcessInfo_t info = { p->pid, p->used, OG_NO_INSTANCE, OG_NO_INSTANCE };

            memcpy(to, &info, element);
        }
    }
    *room = n;
    og_view_unlock();
    return r;
}

/* vGPUs compute only: there are no processes of the other kinds. */
static nvmlReturn_t none(nvmlDevice_t device, unsigned *room)
{
    nvmlReturn_t r = og_device_of(device, NULL);

    if (r == NVML_SUCCESS && !room)
        r = NVML_ERROR_INVALID_ARGUMENT;
    if (r == NVML_SUCCESS)
        *room = 0;
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *infoCount,
                                                            nvmlProcessInfo_v1_t *infos)
{
    return list(device, infoCount, infos, sizeof(*infos));
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *infoCount,
                                                               nvmlProcessInfo_v2_t *infos)
{
    return list(device, infoCount, infos, sizeof(*infos));
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *infoCount,
                                                               nvmlProcessInfo_t *infos)
{
    return list(device, infoCount, infos, sizeof(*infos));
}

#define NONE_OF(name, type) \
    OG_EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned int *infoCount, type *infos) \
    { \
        (void)infos; \
        return none(device, infoCount); \
    }
NONE_OF(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
NONE_OF(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
NONE_OF(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
NONE_OF(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)
NONE_OF(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
NONE_OF(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)

OG_EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *plist)
{
    const struct og_process *p;
    unsigned at = 0, n;
    int index;
    nvmlReturn_t r;

    if (!plist)
        return og_bad();
    if (og_ready() == NVML_SUCCESS && plist->version != NVML_VERSION_OF(nvmlProcessDetailList_t, 1u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    if (plist->mode > 2)
        return og_bad();
    r = enter(device, &index);
    if (r != NVML_SUCCESS)
        return r;
    n = plist->mode == 0 ? count(index) : 0; /* 0: compute, 1: graphics, 2: MPS */
    if (n > plist->numProcArrayEntries || (n && !plist->procArray))
        r = NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; r == NVML_SUCCESS && i < n && (p = next(index, &at)); i++)
        plist->procArray[i] = (nvmlProcessDetail_v1_t){ p->pid, p->used, OG_NO_INSTANCE, OG_NO_INSTANCE, 0 };
    plist->numProcArrayEntries = n;
    og_view_unlock();
    return r;
}

/* As the command line has it, else as the kernel knows the process. */
OG_EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    char path[64], text[4096] = "";
    ssize_t n = 0;

    if (og_ready() != NVML_SUCCESS || !name || !length)
        return og_bad();
    for (unsigned i = 0; i < 2 && n <= 0; i++) {
        int fd;

        snprintf(path, sizeof(path), "/proc/%u/%s", pid, i ? "comm" : "cmdline");
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return NVML_ERROR_NOT_FOUND;
        n = read(fd, text, sizeof(text) - 1);
        close(fd);
    }
    text[strcspn(text, "\n")] = '\0';
    snprintf(name, length, "%s", text); /* a longer one is cut, as natively */
    return NVML_SUCCESS;
}

/* ---- load ---- */

static unsigned percent(unsigned sum)
{
    return sum > 100 ? 100 : sum;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    unsigned at = 0, busy = 0, memory = 0;
    const struct og_process *p;
    int index;
    nvmlReturn_t r;

    if (!utilization)
        return og_bad();
    r = enter(device, &index);
    if (r != NVML_SUCCESS)
        return r;
    while ((p = next(index, &at))) {
        busy += p->busy;
        memory += p->memory_busy;
    }
    *utilization = (nvmlUtilization_t){ percent(busy), percent(memory) };
    og_view_unlock();
    return NVML_SUCCESS;
}

static unsigned long long now_us(void)
{
    struct timeval now;

    gettimeofday(&now, NULL);
    return now.tv_sec * 1000000ull + (unsigned long long)now.tv_usec;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                                       unsigned int *processSamplesCount,
                                                       unsigned long long lastSeenTimeStamp)
{
    unsigned long long now = now_us();
    const struct og_process *p;
    unsigned at = 0, n;
    int index;
    nvmlReturn_t r;

    if (!processSamplesCount)
        return og_bad();
    r = enter(device, &index);
    if (r != NVML_SUCCESS)
        return r;
    n = lastSeenTimeStamp < now ? count(index) : 0;
    if (!n)
        r = NVML_ERROR_NOT_FOUND;
    else if (!utilization || n > *processSamplesCount)
        r = NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; r == NVML_SUCCESS && (p = next(index, &at)); i++)
        utilization[i] = (nvmlProcessUtilizationSample_t){ p->pid, now, p->busy, p->memory_busy, 0, 0 };
    *processSamplesCount = n;
    og_view_unlock();
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                             nvmlProcessesUtilizationInfo_t *procesesUtilInfo)
{
    nvmlProcessesUtilizationInfo_t *info = procesesUtilInfo;
    unsigned long long now = now_us();
    const struct og_process *p;
    unsigned at = 0, n;
    int index;
    nvmlReturn_t r;

    if (!info)
        return og_bad();
    if (og_ready() == NVML_SUCCESS && info->version != NVML_VERSION_OF(nvmlProcessesUtilizationInfo_t, 1u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    r = enter(device, &index);
    if (r != NVML_SUCCESS)
        return r;
    n = info->lastSeenTimeStamp < now ? count(index) : 0;
    if (!n)
        r = NVML_ERROR_NOT_FOUND;
    else if (!info->procUtilArray || n > info->processSamplesCount)
        r = NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; r == NVML_SUCCESS && (p = next(index, &at)); i++)
        info->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){ now, p->pid, p->busy, p->memory_busy, 0, 0, 0, 0 };
    info->processSamplesCount = n;
    og_view_unlock();
    return r;
}
