# SPDX-License-Identifier: Apache-2.0
"""The driver's memory functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(400, "cuMemGetInfo_v2", opt(out("free", SIZE)), opt(out("total", SIZE)), hand="executor", since=3020),
    call(401, "cuMemAlloc_v2", out("dptr", DEVPTR), inp("bytesize", SIZE), books="+bytesize", ledger="+dptr:bytesize",
        since=3020),
    call(402, "cuMemAllocPitch_v2", out("dptr", DEVPTR), out("pPitch", SIZE), inp("WidthInBytes", SIZE),
        inp("Height", SIZE), inp("ElementSizeBytes", UINT), hand="executor", since=3020),
    call(403, "cuMemFree_v2", inp("dptr", DEVPTR), hand="client", ledger="-dptr", blocks=True, reports=True, context=False,
        since=3020),
    call(404, "cuMemGetAddressRange_v2", opt(out("pbase", DEVPTR)), opt(out("psize", SIZE)), inp("dptr", DEVPTR),
        hand="both", since=3020),
    local("cuMemAllocHost_v2", inp("pp", PTRPTR), inp("bytesize", SIZE), since=3020),
    local("cuMemFreeHost", inp("p", PTR), since=2000),
    local("cuMemHostAlloc", inp("pp", PTRPTR), inp("bytesize", SIZE), inp("Flags", UINT), since=2020),
    local("cuMemHostGetDevicePointer_v2", out("pdptr", DEVPTR), inp("p", PTR), inp("Flags", UINT), since=3020),
    local("cuMemHostGetFlags", out("pFlags", UINT), inp("p", PTR), since=2030),
    local("cuMemHostRegister", inp("p", PTR), inp("bytesize", SIZE), inp("Flags", UINT), since=4000),
    local("cuMemHostRegister_v2", inp("p", PTR), inp("bytesize", SIZE), inp("Flags", UINT), since=6050),
    local("cuMemHostUnregister", inp("p", PTR), since=4000),
    local("cuMemAllocManaged", out("dptr", DEVPTR), inp("bytesize", SIZE), inp("flags", UINT), since=6000),
    local("cuPointerGetAttribute", inp("data", PTR), inp("attribute", POINTER_ATTRIBUTE), inp("ptr", DEVPTR),
        since=4000),
    local("cuPointerGetAttributes", inp("numAttributes", UINT), out("attributes", POINTER_ATTRIBUTE),
        inp("data", PTRPTR), inp("ptr", DEVPTR), since=7000),
    local("cuPointerSetAttribute", inp("value", CPTR), inp("attribute", POINTER_ATTRIBUTE), inp("ptr", DEVPTR),
        since=6000),
    call(405, "cuArrayCreate_v2", out("pHandle", ARRAY), buf("pAllocateArray", ARRAY_DESC, 1), hand="executor",
        makes="pHandle", since=3020),
    call(406, "cuArray3DCreate_v2", out("pHandle", ARRAY), buf("pAllocateArray", ARRAY3D_DESC, 1), hand="executor",
        makes="pHandle", since=3020),
    call(407, "cuArrayGetDescriptor_v2", buf("pArrayDescriptor", ARRAY_DESC, 1, dir="out"), inp("hArray", ARRAY),
        since=3020),
    call(408, "cuArray3DGetDescriptor_v2", buf("pArrayDescriptor", ARRAY3D_DESC, 1, dir="out"), inp("hArray", ARRAY),
        since=3020),
    call(409, "cuArrayDestroy", inp("hArray", ARRAY), hand="both", frees="hArray", blocks=True, since=2000),
)
