# SPDX-License-Identifier: Apache-2.0
"""Operations of our own that the graph functions need, one line each."""

from ..schema import buf, inp, internal, out
from ..types import BYTE, GRAPH, GRAPH_EXEC, GRAPH_NODE, STREAM, WI32, WU32, WU64

# Node kinds are enum oc_node of <orion/nodes.h>. Where a line says "then", bytes follow the struct: the client writes
# them, the body by hand checks their length. A candidate is a handle that becomes the number of what has none yet.
CALLS = [
    # then count dependencies (u64 each), if edges != 0 their CUgraphEdgeData, then the struct of enum oc_node
    internal(900, "orion_node_add", inp("graph", WU64), inp("node", WU64), inp("context", WU64), inp("kind", WU32), inp("count", WU32), inp("edges", WU32), out("ptr", WU64), blocks=True, context=False),
    # parameters of a node, in its graph (exec 0) or in an instantiated one; then the struct of enum oc_node
    internal(901, "orion_node_set", inp("exec", WU64), inp("node", WU64), inp("context", WU64), inp("kind", WU32), blocks=True, context=False),
    # answer: enum oc_node, how long its struct is; then bytes of it from `first` on
    internal(902, "orion_node_get", inp("node", WU64), inp("candidate", WU64), inp("first", WU32), out("kind", WU32), out("total", WU32), context=False),
    # what 0 edges of graph `object`, 1 edges to node `object`, 2 edges from it; then 2 candidates for each of room
    # edges; answer: count there are, then of each from the first-th on: from, to, edge data
    internal(903, "orion_graph_edges", inp("object", WU64), inp("first", WU64), inp("what", WU32), inp("room", WU32), out("count", WU64), context=False),
    # the driver's own handle where device code uses it (DEVICE_LAUNCH), else 0; what failed, with its reasons; whether
    # a launch may be refused for memory, so that the guest waits for its answer
    internal(904, "orion_exec_make", inp("graph", GRAPH), inp("exec", WU64), inp("flags", WU64), inp("stream", WU64), inp("candidate", WU64), out("real", WU64), out("node", WU64), out("result", WU32), out("answer", WU32), out("allocates", WU32), blocks=True, grows=True),
    internal(905, "orion_capture_end", inp("stream", STREAM), inp("candidate", WU64), out("graph", WU64), blocks=True),
    # then a candidate for each of room dependencies; answer: then of each from the first-th on: node, edge data
    internal(906, "orion_capture_state", inp("stream", STREAM), inp("candidate", WU64), inp("first", WU32), inp("room", WU32), out("id", WU64), out("graph", WU64), out("status", WU32), out("count", WU32)),
    # then struct oc_node_shadow: a copy of ordinary memory becomes a node of the capture
    internal(907, "orion_capture_shadow", inp("stream", STREAM)),
    internal(908, "orion_graph_memory", inp("device", WI32), inp("attribute", WU32), inp("set", WU32), inp("value", WU64), out("got", WU64), context=False),
    internal(909, "orion_clone_find", inp("node", GRAPH_NODE), inp("graph", GRAPH), inp("candidate", WU64), out("found", WU64), context=False),
    internal(910, "orion_exec_update", inp("exec", GRAPH_EXEC), inp("graph", GRAPH), inp("candidate", WU64), inp("candidate_from", WU64), out("node", WU64), out("from", WU64), out("result", WU32), out("answer", WU32), blocks=True),
    internal(911, "orion_node_graph", inp("node", GRAPH_NODE), inp("candidate", WU64), out("graph", WU64), context=False),
    # as orion_launch_ex, of a kernel node that device code may change: answers the driver's name for it
    internal(912, "orion_launch_updatable", inp("function", WU64), inp("stream", WU64), inp("grid_x", WU32), inp("grid_y", WU32), inp("grid_z", WU32), inp("block", WU32), inp("shared", WU32), inp("attrs_bytes", WU32), inp("bytes", WU32), buf("attributes", BYTE, "attrs_bytes"), buf("params", BYTE, "bytes"), out("node", WU64), works=True),
    # the same of a node that is there
    internal(913, "orion_node_updatable", inp("node", GRAPH_NODE), out("name", WU64), context=False),
]  # fmt: skip
