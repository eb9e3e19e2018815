# SPDX-License-Identifier: Apache-2.0
"""Functions of older interfaces that are others in disguise, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuDeviceTotalMem", out("bytes", UINT), inp("dev", DEVICE), since=2000),
    local("cuMemGetInfo", out("free", UINT), out("total", UINT), since=2000),
    local("cuMemAllocHost", inp("pp", PTRPTR), inp("bytesize", UINT), since=2000),
    local("cuFuncSetBlockShape", inp("hfunc", FUNCTION), inp("x", INT), inp("y", INT), inp("z", INT), since=2000),
    local("cuFuncSetSharedSize", inp("hfunc", FUNCTION), inp("bytes", UINT), since=2000),
    local("cuParamSetSize", inp("hfunc", FUNCTION), inp("numbytes", UINT), since=2000),
    local("cuParamSeti", inp("hfunc", FUNCTION), inp("offset", INT), inp("value", UINT), since=2000),
    local("cuParamSetf", inp("hfunc", FUNCTION), inp("offset", INT), inp("value", FLOAT), since=2000),
    local("cuParamSetv", inp("hfunc", FUNCTION), inp("offset", INT), inp("ptr", PTR), inp("numbytes", UINT),
        since=2000),
    local("cuLaunch", inp("f", FUNCTION), since=2000),
    local("cuLaunchGrid", inp("f", FUNCTION), inp("grid_width", INT), inp("grid_height", INT), since=2000),
    local("cuLaunchGridAsync", inp("f", FUNCTION), inp("grid_width", INT), inp("grid_height", INT),
        inp("hStream", STREAM), since=2000),
)
