# SPDX-License-Identifier: Apache-2.0
"""The driver's library functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuLibraryLoadData", out("library", LIBRARY), inp("code", CPTR), out("jitOptions", JIT_OPTION),
        inp("jitOptionsValues", PTRPTR), inp("numJitOptions", UINT), out("libraryOptions", LIBRARY_OPTION),
        inp("libraryOptionValues", PTRPTR), inp("numLibraryOptions", UINT), since=12000),
    local("cuLibraryLoadFromFile", out("library", LIBRARY), inp("fileName", CSTR), out("jitOptions", JIT_OPTION),
        inp("jitOptionsValues", PTRPTR), inp("numJitOptions", UINT), out("libraryOptions", LIBRARY_OPTION),
        inp("libraryOptionValues", PTRPTR), inp("numLibraryOptions", UINT), since=12000),
    call(230, "cuLibraryUnload", inp("library", LIBRARY), hand="client", frees="library", blocks=True, context=False,
        since=12000),
    call(231, "cuLibraryGetKernel", out("pKernel", KERNEL), inp("library", LIBRARY), inp("name", CSTR), hand="both",
        context=False, makes="pKernel", since=12000),
    call(232, "cuLibraryGetKernelCount", out("count", UINT), inp("lib", LIBRARY), context=False),
    call(233, "cuLibraryGetModule", out("pMod", MODULE), inp("library", LIBRARY), hand="both", makes="pMod",
        since=12000),
    call(234, "cuLibraryGetGlobal", opt(out("dptr", DEVPTR)), opt(out("bytes", SIZE)), inp("library", LIBRARY),
        inp("name", CSTR), hand="both", since=12000),
    call(235, "cuKernelGetFunction", out("pFunc", FUNCTION), inp("kernel", KERNEL), hand="both", makes="pFunc",
        since=12000),
    call(236, "cuKernelGetAttribute", out("pi", INT), inp("attrib", FUNCTION_ATTRIBUTE), inp("kernel", KERNEL),
        inp("dev", DEVICE), hand="client", context=False, since=12000),
    call(237, "cuKernelSetAttribute", inp("attrib", FUNCTION_ATTRIBUTE), inp("val", INT), inp("kernel", KERNEL),
        inp("dev", DEVICE), hand="client", context=False, since=12000),
    call(238, "cuKernelSetCacheConfig", inp("kernel", KERNEL), inp("config", FUNC_CACHE), inp("dev", DEVICE),
        context=False, since=12000),
    local("cuKernelGetName", cstr("name"), inp("hfunc", KERNEL), since=12030),
    local("cuKernelGetLibrary", out("pLib", LIBRARY), inp("kernel", KERNEL), since=12050),
    local("cuKernelGetParamInfo", inp("kernel", KERNEL), inp("paramIndex", SIZE), out("paramOffset", SIZE),
        out("paramSize", SIZE), since=12040),
)
