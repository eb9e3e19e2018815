# SPDX-License-Identifier: Apache-2.0
"""Our own operations for speed: how far a stream has come, told by the GPU, and images by way of staging memory."""

from ..schema import ASYNC, inp, internal
from ..types import STREAM, WU32, WU64

CALLS = [
    # the GPU writes `value` to marks[index] of the channel once the stream has done what it holds now
    internal(130, "orion_mark", inp("stream", STREAM), inp("value", WU64), inp("index", WU32), order=ASYNC),
    # as orion_image_data, the bytes at `region` of the region
    internal(131, "orion_image_bulk", inp("image", WU64), inp("offset", WU64), inp("region", WU64), inp("bytes", WU64), context=False),
]  # fmt: skip
