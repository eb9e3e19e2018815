# SPDX-License-Identifier: Apache-2.0
"""The types of nvml.h as far as our functions use them; a test compares them with the header."""

RETURNS = (
    ("SUCCESS", 0, "Success"),
    ("ERROR_UNINITIALIZED", 1, "Uninitialized"),
    ("ERROR_INVALID_ARGUMENT", 2, "Invalid Argument"),
    ("ERROR_NOT_SUPPORTED", 3, "Not Supported"),
    ("ERROR_NO_PERMISSION", 4, "Insufficient Permissions"),
    ("ERROR_ALREADY_INITIALIZED", 5, "Already Initialized"),
    ("ERROR_NOT_FOUND", 6, "Not Found"),
    ("ERROR_INSUFFICIENT_SIZE", 7, "Insufficient Size"),
    ("ERROR_INSUFFICIENT_POWER", 8, "Insufficient External Power"),
    ("ERROR_DRIVER_NOT_LOADED", 9, "Driver Not Loaded"),
    ("ERROR_TIMEOUT", 10, "Timeout"),
    ("ERROR_IRQ_ISSUE", 11, "Interrupt Request Issue"),
    ("ERROR_LIBRARY_NOT_FOUND", 12, "NVML Shared Library Not Found"),
    ("ERROR_FUNCTION_NOT_FOUND", 13, "Function Not Found"),
    ("ERROR_CORRUPTED_INFOROM", 14, "Corrupted infoROM"),
    ("ERROR_GPU_IS_LOST", 15, "GPU is lost"),
    ("ERROR_RESET_REQUIRED", 16, "GPU requires reset"),
    ("ERROR_OPERATING_SYSTEM", 17, "GPU access blocked by the operating system"),
    ("ERROR_LIB_RM_VERSION_MISMATCH", 18, "Driver/library version mismatch"),
    ("ERROR_IN_USE", 19, "In use by another client"),
    ("ERROR_MEMORY", 20, "Insufficient Memory"),
    ("ERROR_NO_DATA", 21, "No data"),
    ("ERROR_VGPU_ECC_NOT_SUPPORTED", 22, "vGPU ECC not supported"),
    ("ERROR_INSUFFICIENT_RESOURCES", 23, "Insufficient Resources"),
    ("ERROR_FREQ_NOT_SUPPORTED", 24, "Invalid Frequency"),
    ("ERROR_ARGUMENT_VERSION_MISMATCH", 25, "Argument version mismatch"),
    ("ERROR_DEPRECATED", 26, "Requested functionality has been deprecated"),
    ("ERROR_NOT_READY", 27, "System is not in ready state"),
    ("ERROR_GPU_NOT_FOUND", 28, "No supported GPUs were found"),
    ("ERROR_INVALID_STATE", 29, "Resource not in correct state to perform requested operation"),
    ("ERROR_RESET_TYPE_NOT_SUPPORTED", 30, "Reset type not supported"),
    ("ERROR_UNKNOWN", 999, "Unknown Error"),
)

# Opaque pointers: nvmlDevice_t is a struct nvmlDevice_st *.
HANDLES = ("nvmlDevice", "nvmlEventSet")

# Enumerations, which cross by value or as one 32-bit word.
ENUMS = (
    "nvmlEnableState_t", "nvmlBrandType_t", "nvmlTemperatureSensors_t", "nvmlTemperatureThresholds_t", "nvmlClockType_t",
    "nvmlClockId_t", "nvmlPstates_t", "nvmlComputeMode_t", "nvmlMemoryErrorType_t", "nvmlEccCounterType_t",
    "nvmlGpuOperationMode_t", "nvmlDeviceArchitecture_t", "nvmlBusType_t", "nvmlPowerSource_t", "nvmlGpuTopologyLevel_t",
    "nvmlGpuP2PStatus_t", "nvmlGpuP2PCapsIndex_t", "nvmlInforomObject_t", "nvmlAffinityScope_t", "nvmlRestrictedAPI_t",
    "nvmlGpuVirtualizationMode_t", "nvmlGpuFabricState_t", "nvmlValueType_t", "nvmlMemoryLocation_t",
)  # fmt: skip

STRUCTS = (
    ("nvmlPciInfo_t", "char busIdLegacy[16]; unsigned int domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32];"),
    ("nvmlPciInfoExt_t", "unsigned int version, domain, bus, device, pciDeviceId, pciSubSystemId, baseClass, subClass; "
        "char busId[32];"),
    ("nvmlMemory_t", "unsigned long long total, free, used;"),
    ("nvmlMemory_v2_t", "unsigned int version; unsigned long long total, reserved, free, used;"),
    ("nvmlBAR1Memory_t", "unsigned long long bar1Total, bar1Free, bar1Used;"),
    ("nvmlUtilization_t", "unsigned int gpu, memory;"),
    ("nvmlProcessInfo_v1_t", "unsigned int pid; unsigned long long usedGpuMemory;"),
    ("nvmlProcessInfo_t", "unsigned int pid; unsigned long long usedGpuMemory; unsigned int gpuInstanceId, computeInstanceId;"),
    ("nvmlProcessInfo_v2_t", "unsigned int pid; unsigned long long usedGpuMemory; unsigned int gpuInstanceId, computeInstanceId;"),
    ("nvmlProcessDetail_v1_t", "unsigned int pid; unsigned long long usedGpuMemory; unsigned int gpuInstanceId, "
        "computeInstanceId; unsigned long long usedGpuCcProtectedMemory;"),
    ("nvmlProcessDetailList_t", "unsigned int version, mode, numProcArrayEntries; nvmlProcessDetail_v1_t *procArray;"),
    ("nvmlProcessUtilizationSample_t", "unsigned int pid; unsigned long long timeStamp; unsigned int smUtil, memUtil, encUtil, "
        "decUtil;"),
    ("nvmlProcessUtilizationInfo_v1_t", "unsigned long long timeStamp; unsigned int pid, smUtil, memUtil, encUtil, decUtil, "
        "jpgUtil, ofaUtil;"),
    ("nvmlProcessesUtilizationInfo_t", "unsigned int version, processSamplesCount; unsigned long long lastSeenTimeStamp; "
        "nvmlProcessUtilizationInfo_v1_t *procUtilArray;"),
    ("nvmlValue_t", "double dVal; int siVal; unsigned int uiVal; unsigned long ulVal; unsigned long long ullVal; "
        "signed long long sllVal; unsigned short usVal;"),
    ("nvmlFieldValue_t", "unsigned int fieldId, scopeId; long long timestamp, latencyUsec; nvmlValueType_t valueType; "
        "nvmlReturn_t nvmlReturn; nvmlValue_t value;"),
    ("nvmlGpuFabricInfo_t", "unsigned char clusterUuid[16]; nvmlReturn_t status; unsigned int cliqueId; "
        "nvmlGpuFabricState_t state;"),
    ("nvmlGpuFabricInfo_v2_t", "unsigned int version; unsigned char clusterUuid[16]; nvmlReturn_t status; unsigned int cliqueId; "
        "nvmlGpuFabricState_t state; unsigned int healthMask;"),
    ("nvmlGpuFabricInfoV_t", "unsigned int version; unsigned char clusterUuid[16]; nvmlReturn_t status; unsigned int cliqueId; "
        "nvmlGpuFabricState_t state; unsigned int healthMask; unsigned char healthSummary;"),
    ("nvmlConfComputeSystemState_t", "unsigned int environment, ccFeature, devToolsMode;"),
    ("nvmlConfComputeSystemCaps_t", "unsigned int cpuCaps, gpusCaps;"),
    ("nvmlSystemConfComputeSettings_t", "unsigned int version, environment, ccFeature, devToolsMode, multiGpuMode;"),
    ("nvmlTemperature_t", "unsigned int version; nvmlTemperatureSensors_t sensorType; int temperature;"),
    ("nvmlRowRemapperHistogramValues_t", "unsigned int max, high, partial, low, none;"),
    ("nvmlGpmSupport_t", "unsigned int version, isSupportedDevice;"),
    ("nvmlDeviceAddressingMode_t", "unsigned int version, value;"),
    ("nvmlUUID_t", "unsigned int version, type; union { char str[41]; unsigned char bytes[16]; } value;"),
    ("nvmlEventData_t", "nvmlDevice_t device; unsigned long long eventType, eventData; unsigned int gpuInstanceId, "
        "computeInstanceId;"),
    ("nvmlHwbcEntry_t", "unsigned int hwbcId; char firmwareVersion[32];"),
)
