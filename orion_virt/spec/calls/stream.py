# SPDX-License-Identifier: Apache-2.0
"""The driver's stream functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(600, "cuStreamCreate", out("phStream", STREAM), inp("Flags", UINT), hand="client", makes="phStream",
        flags="Flags:1", grows=True, since=2000),
    call(601, "cuStreamCreateWithPriority", out("phStream", STREAM), inp("flags", UINT), inp("priority", INT),
        hand="client", makes="phStream", flags="flags:1", grows=True, since=5050),
    local("cuStreamDestroy", inp("hStream", STREAM), since=2000),
    call(602, "cuStreamDestroy_v2", inp("hStream", STREAM), order=ASYNC, hand="client", frees="hStream", since=4000),
    call(603, "cuStreamSynchronize", inp("hStream", STREAM), blocks=True, reports=True, since=2000, ptsz="ptsz"),
    call(604, "cuStreamQuery", inp("hStream", STREAM), reports=True, since=2000, ptsz="ptsz"),
    call(605, "cuStreamWaitEvent", inp("hStream", STREAM), inp("hEvent", EVENT), inp("Flags", UINT), order=ASYNC,
        hand="client", flags="Flags:1", since=3020, ptsz="ptsz"),
    call(606, "cuStreamGetPriority", inp("hStream", STREAM), out("priority", INT), since=5050, ptsz="ptsz"),
    call(607, "cuStreamGetFlags", inp("hStream", STREAM), out("flags", UINT), since=5050, ptsz="ptsz"),
    local("cuStreamGetId", inp("hStream", STREAM), out("streamId", ULONGLONG), since=12000, ptsz="ptsz"),
    local("cuStreamGetCtx", inp("hStream", STREAM), out("pctx", CONTEXT), since=9020, ptsz="ptsz"),
    local("cuStreamGetDevice", inp("hStream", STREAM), out("device", DEVICE), since=12080, ptsz="ptsz"),
    call(608, "cuStreamCopyAttributes", inp("dstStream", STREAM), inp("srcStream", STREAM), order=ASYNC, since=11000,
        ptsz="ptsz"),
    call(609, "cuStreamGetAttribute", inp("hStream", STREAM), inp("attr", STREAM_ATTRIBUTE_ID),
        buf("value", STREAM_ATTRIBUTE, 1, dir="out"), hand="executor", since=11000, ptsz="ptsz"),
    call(610, "cuStreamSetAttribute", inp("hStream", STREAM), inp("attr", STREAM_ATTRIBUTE_ID),
        buf("param", STREAM_ATTRIBUTE, 1), order=ASYNC, hand="executor", since=11000, ptsz="ptsz"),
    call(611, "cuStreamWriteValue32_v2", inp("stream", STREAM), inp("addr", DEVPTR), inp("value", U32),
        inp("flags", UINT), checks="addr:4", since=11070, ptsz="ptsz"),
    call(612, "cuStreamWriteValue64_v2", inp("stream", STREAM), inp("addr", DEVPTR), inp("value", U64),
        inp("flags", UINT), checks="addr:8", since=11070, ptsz="ptsz"),
    call(613, "cuStreamWaitValue32_v2", inp("stream", STREAM), inp("addr", DEVPTR), inp("value", U32),
        inp("flags", UINT), checks="addr:4", since=11070, ptsz="ptsz"),
    call(614, "cuStreamWaitValue64_v2", inp("stream", STREAM), inp("addr", DEVPTR), inp("value", U64),
        inp("flags", UINT), checks="addr:8", since=11070, ptsz="ptsz"),
)
