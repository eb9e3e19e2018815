# SPDX-License-Identifier: Apache-2.0
"""Operations of our own that the memory, stream and graph families need, one line each."""

from ..schema import ASYNC, inp, internal, out
from ..types import CAPTURE_MODE, STREAM, WI32, WU32, WU64

# Sides are enum oc_side of <orion/bulk.h>. Where a line says "then", bytes follow
# the struct: the client writes them, the body by hand checks their length.
CALLS = [
    # copies; then the bytes of an INLINE source. A fence number other than 0 is published when the copy is done
    internal(50, "orion_copy", inp("dst", WU64), inp("src", WU64), inp("bytes", WU64), inp("stream", WU64), inp("fence", WU64), inp("dst_side", WU32), inp("src_side", WU32), blocks=True, reports=True, works=True),
    internal(51, "orion_copy_async", inp("dst", WU64), inp("src", WU64), inp("bytes", WU64), inp("stream", WU64), inp("fence", WU64), inp("dst_side", WU32), inp("src_side", WU32), order=ASYNC, works=True),
    # then struct oc_copy_nd
    internal(52, "orion_copy_nd", inp("stream", WU64), inp("fence", WU64), blocks=True, reports=True, works=True),
    internal(53, "orion_copy_nd_async", inp("stream", WU64), inp("fence", WU64), order=ASYNC, works=True),
    # at most OC_READ_MAX bytes, which follow the answer
    internal(54, "orion_read", inp("src", WU64), inp("stream", WU64), inp("src_side", WU32), inp("bytes", WU32), out("got", WU64), blocks=True, reports=True, works=True),
    internal(55, "orion_fence_wait", inp("fence", WU64), blocks=True, reports=True, context=False),
    # waits for all work of all devices, before host memory is used for something else
    internal(56, "orion_host_sync", blocks=True, context=False),
    # what the ledger knows of an address: kind 0 nothing, 1 memory, 2 a reservation of addresses
    internal(57, "orion_pointer", inp("ptr", WU64), out("start", WU64), out("bytes", WU64), out("context", WU64), out("id", WU64), out("pool", WU64), out("device", WI32), out("kind", WU32), context=False),
    # kind 0 CUhostFn, 1 CUstreamCallback; fn and data are the guest's
    internal(58, "orion_host_func", inp("stream", STREAM), inp("fn", WU64), inp("data", WU64), inp("kind", WU32)),
    internal(59, "orion_capture_mode", inp("mode", CAPTURE_MODE), order=ASYNC, context=False),
    # what 0 nodes of graph `object`, 1 its roots; then room new handles; answer: count there are, then up to room
    # handles from the first-th on
    internal(62, "orion_graph_list", inp("object", WU64), inp("first", WU64), inp("what", WU32), inp("room", WU32), out("count", WU64), context=False),
    internal(67, "orion_pool_attribute", inp("pool", WU64), inp("attribute", WU32), inp("set", WU32), inp("value", WU64), out("got", WU64), context=False, blocks=True),
]  # fmt: skip
