# SPDX-License-Identifier: Apache-2.0
"""The driver's device functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuInit", inp("Flags", UINT), since=2000),
    local("cuDriverGetVersion", out("driverVersion", INT), since=2020),
    local("cuGetErrorString", inp("error", RESULT), out("pStr", CSTR), since=6000),
    local("cuGetErrorName", inp("error", RESULT), out("pStr", CSTR), since=6000),
    local("cuGetProcAddress", inp("symbol", CSTR), inp("pfn", PTRPTR), inp("cudaVersion", INT), inp("flags", U64),
        since=11030),
    local("cuGetProcAddress_v2", inp("symbol", CSTR), inp("pfn", PTRPTR), inp("cudaVersion", INT), inp("flags", U64),
        out("symbolStatus", PROC_QUERY), since=12000),
    local("cuGetExportTable", out("ppExportTable", CPTR), buf("pExportTableId", UUID, 1), since=3000),
    local("cuDeviceGet", out("device", DEVICE), inp("ordinal", INT), since=2000),
    local("cuDeviceGetCount", out("count", INT), since=2000),
    local("cuDeviceGetName", buf("name", CHAR, "len", dir="out"), inp("len", INT), inp("dev", DEVICE), since=2000),
    local("cuDeviceGetUuid", out("uuid", UUID), inp("dev", DEVICE), since=9020),
    local("cuDeviceGetUuid_v2", out("uuid", UUID), inp("dev", DEVICE), since=11040),
    local("cuDeviceGetLuid", buf("luid", CHAR, 8, dir="out"), out("deviceNodeMask", UINT), inp("dev", DEVICE),
        since=10000),
    local("cuDeviceTotalMem_v2", out("bytes", SIZE), inp("dev", DEVICE), since=3020),
    local("cuDeviceGetAttribute", out("pi", INT), inp("attrib", DEVICE_ATTRIBUTE), inp("dev", DEVICE), since=2000),
    local("cuDeviceGetByPCIBusId", out("dev", DEVICE), inp("pciBusId", CSTR), since=4010),
    local("cuDeviceGetPCIBusId", buf("pciBusId", CHAR, "len", dir="out"), inp("len", INT), inp("dev", DEVICE),
        since=4010),
    local("cuDeviceGetProperties", out("prop", DEVPROP), inp("dev", DEVICE), since=2000),
    local("cuDeviceComputeCapability", out("major", INT), out("minor", INT), inp("dev", DEVICE), since=2000),
    local("cuDeviceCanAccessPeer", out("canAccessPeer", INT), inp("dev", DEVICE), inp("peerDev", DEVICE), since=4000),
    local("cuDeviceGetP2PAttribute", out("value", INT), inp("attrib", P2P_ATTRIBUTE), inp("srcDevice", DEVICE),
        inp("dstDevice", DEVICE), since=8000),
    local("cuDeviceGetExecAffinitySupport", out("pi", INT), inp("type", EXEC_AFFINITY_TYPE), inp("dev", DEVICE),
        since=11040),
    call(100, "cuDeviceGetTexture1DLinearMaxWidth", out("maxWidthInElements", SIZE), inp("format", ARRAY_FORMAT),
        inp("numChannels", UINT), inp("dev", DEVICE), context=False, since=11010),
    call(1010, "cuDeviceGetHostAtomicCapabilities", buf("capabilities", UINT, "count", dir="out"), buf("operations",
        ATOMIC_OPERATION, "count"), inp("count", UINT), inp("dev", DEVICE), context=False, since=13000),
    call(1011, "cuDeviceGetP2PAtomicCapabilities", buf("capabilities", UINT, "count", dir="out"), buf("operations",
        ATOMIC_OPERATION, "count"), inp("count", UINT), inp("srcDevice", DEVICE), inp("dstDevice", DEVICE),
        context=False, since=13000),
)
