# SPDX-License-Identifier: Apache-2.0
"""NVML's functions of memory, processes, load, and of two devices to each other."""

from orion_virt.spec.nvml.schema import field, hand

TWO = "nvmlDevice_t device1, nvmlDevice_t device2"
COUNTED = "nvmlDevice_t device, unsigned int *infoCount"

LINES = (
    hand("nvmlDeviceGetMemoryInfo", "nvmlDevice_t device, nvmlMemory_t *memory"),
    hand("nvmlDeviceGetMemoryInfo_v2", "nvmlDevice_t device, nvmlMemory_v2_t *memory"),
    hand("nvmlDeviceGetBAR1MemoryInfo", "nvmlDevice_t device, nvmlBAR1Memory_t *bar1Memory"),
    field(150, "nvmlDeviceGetBAR1MemoryInfo", "bar1Total"),
    hand("nvmlDeviceGetComputeRunningProcesses", f"{COUNTED}, nvmlProcessInfo_v1_t *infos"),
    hand("nvmlDeviceGetComputeRunningProcesses_v2", f"{COUNTED}, nvmlProcessInfo_v2_t *infos"),
    hand("nvmlDeviceGetComputeRunningProcesses_v3", f"{COUNTED}, nvmlProcessInfo_t *infos"),
    hand("nvmlDeviceGetGraphicsRunningProcesses", f"{COUNTED}, nvmlProcessInfo_v1_t *infos"),
    hand("nvmlDeviceGetGraphicsRunningProcesses_v2", f"{COUNTED}, nvmlProcessInfo_v2_t *infos"),
    hand("nvmlDeviceGetGraphicsRunningProcesses_v3", f"{COUNTED}, nvmlProcessInfo_t *infos"),
    hand("nvmlDeviceGetMPSComputeRunningProcesses", f"{COUNTED}, nvmlProcessInfo_v1_t *infos"),
    hand("nvmlDeviceGetMPSComputeRunningProcesses_v2", f"{COUNTED}, nvmlProcessInfo_v2_t *infos"),
    hand("nvmlDeviceGetMPSComputeRunningProcesses_v3", f"{COUNTED}, nvmlProcessInfo_t *infos"),
    hand("nvmlDeviceGetRunningProcessDetailList", "nvmlDevice_t device, nvmlProcessDetailList_t *plist"),
    hand("nvmlDeviceGetUtilizationRates", "nvmlDevice_t device, nvmlUtilization_t *utilization"),
    hand("nvmlDeviceGetProcessUtilization", "nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization, "
        "unsigned int *processSamplesCount, unsigned long long lastSeenTimeStamp"),
    hand("nvmlDeviceGetProcessesUtilizationInfo", "nvmlDevice_t device, nvmlProcessesUtilizationInfo_t *procesesUtilInfo"),
    hand("nvmlDeviceGetTopologyCommonAncestor", f"{TWO}, nvmlGpuTopologyLevel_t *pathInfo"),
    hand("nvmlDeviceGetTopologyNearestGpus",
        "nvmlDevice_t device, nvmlGpuTopologyLevel_t level, unsigned int *count, nvmlDevice_t *deviceArray"),
    hand("nvmlDeviceGetP2PStatus", f"{TWO}, nvmlGpuP2PCapsIndex_t p2pIndex, nvmlGpuP2PStatus_t *p2pStatus"),
    hand("nvmlDeviceOnSameBoard", f"{TWO}, int *onSameBoard"),
    hand("nvmlDeviceGetCpuAffinity", "nvmlDevice_t device, unsigned int cpuSetSize, unsigned long *cpuSet"),
    hand("nvmlDeviceGetCpuAffinityWithinScope",
        "nvmlDevice_t device, unsigned int cpuSetSize, unsigned long *cpuSet, nvmlAffinityScope_t scope"),
    hand("nvmlDeviceSetCpuAffinity", "nvmlDevice_t device"),
    hand("nvmlDeviceClearCpuAffinity", "nvmlDevice_t device"),
    hand("nvmlDeviceGetGpuFabricInfo", "nvmlDevice_t device, nvmlGpuFabricInfo_t *gpuFabricInfo"),
    hand("nvmlDeviceGetGpuFabricInfoV", "nvmlDevice_t device, nvmlGpuFabricInfoV_t *gpuFabricInfo"),
)
