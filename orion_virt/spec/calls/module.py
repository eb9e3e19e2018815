# SPDX-License-Identifier: Apache-2.0
"""The driver's module functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuModuleLoad", out("module", MODULE), inp("fname", CSTR), since=2000),
    local("cuModuleLoadData", out("module", MODULE), inp("image", CPTR), since=2000),
    local("cuModuleLoadDataEx", out("module", MODULE), inp("image", CPTR), inp("numOptions", UINT),
        out("options", JIT_OPTION), inp("optionValues", PTRPTR), since=2010),
    local("cuModuleLoadFatBinary", out("module", MODULE), inp("fatCubin", CPTR), since=2000),
    local("cuModuleUnload", inp("hmod", MODULE), since=2000),
    local("cuModuleGetFunction", out("hfunc", FUNCTION), inp("hmod", MODULE), inp("name", CSTR), since=2000),
    local("cuModuleGetFunctionCount", out("count", UINT), inp("mod", MODULE), since=12040),
    local("cuModuleEnumerateFunctions", out("functions", FUNCTION), inp("numFunctions", UINT), inp("mod", MODULE), since=12040),
    local("cuModuleGetGlobal_v2", opt(out("dptr", DEVPTR)), opt(out("bytes", SIZE)), inp("hmod", MODULE), inp("name",
        CSTR), since=3020),
    local("cuModuleGetLoadingMode", out("mode", LOADING_MODE), since=11070),
)
