# SPDX-License-Identifier: Apache-2.0
"""Our own operation by which the GPU tells the guest how far a stream has come."""

from ..schema import ASYNC, inp, internal
from ..types import STREAM, WU32, WU64

CALLS = [
    # the GPU writes `value` to marks[index] of the channel once the stream has done what it holds now
    internal(130, "orion_mark", inp("stream", STREAM), inp("value", WU64), inp("index", WU32), order=ASYNC),
]
