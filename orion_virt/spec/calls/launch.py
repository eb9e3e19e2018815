# SPDX-License-Identifier: Apache-2.0
"""The driver's launch functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuLaunchKernel", inp("f", FUNCTION), inp("gridDimX", UINT), inp("gridDimY", UINT), inp("gridDimZ", UINT),
        inp("blockDimX", UINT), inp("blockDimY", UINT), inp("blockDimZ", UINT), inp("sharedMemBytes", UINT),
        inp("hStream", STREAM), inp("kernelParams", PTRPTR), inp("extra", PTRPTR), since=4000, ptsz="ptsz"),
    local("cuLaunchKernelEx", buf("config", LAUNCH_CONFIG, 1), inp("f", FUNCTION), inp("kernelParams", PTRPTR),
        inp("extra", PTRPTR), since=11060, ptsz="ptsz",
        stream_in="config.hStream"),
    local("cuLaunchCooperativeKernel", inp("f", FUNCTION), inp("gridDimX", UINT), inp("gridDimY", UINT),
        inp("gridDimZ", UINT), inp("blockDimX", UINT), inp("blockDimY", UINT), inp("blockDimZ", UINT),
        inp("sharedMemBytes", UINT), inp("hStream", STREAM), inp("kernelParams", PTRPTR), since=9000, ptsz="ptsz"),
    local("cuLaunchCooperativeKernelMultiDevice", out("launchParamsList", LAUNCH_PARAMS), inp("numDevices", UINT),
        inp("flags", UINT), since=9000),
    # `launches`: count times struct oc_launch_one of <orion/bulk.h>, each with its parameters
    internal(1045, "orion_launch_multi", inp("count", WU32), inp("flags", WU32), inp("bytes", WU32), buf("launches",
        BYTE, "bytes"), context=False, works=True),
    local("cuFuncGetAttribute", out("pi", INT), inp("attrib", FUNCTION_ATTRIBUTE), inp("hfunc", FUNCTION), since=2020),
    local("cuFuncSetAttribute", inp("hfunc", FUNCTION), inp("attrib", FUNCTION_ATTRIBUTE), inp("value", INT),
        since=9000),
    local("cuFuncSetCacheConfig", inp("hfunc", FUNCTION), inp("config", FUNC_CACHE), since=3000),
    local("cuFuncSetSharedMemConfig", inp("hfunc", FUNCTION), inp("config", SHARED_CONFIG), since=4020),
    local("cuFuncGetName", out("name", CSTR), inp("hfunc", FUNCTION), since=12030),
    local("cuFuncGetModule", out("hmod", MODULE), inp("hfunc", FUNCTION), since=11000),
    local("cuFuncGetParamInfo", inp("func", FUNCTION), inp("paramIndex", SIZE), out("paramOffset", SIZE),
        out("paramSize", SIZE), since=12040),
    local("cuFuncGetParamCount", inp("func", FUNCTION), out("paramCount", SIZE), since=13020),
    local("cuFuncIsLoaded", out("state", FUNC_LOADING), inp("function", FUNCTION), since=12040),
    local("cuFuncLoad", inp("function", FUNCTION), since=12040),
    call(306, "cuTensorMapEncodeTiled", buf("tensorMap", TENSOR_MAP, 1, dir="out"), inp("tensorDataType", TENSOR_TYPE),
        inp("tensorRank", U32), inp("globalAddress", PTR), buf("globalDim", U64, "tensorRank"),
        buf("globalStrides", U64, "tensorRank"), buf("boxDim", U32, "tensorRank"),
        buf("elementStrides", U32, "tensorRank"), inp("interleave", TENSOR_INTERLEAVE), inp("swizzle", TENSOR_SWIZZLE),
        inp("l2Promotion", TENSOR_L2), inp("oobFill", TENSOR_FILL), hand="both", since=12000),
)
