# SPDX-License-Identifier: Apache-2.0
"""Where managed memory ought to be, and what was said about it, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuMemPrefetchAsync", inp("devPtr", DEVPTR), inp("count", SIZE), inp("dstDevice", DEVICE),
        inp("hStream", STREAM), since=8000, until=13000, ptsz="ptsz"),
    local("cuMemPrefetchAsync_v2", inp("devPtr", DEVPTR), inp("count", SIZE), inp("location", MEM_LOCATION),
        inp("flags", UINT), inp("hStream", STREAM), since=12020, ptsz="ptsz"),
    local("cuMemAdvise", inp("devPtr", DEVPTR), inp("count", SIZE), inp("advice", MEM_ADVISE), inp("device", DEVICE),
        since=8000, until=13000),
    local("cuMemAdvise_v2", inp("devPtr", DEVPTR), inp("count", SIZE), inp("advice", MEM_ADVISE),
        inp("location", MEM_LOCATION), since=12020),
    local("cuMemRangeGetAttribute", inp("data", PTR), inp("dataSize", SIZE), inp("attribute", MEM_RANGE_ATTRIBUTE),
        inp("devPtr", DEVPTR), inp("count", SIZE), since=8000),
    local("cuMemRangeGetAttributes", inp("data", PTRPTR), out("dataSizes", SIZE), out("attributes",
        MEM_RANGE_ATTRIBUTE), inp("numAttributes", SIZE), inp("devPtr", DEVPTR), inp("count", SIZE), since=8000),
    local("cuMemPrefetchBatchAsync", mut(buf("dptrs", DEVPTR, "count")), mut(buf("sizes", SIZE, "count")),
        inp("count", SIZE), mut(buf("prefetchLocs", MEM_LOCATION, "numPrefetchLocs")), mut(buf("prefetchLocIdxs", SIZE,
        "numPrefetchLocs")), inp("numPrefetchLocs", SIZE), inp("flags", ULONGLONG), inp("hStream", STREAM),
        since=13000, ptsz="ptsz"),
    local("cuMemDiscardBatchAsync", mut(buf("dptrs", DEVPTR, "count")), mut(buf("sizes", SIZE, "count")),
        inp("count", SIZE), inp("flags", ULONGLONG), inp("hStream", STREAM), since=13000, ptsz="ptsz"),
    local("cuMemDiscardAndPrefetchBatchAsync", mut(buf("dptrs", DEVPTR, "count")), mut(buf("sizes", SIZE, "count")),
        inp("count", SIZE), mut(buf("prefetchLocs", MEM_LOCATION, "numPrefetchLocs")), mut(buf("prefetchLocIdxs", SIZE,
        "numPrefetchLocs")), inp("numPrefetchLocs", SIZE), inp("flags", ULONGLONG), inp("hStream", STREAM),
        since=13000, ptsz="ptsz"),
    local("cuStreamAttachMemAsync", inp("hStream", STREAM), inp("dptr", DEVPTR), inp("length", SIZE),
        inp("flags", UINT), since=6000, ptsz="ptsz"),
)
