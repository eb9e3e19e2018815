# SPDX-License-Identifier: Apache-2.0
"""Addresses, handles and sizes that are not the client's: CUDA's error, and never a byte of anybody else's memory."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import wire
from guest import DEVICE_BYTES, REPLY, Guest
from host import Host, wait_for
from test_stream import ends

from orion_virt import layout
from orion_virt.codegen.text import is_variable

EXTENT = layout.EXTENT_BYTES
INVALID_VALUE, OUT_OF_MEMORY = 1, 2
DEVICE, REGION, INLINE = 0, 1, 2
MAX = 0xFFFFFFFFFFFFFFFF


def libc_of(pid: int) -> int:
    """An address in the worker's own memory."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(int(line.split("-")[0], 16) for line in maps if "libc" in line and "r-xp" in line)


def foreign_extent(guest: Guest) -> int:
    """The block of the neighbour in this region: granted, to somebody else."""
    return next(off for off in range(EXTENT, guest.block, EXTENT))


@pytest.fixture
def places(victim: Host):
    """A guest with memory, and what is not its own, as (side, address, bytes)."""
    with Guest(victim) as guest:
        guest.start_context()
        device, grant = guest.alloc(1 << 20), guest.ask("orion_grant", bytes=EXTENT)["off"]
        worker = libc_of(guest.worker())
        base = layout.BASES[0]
        bad = [
            (DEVICE, 0, 16), (DEVICE, worker, 16), (DEVICE, base + foreign_extent(guest), 16), (DEVICE, 0x7FFF00000000, 16),
            (DEVICE, base + grant, 16),
            (DEVICE, device + (1 << 20), 1), (DEVICE, device - 1, 2), (DEVICE, device, (1 << 20) + 1), (DEVICE, device, MAX),
            (DEVICE, device, MAX - device + 1), (DEVICE, MAX, 16), (DEVICE, MAX - 7, 8),
            (REGION, foreign_extent(guest), 16), (REGION, 0, 64), (REGION, 56, 16), (REGION, grant + EXTENT, 1),
            (REGION, grant + EXTENT - 8, 16), (REGION, MAX, 1), (REGION, MAX - 7, 16), (REGION, worker - base & MAX, 16),
            (REGION, grant, MAX), (REGION, (64 << 20) + EXTENT, 16), (7, device, 16),
        ]  # fmt: skip
        yield guest, device, grant, bad


def test_copies_touch_only_what_is_the_clients(places) -> None:
    guest, device, _, bad = places
    neighbour = bytes(guest.memory[foreign_extent(guest) + layout.STAGING_OFF :][: 1 << 16])
    for side, address, n_bytes in bad:
        about = f"side {side} address 0x{address:x} bytes 0x{n_bytes:x}"
        out = {"dst": address, "src": device, "bytes": n_bytes, "dst_side": side}
        into = {"dst": device, "src": address, "bytes": n_bytes, "src_side": side}
        for name in ("orion_copy", "orion_copy_async"):
            assert guest.call(name, **out) == INVALID_VALUE, about
            if side != INLINE:
                assert guest.call(name, **into) == INVALID_VALUE, about
        if n_bytes <= 900:
            assert guest.call("orion_read", src=address, src_side=side, bytes=n_bytes) == INVALID_VALUE, about
    assert guest.call("orion_read", src=device, src_side=0, bytes=0xFFFFFFFF) == INVALID_VALUE
    assert guest.call("orion_copy", dst=device, bytes=17, src_side=INLINE, then=bytes(16)) == INVALID_VALUE
    assert guest.call("orion_copy", dst=device, bytes=16, src_side=INLINE, then=bytes(16)) == 0
    assert neighbour.count(0) == bytes(guest.memory[foreign_extent(guest) + layout.STAGING_OFF :][: 1 << 16]).count(0)


def test_memsets_and_driver_copies_touch_only_device_memory(places) -> None:
    guest, device, grant, bad = places
    own = layout.BASES[0] + grant
    for side, address, n_bytes in bad:
        if side != DEVICE or address == own:
            continue
        assert guest.call("cuMemsetD8_v2", dstDevice=address, uc=1, N=n_bytes) == INVALID_VALUE
        assert guest.call("cuMemcpyDtoD_v2", dstDevice=address, srcDevice=device, ByteCount=n_bytes) == INVALID_VALUE
        assert guest.call("cuMemcpyDtoD_v2", dstDevice=device, srcDevice=address, ByteCount=n_bytes) == INVALID_VALUE
        assert guest.call("cuStreamWriteValue64_v2", addr=address + n_bytes - 8 & MAX, value=1) in (INVALID_VALUE, 400)
        if address not in (0, device):
            assert guest.call("cuMemFree_v2", dptr=address) == INVALID_VALUE
    for pitch, width, height in ((MAX, 2, 2), (1 << 63, 2, 3), (0, 1 << 19, 4), (1 << 19, 1 << 19, 3), (4, MAX, 1), (4, 4, MAX)):
        values = {"dstDevice": device, "dstPitch": pitch, "uc": 1, "Width": width, "Height": height}
        assert guest.call("cuMemsetD2D8_v2", **values) == INVALID_VALUE, (pitch, width, height)


def nd(device: int, other: int, side: int, **changes: int) -> bytes:
    """struct oc_copy_nd: four slices of four rows of 64 bytes from `other` to device memory."""
    fields = {"dst": device, "src": other, "dst_pitch": 64, "src_pitch": 64, "dst_rows": 4, "src_rows": 4, "width": 64,
              "height": 4, "depth": 4, "sides": side << 32, "rest": 0} | changes  # fmt: skip
    return struct.pack("<11Q", *fields.values())


BAD_ND = [
    {"src_pitch": 1 << 62}, {"src_pitch": MAX}, {"dst_pitch": MAX}, {"src_pitch": 0}, {"src_pitch": 63}, {"dst_pitch": 0},
    {"src_rows": 1 << 62}, {"src_rows": MAX}, {"src_rows": 0}, {"src_rows": 3}, {"height": MAX}, {"depth": MAX},
    {"width": MAX}, {"height": 0}, {"depth": 0}, {"width": 0}, {"depth": 1 << 15, "src_rows": 4}, {"src": MAX - 63},
    {"src": 1 << 21}, {"sides": 7 << 32}, {"sides": 2 << 32}, {"sides": 2}, {"src_pitch": 1 << 32, "src_rows": 1 << 32},
]  # fmt: skip


@pytest.mark.parametrize("side", [DEVICE, REGION])
def test_copies_of_rows_do_not_overflow(places, side: int) -> None:
    guest, device, grant, _ = places
    source = grant if side == REGION else device + (1 << 16)
    for name in ("orion_copy_nd", "orion_copy_nd_async"):
        assert guest.call(name, then=nd(device, source, side)) == 0
        for changes in BAD_ND:
            assert guest.call(name, then=nd(device, source, side, **changes)) == INVALID_VALUE, changes
        assert guest.call(name, then=nd(device, source, side)[:-1]) == INVALID_VALUE


def test_nodes_of_graphs_are_checked_as_copies_are(places) -> None:
    guest, device, grant, bad = places
    graph = wire.handle("GRAPH", 1)
    guest.ask("cuGraphCreate", phGraph=graph)

    def node(index: int, kind: int, blob: bytes) -> int | None:
        return guest.call("orion_node_add", graph=graph, node=wire.handle("GRAPH_NODE", index), kind=kind, then=blob)

    for side, address, n_bytes in bad:
        assert node(1, 2, nd(device, address, side, width=n_bytes, height=1, depth=1)) == INVALID_VALUE
        if side == DEVICE and address != layout.BASES[0] + grant:
            assert node(1, 3, struct.pack("<4QII", address, 0, n_bytes, 1, 1, 1)) == INVALID_VALUE
    for changes in BAD_ND:
        assert node(1, 2, nd(device, device, DEVICE, **changes)) == INVALID_VALUE
    for memset in ((device, MAX, 2, 2, 1, 1), (device, 0, 1 << 19, 4, 1, 1), (device, 0, MAX, 1, 1, 4), (device, 0, 1, 1, 1, 3)):
        assert node(1, 3, struct.pack("<4QII", *memset)) == INVALID_VALUE
    for kind in (1, 5, 6, 7):
        assert node(1, kind, bytes(56)) not in (0, None)
        assert node(1, kind, b"") == INVALID_VALUE
    assert node(1, 99, bytes(64)) == INVALID_VALUE
    assert guest.call("orion_node_add", graph=graph, node=1, kind=0, count=0xFFFFFFFF) == INVALID_VALUE


def test_memory_given_back_under_a_graph_ends_its_own_channel(places) -> None:
    guest, device, grant, _ = places
    graph, exec_ = wire.handle("GRAPH", 1), wire.handle("GRAPH_EXEC", 1)
    guest.ask("cuGraphCreate", phGraph=graph)
    guest.ask("orion_node_add", graph=graph, node=wire.handle("GRAPH_NODE", 1), kind=2, then=nd(device, grant, REGION))
    guest.ask("orion_exec_make", graph=graph, exec=exec_)
    guest.ask("orion_release", off=grant, bytes=EXTENT)
    guest.send("cuGraphLaunch", hGraph=exec_, hStream=0)
    guest.post(wire.op_of("cuStreamSynchronize"), wire.pack("cuStreamSynchronize", hStream=0), 0, REPLY)
    assert wait_for(guest.is_over)
    assert "region memory was used after it was given back" in guest.log()


def test_extents_of_others_cannot_be_given_back(places) -> None:
    guest, _, grant, _ = places
    whole = 64 << 20
    wrong = [(foreign_extent(guest), EXTENT), (guest.block, EXTENT), (0, EXTENT), (grant, 2 * EXTENT), (grant, 4096), (grant, 0),
             (grant + 4096, EXTENT), (whole, EXTENT), (MAX, EXTENT), (grant, MAX), (grant, 0 - EXTENT & MAX)]  # fmt: skip
    for off, n_bytes in wrong:
        assert guest.call("orion_release", off=off, bytes=n_bytes) == INVALID_VALUE, (off, n_bytes)
    assert guest.call("orion_release", off=grant, bytes=EXTENT) == 0
    assert guest.call("orion_release", off=grant, bytes=EXTENT) == INVALID_VALUE


def test_a_flood_of_grants_takes_what_is_free_and_gives_it_back(victim: Host) -> None:
    with Guest(victim) as guest:
        got = 0
        while (result := guest.call("orion_grant", bytes=EXTENT)) == 0:
            got += 1
            assert got < 64
        assert result == OUT_OF_MEMORY and got > 20
        for n_bytes in (MAX, 1 << 62, 64 << 20, EXTENT):
            assert guest.call("orion_grant", bytes=n_bytes) == OUT_OF_MEMORY
        assert guest.call("orion_grant", bytes=0) == INVALID_VALUE
        assert "shm_buffer_size" in guest.log() and len(guest.log()) < 20_000


def test_contexts_are_counted(victim: Host) -> None:
    with Guest(victim) as guest:
        results = [guest.call("orion_ctx_activate", context=wire.handle("CONTEXT", 10 + i), device=0, kind=1) for i in range(20)]
        assert results == [0] * 16 + [OUT_OF_MEMORY] * 4
        assert guest.call("orion_ctx_end", context=wire.handle("CONTEXT", 12), how=2) == 0
        assert guest.call("orion_ctx_end", context=wire.handle("CONTEXT", 12), how=2) == 201
        assert guest.call("orion_ctx_activate", context=wire.handle("CONTEXT", 40), device=0, kind=1) == 0


def one_handle_calls() -> list[tuple[str, str, str]]:
    """(call, parameter, kind) of every handle that goes in, but for those that may be NULL."""
    return [(call.name, p.name, p.type.handle) for call in wire.spec().crossing for p in call.params
            if p.type.handle and p.dir == "in" and not is_variable(p)]  # fmt: skip


def test_handles_of_every_kind_that_name_nothing(victim: Host) -> None:
    """Forged, stale and of a foreign kind: no call takes one, whatever the other parameters are."""
    with Guest(victim) as guest:
        guest.start_context()
        live = wire.handle("EVENT", 5)
        guest.send("cuEventCreate", phEvent=live)
        guest.send("cuEventDestroy_v2", hEvent=live)
        guest.send("cuEventCreate", phEvent=wire.handle("EVENT", 5, 2))
        checked = 0
        for name, param, kind in one_handle_calls():
            for value in (wire.handle(kind, 77), wire.handle(kind, 0xFFFFF, 0xFFFF), live | 1, 64 << 40 | 16, 0xDEADBEEF, MAX,
                          live if kind == "EVENT" else wire.handle("EVENT", 5, 2)):  # fmt: skip
                raw = wire.pack(name, **{param: value}) + bytes(256)
                answer = guest.answer(guest.post(wire.op_of(name), raw, 0, REPLY))
                assert answer is not None, (name, param, hex(value), guest.log())
                assert answer[0] != 0, (name, param, hex(value))
                checked += 1
        assert checked > 200


@pytest.mark.parametrize(
    ("name", "param", "kind"),
    [("cuEventCreate", "phEvent", "EVENT"), ("cuStreamCreate", "phStream", "STREAM"), ("cuGraphCreate", "phGraph", "GRAPH")],
)
def test_a_number_is_given_once(victim: Host, name: str, param: str, kind: str) -> None:
    for wrong in (wire.handle(kind, 3), wire.handle("LINK", 3), 0, 5):
        with Guest(victim) as guest:
            guest.start_context()
            assert guest.call(name, **{param: wire.handle(kind, 3)}) == 0
            guest.post(wire.op_of(name), wire.pack(name, **{param: wrong}), 0, REPLY)
            ends(guest, name)


def test_all_kinds_of_memory_together_stay_below_the_limit(victim: Host) -> None:
    """Whatever a client asks for, by whatever call: two clients never have more than what both were granted."""
    with Guest(victim) as first, Guest(victim) as second:
        for guest in (first, second):
            guest.start_context()
            taken = fill(guest)
            assert DEVICE_BYTES - (4 << 20) < taken <= DEVICE_BYTES
            info = guest.ask("cuMemGetInfo_v2")
            assert info["total"] == DEVICE_BYTES and info["free"] < 4 << 20


def fill(guest: Guest) -> int:
    """Takes until every way is refused; the bytes it got."""
    step, taken, index = 2 << 20, 0, 10
    prop = struct.pack("<4i", 1, 0, 1, 0) + bytes(16)
    ways = ("cuMemAlloc_v2", "cuMemAllocAsync", "cuMemAllocPitch_v2", "cuArrayCreate_v2", "cuArray3DCreate_v2", "cuMemCreate")
    refused: set[str] = set()
    while len(refused) < len(ways):
        for name in ways:
            index += 1
            values: dict[str, object] = {
                "cuMemAlloc_v2": {"bytesize": step},
                "cuMemAllocAsync": {"bytesize": step},
                "cuMemAllocPitch_v2": {"WidthInBytes": 4096, "Height": step // 4096, "ElementSizeBytes": 4},
                "cuArrayCreate_v2": {"pHandle": wire.handle("ARRAY", index),
                                     "pAllocateArray": struct.pack("<QQII", 1024, step // 4096, 0x20, 1)},
                "cuArray3DCreate_v2": {"pHandle": wire.handle("ARRAY", index),
                                       "pAllocateArray": struct.pack("<QQQIIII", 1024, step // 4096, 1, 0x20, 1, 0, 0)},
                "cuMemCreate": {"handle": wire.handle("MEM_ALLOCATION", index), "size": step, "prop": prop},
            }[name]  # fmt: skip
            result = guest.call(name, **values)
            if result == 0:
                taken += step
            else:
                assert result in (OUT_OF_MEMORY, 801), (name, result)
                refused.add(name)
    return taken
