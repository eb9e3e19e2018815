# SPDX-License-Identifier: Apache-2.0
"""The driver's event functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    call(650, "cuEventCreate", out("phEvent", EVENT), inp("Flags", UINT), order=ASYNC, hand="client", makes="phEvent",
        flags="Flags:7", since=2000),
    call(651, "cuEventRecord", inp("hEvent", EVENT), inp("hStream", STREAM), order=ASYNC, hand="client",
        since=2000, ptsz="ptsz"),
    call(652, "cuEventRecordWithFlags", inp("hEvent", EVENT), inp("hStream", STREAM), inp("flags", UINT), order=ASYNC,
        hand="client", flags="flags:1", since=11010, ptsz="ptsz"),
    call(653, "cuEventQuery", inp("hEvent", EVENT), hand="client", since=2000),
    call(654, "cuEventSynchronize", inp("hEvent", EVENT), blocks=True, reports=True, since=2000),
    call(655, "cuEventElapsedTime", out("pMilliseconds", FLOAT), inp("hStart", EVENT), inp("hEnd", EVENT), since=2000),
    call(656, "cuEventElapsedTime_v2", out("pMilliseconds", FLOAT), inp("hStart", EVENT), inp("hEnd", EVENT),
        since=12080),
    local("cuEventDestroy", inp("hEvent", EVENT), since=2000),
    call(657, "cuEventDestroy_v2", inp("hEvent", EVENT), order=ASYNC, hand="executor", frees="hEvent",
        since=4000),
)
