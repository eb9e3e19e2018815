# SPDX-License-Identifier: Apache-2.0
"""The driver's vmm functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(540, "cuMemGetAllocationGranularity", out("granularity", SIZE), buf("prop", MEM_PROP, 1),
        inp("option", GRANULARITY), hand="executor", context=False, since=10020),
    call(541, "cuMemAddressReserve", out("ptr", DEVPTR), inp("size", SIZE), inp("alignment", SIZE), inp("addr", DEVPTR),
        inp("flags", ULONGLONG), hand="both", context=False, since=10020),
    call(542, "cuMemAddressFree", inp("ptr", DEVPTR), inp("size", SIZE), hand="both", context=False, blocks=True,
        since=10020),
    call(543, "cuMemCreate", out("handle", MEM_ALLOCATION), inp("size", SIZE), buf("prop", MEM_PROP, 1),
        inp("flags", ULONGLONG), hand="executor", context=False, makes="handle", since=10020),
    call(544, "cuMemRelease", inp("handle", MEM_ALLOCATION), hand="both", context=False, blocks=True,
        since=10020),
    call(545, "cuMemMap", inp("ptr", DEVPTR), inp("size", SIZE), inp("offset", SIZE), inp("handle", MEM_ALLOCATION),
        inp("flags", ULONGLONG), hand="executor", context=False, since=10020),
    call(546, "cuMemUnmap", inp("ptr", DEVPTR), inp("size", SIZE), hand="executor", context=False, blocks=True,
        since=10020),
    call(547, "cuMemSetAccess", inp("ptr", DEVPTR), inp("size", SIZE), buf("desc", MEM_ACCESS, "count"),
        inp("count", SIZE), hand="executor", context=False, since=10020),
    call(548, "cuMemGetAccess", out("flags", ULONGLONG), buf("location", MEM_LOCATION, 1), inp("ptr", DEVPTR),
        hand="executor", context=False, since=10020),
    call(549, "cuMemGetAllocationPropertiesFromHandle", buf("prop", MEM_PROP, 1, dir="out"),
        inp("handle", MEM_ALLOCATION), hand="executor", context=False, since=10020),
    local("cuMemRetainAllocationHandle", out("handle", MEM_ALLOCATION), inp("addr", PTR), since=11000),
)
