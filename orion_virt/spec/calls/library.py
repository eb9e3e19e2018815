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
    local("cuLibraryUnload", inp("library", LIBRARY), since=12000),
    local("cuLibraryGetKernel", out("pKernel", KERNEL), inp("library", LIBRARY), inp("name", CSTR), since=12000),
    local("cuLibraryGetKernelCount", out("count", UINT), inp("lib", LIBRARY), since=12040),
    local("cuLibraryEnumerateKernels", out("kernels", KERNEL), inp("numKernels", UINT), inp("lib", LIBRARY), since=12040),
    local("cuLibraryGetManaged", opt(out("dptr", DEVPTR)), opt(out("bytes", SIZE)), inp("library", LIBRARY),
        inp("name", CSTR), since=12000),
    local("cuLibraryGetModule", out("pMod", MODULE), inp("library", LIBRARY), since=12000),
    local("cuLibraryGetGlobal", opt(out("dptr", DEVPTR)), opt(out("bytes", SIZE)), inp("library", LIBRARY), inp("name",
        CSTR), since=12000),
    local("cuKernelGetFunction", out("pFunc", FUNCTION), inp("kernel", KERNEL), since=12000),
    local("cuKernelGetAttribute", out("pi", INT), inp("attrib", FUNCTION_ATTRIBUTE), inp("kernel", KERNEL), inp("dev",
        DEVICE), since=12000),
    local("cuKernelSetAttribute", inp("attrib", FUNCTION_ATTRIBUTE), inp("val", INT), inp("kernel", KERNEL), inp("dev",
        DEVICE), since=12000),
    local("cuKernelSetCacheConfig", inp("kernel", KERNEL), inp("config", FUNC_CACHE), inp("dev", DEVICE), since=12000),
    local("cuKernelGetName", out("name", CSTR), inp("hfunc", KERNEL), since=12030),
    local("cuKernelGetLibrary", out("pLib", LIBRARY), inp("kernel", KERNEL), since=12050),
    local("cuKernelGetParamCount", inp("kernel", KERNEL), out("paramCount", SIZE), since=13020),
    local("cuKernelGetParamInfo", inp("kernel", KERNEL), inp("paramIndex", SIZE), out("paramOffset", SIZE),
        out("paramSize", SIZE), since=12040),
)
