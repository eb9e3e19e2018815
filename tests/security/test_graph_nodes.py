# SPDX-License-Identifier: Apache-2.0
"""Nodes of graphs that name what is not the client's, and what is named after it has ended."""

from __future__ import annotations

import struct

import pytest
import wire
from test_addresses import DEVICE, EXTENT, INVALID_VALUE, MAX, REGION, foreign_extent, nd, places

__all__ = ["places"]
ALLOC, FREE, BATCH, COND, SHADOW, CHILD = 8, 9, 10, 11, 12, 5
UP, DOWN, HOST = 0, 1, 2
INVALID = (INVALID_VALUE, 400, 801)


@pytest.fixture
def graph(places):
    guest, device, grant, _ = places
    number = wire.handle("GRAPH", 1)
    guest.ask("cuGraphCreate", phGraph=number)

    def node(kind: int, blob: bytes, index: int = 1, **more: int) -> int | None:
        return guest.call("orion_node_add", graph=number, node=wire.handle("GRAPH_NODE", index), kind=kind, then=blob, **more)

    return guest, device, grant, number, node


def shadow(copy: bytes, way: int, n_bytes: int, bounce: tuple[int, int] = (0, 0)) -> bytes:
    """struct oc_node_shadow; its functions are never called."""
    return copy + struct.pack("<5QII", 1, 1, 1, n_bytes, bounce[0], bounce[1], way)


def test_shadows_copy_only_what_is_the_clients(graph) -> None:
    guest, device, grant, _, node = graph
    whole = 4 * 4 * 64
    up, foreign = nd(device, grant, REGION), foreign_extent(guest)
    assert node(SHADOW, shadow(up, UP, whole)) == 0
    for n_bytes in (0, whole - 1, whole + 1, MAX):
        assert node(SHADOW, shadow(up, UP, n_bytes)) == INVALID_VALUE
    assert node(SHADOW, shadow(up, 3, whole)) == INVALID_VALUE
    assert node(SHADOW, shadow(up, UP, whole)[:-1]) == INVALID_VALUE
    for source in (foreign, grant + EXTENT, MAX):
        assert node(SHADOW, shadow(nd(device, source, REGION), UP, whole)) == INVALID_VALUE
    assert node(SHADOW, shadow(nd(foreign, grant, REGION), UP, whole)) == INVALID_VALUE
    for bounce in ((foreign, 4096), (grant + EXTENT - 1, 2), (MAX, 16)):
        assert node(SHADOW, shadow(up, UP, whole, bounce)) == INVALID_VALUE
    huge = nd(device, device, DEVICE, width=1 << 20, height=1 << 11, depth=1, dst_pitch=1 << 20, dst_rows=1 << 11)
    assert node(SHADOW, shadow(huge, UP, 1 << 31, (grant, 4096))) == INVALID_VALUE


def test_memory_of_graphs_is_the_clients_own(graph) -> None:
    guest, device, _, _, node = graph
    for address in (0, device + 8, 0x7FFF00000000, MAX):
        assert node(FREE, struct.pack("<Q", address)) == INVALID_VALUE
    props = struct.pack("<IIii", 1, 0, 1, 0) + bytes(72)

    def alloc(n_bytes: int, start: bytes = props, access: int = 0, then: bytes = b"") -> int | None:
        return node(ALLOC, start + struct.pack("<4Q", 0, access, n_bytes, 0) + then, 2)

    assert alloc(MAX) == 2 and alloc(1 << 40) == 2
    assert alloc(4096, struct.pack("<IIii", 1, 0, 1, 7) + bytes(72)) in (1, 101)
    assert alloc(4096, struct.pack("<IIii", 1, 1, 1, 0) + bytes(72)) == 801
    assert alloc(4096, access=MAX) == INVALID_VALUE and alloc(4096, access=2, then=bytes(12)) == INVALID_VALUE
    assert alloc(4096) == 0


def test_batches_touch_only_what_is_the_clients(graph) -> None:
    guest, device, _, _, node = graph

    def batch(*ops: bytes, count: int | None = None) -> bytes:
        return struct.pack("<II", len(ops) if count is None else count, 0) + b"".join(ops)

    def write(address: int, kind: int = 2) -> bytes:
        return struct.pack("<IxxxxQQIxxxxQQ", kind, address, 1, 0, 0, 0)

    assert node(BATCH, batch(write(device), write(device + 8, 5))) == 0
    for address in (0, device - 4, device + (1 << 20), 0x7FFF00000000, MAX):
        assert node(BATCH, batch(write(device), write(address)), 2) == INVALID_VALUE
    assert node(BATCH, batch(write(device, 77)), 2) == INVALID_VALUE
    assert node(BATCH, batch(write(device), count=2), 2) == INVALID_VALUE
    assert node(BATCH, batch(count=0xFFFFFFFF), 2) == INVALID_VALUE


def test_conditions_are_those_that_the_driver_gave(graph) -> None:
    guest, device, _, number, node = graph
    body = wire.handle("GRAPH", 2)

    def condition(handle: int, size: int = 1, bodies: bytes = struct.pack("<Q", body), type_: int = 0) -> bytes:
        return struct.pack("<QII", handle, type_, size) + bodies

    for handle in (0, 1, device, MAX):
        assert node(COND, condition(handle)) == INVALID_VALUE
    made = guest.ask("cuGraphConditionalHandleCreate", hGraph=number, ctx=wire.handle("CONTEXT", 1))["pHandle_out"]
    assert node(COND, condition(made, 2)) == INVALID_VALUE
    assert node(COND, condition(made, 0xFFFFFFFF)) == INVALID_VALUE
    assert node(COND, condition(made)) == 0
    assert guest.call("cuGraphDestroy", hGraph=body) == INVALID_VALUE
    assert guest.call("orion_node_add", graph=body, node=wire.handle("GRAPH_NODE", 5), kind=0) == 0
    guest.ask("cuGraphDestroy", hGraph=number)
    for name, values in (("orion_graph_list", {"object": body}), ("orion_node_get", {"node": wire.handle("GRAPH_NODE", 5)}),
                         ("orion_node_add", {"graph": body, "node": wire.handle("GRAPH_NODE", 6)})):  # fmt: skip
        assert guest.call(name, **values) in INVALID, name


def test_what_a_destroyed_graph_owned_names_nothing(graph) -> None:
    guest, _, _, number, node = graph
    inner, again = wire.handle("GRAPH", 2), wire.handle("GRAPH", 3)
    guest.ask("cuGraphCreate", phGraph=inner)
    guest.ask("orion_node_add", graph=inner, node=wire.handle("GRAPH_NODE", 2), kind=0)
    assert node(CHILD, struct.pack("<QII", inner, 1, 0)) == 0  # moved: it ends with its parent now
    assert node(CHILD, struct.pack("<QII", inner, 1, 0), 3) != 0
    assert guest.call("cuGraphDestroy", hGraph=inner) == INVALID_VALUE
    answer = guest.ask("orion_node_get", node=wire.handle("GRAPH_NODE", 1), candidate=again)
    assert answer["kind"] == CHILD
    guest.ask("cuGraphDestroy", hGraph=number)
    for name, values in (("orion_graph_list", {"object": inner}), ("cuGraphClone", {"originalGraph": inner, "phGraphClone": again}),
                         ("cuGraphNodeGetType", {"hNode": wire.handle("GRAPH_NODE", 2)}),
                         ("cuGraphDestroyNode", {"hNode": wire.handle("GRAPH_NODE", 1)})):  # fmt: skip
        assert guest.call(name, **values) in INVALID, name
