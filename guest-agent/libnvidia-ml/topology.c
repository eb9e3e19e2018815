/* SPDX-License-Identifier: Apache-2.0 */
/* vGPUs to each other, to the guest's processors, and to what a guest has nothing of: fabric, confidential computing. */
#define _GNU_SOURCE
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "nvml.h"

enum { INTERNAL = 0, SYSTEM = 50 };                     /* nvmlGpuTopologyLevel_t: one board, one machine */
enum { P2P_OK = 0, P2P_NOT_SUPPORTED = 5, P2P_KINDS = 5, P2P_NVLINK = 2 }; /* nvmlGpuP2PStatus_t, -CapsIndex_t */

/* Both devices and whether one card is behind both; *pair is what the host says of two cards. */
static nvmlReturn_t two(nvmlDevice_t device1, nvmlDevice_t device2, bool *one_card, struct og_pair *pair)
{
    unsigned card1, card2;
    int a, b;
    nvmlReturn_t r = og_device_of(device1, &a);

    if (r == NVML_SUCCESS)
        r = og_device_of(device2, &b);
    if (r != NVML_SUCCESS)
        return r;
    og_view_lock();
    card1 = og_card_of(a);
    card2 = og_card_of(b);
    *one_card = card1 == card2;
    *pair = og_view.pair[card1][card2];
    og_view_unlock();
    return NVML_SUCCESS;
}

static unsigned level_of(bool one_card, const struct og_pair *pair)
{
    return one_card ? INTERNAL : pair->known ? pair->level : SYSTEM;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device1, nvmlDevice_t device2,
                                                           nvmlGpuTopologyLevel_t *pathInfo)
{
    struct og_pair pair;
    bool one_card;
    nvmlReturn_t r;

    if (!pathInfo)
        return og_bad();
    r = two(device1, device2, &one_card, &pair);
    if (r == NVML_SUCCESS)
        *pathInfo = level_of(one_card, &pair);
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t device1, nvmlDevice_t device2, int *onSameBoard)
{
    struct og_pair pair;
    bool one_card;
    nvmlReturn_t r;

    if (!onSameBoard)
        return og_bad();
    r = two(device1, device2, &one_card, &pair);
    if (r == NVML_SUCCESS)
        *onSameBoard = level_of(one_card, &pair) == INTERNAL;
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, nvmlGpuTopologyLevel_t level,
                                                        unsigned int *count, nvmlDevice_t *deviceArray)
{
    unsigned n = 0;
    nvmlReturn_t r = og_device_of(device, NULL);

    if (r != NVML_SUCCESS)
        return r;
    if (!count || (*count && !deviceArray))
        return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < og_settings.vgpus; i++) {
        nvmlGpuTopologyLevel_t there;

        if (og_handle_of(i) == device ||
            nvmlDeviceGetTopologyCommonAncestor(device, og_handle_of(i), &there) != NVML_SUCCESS || there > level)
            continue;
        if (n < *count)
            deviceArray[n] = og_handle_of(i);
        n++;
    }
    *count = n;
    return NVML_SUCCESS;
}

/* As cuDeviceGetP2PAttribute: vGPUs of one card reach each other's memory, those of two as the cards do. */
OG_EXPORT nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t device1, nvmlDevice_t device2, nvmlGpuP2PCapsIndex_t p2pIndex,
                                              nvmlGpuP2PStatus_t *p2pStatus)
{
    struct og_pair pair;
    bool one_card;
    nvmlReturn_t r;

    if (!p2pStatus || p2pIndex >= P2P_KINDS)
        return og_bad();
    r = two(device1, device2, &one_card, &pair);
    if (r != NVML_SUCCESS)
        return r;
    if (one_card)
        *p2pStatus = p2pIndex == P2P_NVLINK ? P2P_NOT_SUPPORTED : P2P_OK;
    else
        *p2pStatus = pair.known ? pair.p2p[p2pIndex] : P2P_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

/* ---- the guest's processors: each is as near to a vGPU as any other ---- */

static void all_processors(unsigned size, unsigned long *set)
{
    long n = sysconf(_SC_NPROCESSORS_CONF);

    memset(set, 0, size * sizeof(*set));
    for (long i = 0; i < n && (unsigned long)i < size * 8 * sizeof(*set); i++)
        set[i / (8 * sizeof(*set))] |= 1ul << i % (8 * sizeof(*set));
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int cpuSetSize, unsigned long *cpuSet)
{
    nvmlReturn_t r = og_device_of(device, NULL);

    if (r != NVML_SUCCESS)
        return r;
    if (!cpuSetSize || !cpuSet)
        return NVML_ERROR_INVALID_ARGUMENT;
    all_processors(cpuSetSize, cpuSet);
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, unsigned int cpuSetSize,
                                                           unsigned long *cpuSet, nvmlAffinityScope_t scope)
{
    return scope <= 1 ? nvmlDeviceGetCpuAffinity(device, cpuSetSize, cpuSet) : og_bad();
}

OG_EXPORT nvmlReturn_t nvmlDeviceSetCpuAffinity(nvmlDevice_t device)
{
    unsigned long set[16];
    nvmlReturn_t r = nvmlDeviceGetCpuAffinity(device, 16, set);

    if (r == NVML_SUCCESS && sched_setaffinity(0, sizeof(set), (cpu_set_t *)set) != 0)
        return NVML_ERROR_UNKNOWN;
    return r;
}

OG_EXPORT nvmlReturn_t nvmlDeviceClearCpuAffinity(nvmlDevice_t device)
{
    return nvmlDeviceSetCpuAffinity(device);
}

OG_EXPORT nvmlReturn_t nvmlSystemGetTopologyGpuSet(unsigned int cpuNumber, unsigned int *count, nvmlDevice_t *deviceArray)
{
    if (og_ready() != NVML_SUCCESS || !count || (*count && !deviceArray) || cpuNumber >= sysconf(_SC_NPROCESSORS_CONF))
        return og_bad();
    for (unsigned i = 0; i < *count && i < (unsigned)og_settings.vgpus; i++)
        deviceArray[i] = og_handle_of((int)i);
    *count = (unsigned)og_settings.vgpus;
    return NVML_SUCCESS;
}

/* ---- a vGPU belongs to no NVLink fabric: state 0, not supported ---- */

OG_EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfo(nvmlDevice_t device, nvmlGpuFabricInfo_t *gpuFabricInfo)
{
    nvmlReturn_t r = og_device_of(device, NULL);

    if (r != NVML_SUCCESS)
        return r;
    if (!gpuFabricInfo)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(gpuFabricInfo, 0, sizeof(*gpuFabricInfo));
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlDeviceGetGpuFabricInfoV(nvmlDevice_t device, nvmlGpuFabricInfoV_t *gpuFabricInfo)
{
    nvmlReturn_t r = og_device_of(device, NULL);
    unsigned version, bytes;

    if (r != NVML_SUCCESS)
        return r;
    if (!gpuFabricInfo)
        return NVML_ERROR_INVALID_ARGUMENT;
    version = gpuFabricInfo->version;
    bytes = version & 0xffffff;
    if (version != NVML_VERSION_OF(nvmlGpuFabricInfo_v2_t, 2u) && version != NVML_VERSION_OF(nvmlGpuFabricInfoV_t, 3u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memset(gpuFabricInfo, 0, bytes);
    gpuFabricInfo->version = version;
    return NVML_SUCCESS;
}

/* ---- confidential computing is off ---- */

OG_EXPORT nvmlReturn_t nvmlSystemGetConfComputeState(nvmlConfComputeSystemState_t *state)
{
    if (og_ready() != NVML_SUCCESS || !state)
        return og_bad();
    memset(state, 0, sizeof(*state));
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlSystemGetConfComputeCapabilities(nvmlConfComputeSystemCaps_t *capabilities)
{
    if (og_ready() != NVML_SUCCESS || !capabilities)
        return og_bad();
    memset(capabilities, 0, sizeof(*capabilities));
    return NVML_SUCCESS;
}

OG_EXPORT nvmlReturn_t nvmlSystemGetConfComputeSettings(nvmlSystemConfComputeSettings_t *settings)
{
    if (og_ready() != NVML_SUCCESS || !settings)
        return og_bad();
    if (settings->version != NVML_VERSION_OF(nvmlSystemConfComputeSettings_t, 1u))
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    settings->environment = settings->ccFeature = settings->devToolsMode = settings->multiGpuMode = 0;
    return NVML_SUCCESS;
}
