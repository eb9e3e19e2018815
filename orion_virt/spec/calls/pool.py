# SPDX-License-Identifier: Apache-2.0
"""The driver's pool functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(500, "cuMemAllocAsync", out("dptr", DEVPTR), inp("bytesize", SIZE), inp("hStream", STREAM), hand="both",
        books="+bytesize", ledger="+dptr:bytesize", since=11020, ptsz="ptsz"),
    call(501, "cuMemAllocFromPoolAsync", out("dptr", DEVPTR), inp("bytesize", SIZE), inp("pool", MEMPOOL),
        inp("hStream", STREAM), hand="both", books="+bytesize", ledger="+dptr:bytesize", since=11020, ptsz="ptsz"),
    call(502, "cuMemFreeAsync", inp("dptr", DEVPTR), inp("hStream", STREAM), order=ASYNC, hand="client",
        ledger="-dptr", since=11020, ptsz="ptsz"),
    call(503, "cuDeviceGetDefaultMemPool", inout("pool_out", MEMPOOL), inp("dev", DEVICE), hand="both", context=False,
        since=11020),
    call(504, "cuDeviceGetMemPool", inout("pool", MEMPOOL), inp("dev", DEVICE), hand="both", context=False,
        since=11020),
    call(505, "cuDeviceSetMemPool", inp("dev", DEVICE), inp("pool", MEMPOOL), context=False, since=11020),
    call(506, "cuMemPoolCreate", out("pool", MEMPOOL), buf("poolProps", POOL_PROPS, 1), hand="executor", makes="pool",
        context=False, since=11020),
    call(507, "cuMemPoolDestroy", inp("pool", MEMPOOL), hand="executor", frees="pool", context=False, blocks=True, since=11020),
    call(508, "cuMemPoolTrimTo", inp("pool", MEMPOOL), inp("minBytesToKeep", SIZE), context=False, blocks=True, since=11020),
    local("cuMemPoolSetAttribute", inp("pool", MEMPOOL), inp("attr", POOL_ATTRIBUTE), inp("value", PTR), since=11020),
    local("cuMemPoolGetAttribute", inp("pool", MEMPOOL), inp("attr", POOL_ATTRIBUTE), inp("value", PTR), since=11020),
    call(509, "cuMemPoolSetAccess", inp("pool", MEMPOOL), buf("map", MEM_ACCESS, "count"), inp("count", SIZE),
        hand="executor", context=False, since=11020),
    call(510, "cuMemPoolGetAccess", out("flags", ACCESS_FLAGS), inp("memPool", MEMPOOL),
        mut(buf("location", MEM_LOCATION, 1)), hand="executor", context=False, since=11020),
    local("cuMemGetDefaultMemPool", out("pool_out", MEMPOOL), mut(buf("location", MEM_LOCATION, 1)), inp("type",
        ALLOCATION_TYPE), since=13000),
    local("cuMemGetMemPool", out("pool", MEMPOOL), mut(buf("location", MEM_LOCATION, 1)), inp("type",
        ALLOCATION_TYPE), since=13000),
    local("cuMemSetMemPool", mut(buf("location", MEM_LOCATION, 1)), inp("type", ALLOCATION_TYPE), inp("pool", MEMPOOL),
        since=13000),
)
