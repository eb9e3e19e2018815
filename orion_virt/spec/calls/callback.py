# SPDX-License-Identifier: Apache-2.0
"""The driver's callback functions, one line each."""

from orion_virt.spec.schema import *  # noqa: F403
from orion_virt.spec.types import *  # noqa: F403

CALLS = (
    local("cuLaunchHostFunc", inp("hStream", STREAM), inp("fn", HOST_FN), inp("userData", PTR), since=10000,
        ptsz="ptsz"),
    local("cuLaunchHostFunc_v2", inp("hStream", STREAM), inp("fn", HOST_FN), inp("userData", PTR),
        inp("syncMode", UINT), since=13010, ptsz="ptsz"),
    local("cuStreamAddCallback", inp("hStream", STREAM), inp("callback", STREAM_CALLBACK), inp("userData", PTR),
        inp("flags", UINT), since=5000, ptsz="ptsz"),
)
