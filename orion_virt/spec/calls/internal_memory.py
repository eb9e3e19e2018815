# SPDX-License-Identifier: Apache-2.0
"""Operations of our own that the memory, stream and graph families need, one line each."""

from ..schema import ASYNC, inp, internal, out
from ..types import CAPTURE_MODE, GRAPH, GRAPH_EXEC, STREAM, WI32, WU32, WU64

# Sides are enum oc_side, nodes enum oc_node of <orion/bulk.h>. Where a line says "then", bytes follow
# the struct: the client writes them, the body by hand checks their length.
CALLS = [
    # copies; then the bytes of an INLINE source. A fence number other than 0 is published when the copy is done
    internal(50, "orion_copy", inp("dst", WU64), inp("src", WU64), inp("bytes", WU64), inp("stream", WU64), inp("fence", WU64), inp("dst_side", WU32), inp("src_side", WU32), blocks=True, reports=True),
    internal(51, "orion_copy_async", inp("dst", WU64), inp("src", WU64), inp("bytes", WU64), inp("stream", WU64), inp("fence", WU64), inp("dst_side", WU32), inp("src_side", WU32), order=ASYNC),
    # then struct oc_copy_nd
    internal(52, "orion_copy_nd", inp("stream", WU64), inp("fence", WU64), blocks=True, reports=True),
    internal(53, "orion_copy_nd_async", inp("stream", WU64), inp("fence", WU64), order=ASYNC),
    # at most OC_READ_MAX bytes, which follow the answer
    internal(54, "orion_read", inp("src", WU64), inp("stream", WU64), inp("src_side", WU32), inp("bytes", WU32), out("got", WU64), blocks=True, reports=True),
    internal(55, "orion_fence_wait", inp("fence", WU64), blocks=True, reports=True, context=False),
    # waits for all work of all devices, before host memory is used for something else
    internal(56, "orion_host_sync", blocks=True, context=False),
    # what the ledger knows of an address: kind 0 nothing, 1 memory, 2 a reservation of addresses
    internal(57, "orion_pointer", inp("ptr", WU64), out("start", WU64), out("bytes", WU64), out("context", WU64), out("id", WU64), out("pool", WU64), out("device", WI32), out("kind", WU32), context=False),
    # kind 0 CUhostFn, 1 CUstreamCallback; fn and data are the guest's
    internal(58, "orion_host_func", inp("stream", STREAM), inp("fn", WU64), inp("data", WU64), inp("kind", WU32)),
    internal(59, "orion_capture_mode", inp("mode", CAPTURE_MODE), order=ASYNC, context=False),
    # `graph` names its graph if that has no number yet; then room handles for dependencies without one; answer: then
    # the handles of its dependencies
    internal(60, "orion_capture_info", inp("stream", STREAM), inp("graph", WU64), inp("room", WU32), out("id", WU64), out("graph_id", WU64), out("status", WU32), out("count", WU32)),
    # then count dependencies (u64 each), then the struct of enum oc_node
    internal(61, "orion_graph_node", inp("graph", WU64), inp("node", WU64), inp("context", WU64), inp("kind", WU32), inp("count", WU32), blocks=True, context=False),
    # what 0 nodes of graph `object`, 1 its roots, 2 dependencies of node `object`, 3 its dependents; then room
    # new handles; answer: count there are, then up to room handles from the first-th on
    internal(62, "orion_graph_list", inp("object", WU64), inp("first", WU64), inp("what", WU32), inp("room", WU32), out("count", WU64), context=False),
    # parameters of a node, in its graph (exec 0) or in an instantiated one; then the struct of enum oc_node
    internal(64, "orion_node_set", inp("exec", WU64), inp("node", WU64), inp("context", WU64), inp("kind", WU32), blocks=True, context=False),
    internal(65, "orion_graph_instantiate", inp("graph", GRAPH), inp("exec", WU64), inp("flags", WU64), inp("stream", WU64), out("result", WU32), blocks=True),
    internal(66, "orion_graph_update", inp("exec", GRAPH_EXEC), inp("graph", GRAPH), out("node", WU64), out("from", WU64), out("result", WU32), out("answer", WU32), blocks=True),
    internal(67, "orion_pool_attribute", inp("pool", WU64), inp("attribute", WU32), inp("set", WU32), inp("value", WU64), out("got", WU64), blocks=True),
]  # fmt: skip
