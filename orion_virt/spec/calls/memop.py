# SPDX-License-Identifier: Apache-2.0
"""Operations on memory in stream order beyond those of the stream family, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(1000, "cuStreamWriteValue32", inp("stream", STREAM), inp("addr", DEVPTR), inp("value", U32),
        inp("flags", UINT), checks="addr:4", since=8000, ptsz="ptsz"),
    call(1001, "cuStreamWriteValue64", inp("stream", STREAM), inp("addr", DEVPTR), inp("value", U64),
        inp("flags", UINT), checks="addr:8", since=9000, ptsz="ptsz"),
    call(1002, "cuStreamWaitValue32", inp("stream", STREAM), inp("addr", DEVPTR), inp("value", U32),
        inp("flags", UINT), checks="addr:4", since=8000, ptsz="ptsz"),
    call(1003, "cuStreamWaitValue64", inp("stream", STREAM), inp("addr", DEVPTR), inp("value", U64),
        inp("flags", UINT), checks="addr:8", since=9000, ptsz="ptsz"),
    call(1004, "cuStreamBatchMemOp", inp("stream", STREAM), inp("count", UINT), mut(buf("paramArray", MEM_OP, "count")),
        inp("flags", UINT), hand="executor", since=8000, ptsz="ptsz"),
    call(1005, "cuStreamBatchMemOp_v2", inp("stream", STREAM), inp("count", UINT), mut(buf("paramArray", MEM_OP,
        "count")), inp("flags", UINT), hand="executor", since=11070, ptsz="ptsz"),
    call(1006, "cuMemBatchDecompressAsync", mut(buf("paramsArray", DECOMPRESS, "count")), inp("count", SIZE),
        inp("flags", UINT), opt(out("errorIndex", SIZE)), inp("stream", STREAM), hand="executor", since=12060,
        ptsz="ptsz"),
)
