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
    call(200, "cuModuleUnload", inp("hmod", MODULE), hand="client", frees="hmod", blocks=True, since=2000),
    call(201, "cuModuleGetFunction", out("hfunc", FUNCTION), inp("hmod", MODULE), inp("name", CSTR), hand="both",
        makes="hfunc", since=2000),
    call(202, "cuModuleGetFunctionCount", out("count", UINT), inp("mod", MODULE)),
    call(203, "cuModuleGetGlobal_v2", opt(out("dptr", DEVPTR)), opt(out("bytes", SIZE)), inp("hmod", MODULE),
        inp("name", CSTR), hand="both", since=3020),
    local("cuModuleGetLoadingMode", out("mode", LOADING_MODE), since=11070),
)
