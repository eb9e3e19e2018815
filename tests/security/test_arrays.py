# SPDX-License-Identifier: Apache-2.0
"""Arrays, textures and references of a hostile guest: handles, extents and memory that are not its own."""

from __future__ import annotations

import struct

import pytest
import wire
from guest import CONTEXT, DEVICE_BYTES, Guest
from host import Host
from test_addresses import MAX, REGION, libc_of
from test_stream import ends

INVALID_VALUE, OUT_OF_MEMORY, INVALID_HANDLE = 1, 2, 400
DEVICE, ARRAY = 0, 3
FLOAT, SURFACE = 0x20, 2


def deep(width: int, height: int = 0, depth: int = 0, flags: int = 0, format_: int = FLOAT, channels: int = 1) -> bytes:
    """CUDA_ARRAY3D_DESCRIPTOR."""
    return struct.pack("<3Q4I", width, height, depth, format_, channels, flags, 0)


def handle(index: int, kind: str = "ARRAY") -> int:
    return wire.handle(kind, index)


@pytest.fixture
def guest(victim: Host):
    with Guest(victim) as made:
        made.start_context()
        yield made


def create(guest: Guest, index: int, *size: int, **more: int) -> int | None:
    return guest.call("cuArray3DCreate_v2", pHandle=handle(index), pAllocateArray=deep(*size, **more))


def test_arrays_are_booked_by_their_descriptors(guest: Guest) -> None:
    half = DEVICE_BYTES // 2
    free = guest.ask("cuMemGetInfo_v2")["free"]
    for size in ((MAX,), (1 << 40, 1 << 40), (MAX, MAX, MAX), (1 << 17, 1 << 16)):
        assert create(guest, 1, *size) == OUT_OF_MEMORY, size
    assert create(guest, 1, 4096, half // (4096 * 4)) == 0
    assert free - guest.ask("cuMemGetInfo_v2")["free"] == half
    assert create(guest, 2, 4096, half // (4096 * 4) + 1) == OUT_OF_MEMORY
    assert create(guest, 2, 4096, 1, 1 << 30, flags=1) == OUT_OF_MEMORY
    mipmap = {"pHandle": handle(1, "MIPMAPPED_ARRAY"), "numMipmapLevels": 12}
    assert guest.call("cuMipmappedArrayCreate", pMipmappedArrayDesc=deep(4096, 2048), **mipmap) == OUT_OF_MEMORY
    assert guest.call("cuMipmappedArrayCreate", pMipmappedArrayDesc=deep(2048, 1024), **mipmap) == 0
    taken = half + sum(4 * max(2048 >> i, 1) * max(1024 >> i, 1) for i in range(12))
    assert free - guest.ask("cuMemGetInfo_v2")["free"] == taken
    assert guest.call("cuArrayDestroy", hArray=handle(1)) == 0
    assert guest.call("cuArrayDestroy", hArray=handle(1)) == INVALID_HANDLE
    guest.ask("orion_ctx_end", context=CONTEXT, how=1)  # a reset gives back what is left
    guest.start_context()
    assert guest.ask("cuMemGetInfo_v2")["free"] == free


def box(dst: int, src: int, sides: tuple[int, int], **changes: int) -> bytes:
    """struct oc_copy_nd of 4 rows of 64 bytes; of an array pitch and rows say where in it."""
    fields = {"dst": dst, "src": src, "dst_pitch": 0 if sides[0] == ARRAY else 64, "src_pitch": 0 if sides[1] == ARRAY else 64,
              "dst_rows": 0 if sides[0] == ARRAY else 4, "src_rows": 0 if sides[1] == ARRAY else 4, "width": 64, "height": 4,
              "depth": 1} | changes  # fmt: skip
    return struct.pack("<9Q2I2I", *fields.values(), *sides, 0, 0)


def test_copies_name_arrays_by_handle_alone(guest: Guest) -> None:
    device = guest.alloc()
    assert create(guest, 1, 16, 4) == 0
    for name in ("orion_copy_nd", "orion_copy_nd_async"):
        assert guest.call(name, then=box(handle(1), device, (ARRAY, DEVICE))) == 0
        assert guest.call(name, then=box(device, handle(1), (DEVICE, ARRAY))) == 0
        for bad in (0, 1, handle(2), handle(1, "MEMPOOL"), handle(1) | 1, libc_of(guest.worker()), MAX):
            assert guest.call(name, then=box(bad, device, (ARRAY, DEVICE))) == INVALID_HANDLE, hex(bad)
            assert guest.call(name, then=box(device, bad, (DEVICE, ARRAY))) == INVALID_HANDLE, hex(bad)
        for changes in ({"dst_pitch": 4}, {"dst_pitch": MAX}, {"dst_rows": 1}, {"dst_rows": 1 << 32}, {"dst_rows": MAX},
                        {"width": 128}, {"height": 5}, {"depth": 2}, {"width": 63}):  # fmt: skip
            assert guest.call(name, then=box(handle(1), device, (ARRAY, DEVICE), **changes)) == INVALID_VALUE, changes
        assert guest.call(name, then=box(handle(1), device + (1 << 20) - 8, (ARRAY, DEVICE))) == INVALID_VALUE
        assert guest.call(name, then=box(handle(1), 0, (ARRAY, REGION))) == INVALID_VALUE
    peer = {"dst_context": CONTEXT, "src_context": CONTEXT, "wait": 1}
    assert guest.call("orion_copy_peer", then=box(handle(1), device, (ARRAY, DEVICE)), **peer) == 0
    assert guest.call("orion_copy_peer", then=box(handle(1), device - 8, (ARRAY, DEVICE)), **peer) == INVALID_VALUE
    assert guest.call("orion_copy_peer", then=box(handle(1), device, (ARRAY, DEVICE)), **(peer | {"src_context": 5})) == 201
    assert guest.call("orion_copy_peer", then=bytes(87), **peer) == INVALID_VALUE
    assert guest.call("orion_copy", dst=handle(1), src=device, bytes=64, dst_side=ARRAY) == INVALID_VALUE
    guest.ask("cuArrayDestroy", hArray=handle(1))
    assert guest.call("orion_copy_nd", then=box(handle(1), device, (ARRAY, DEVICE))) == INVALID_HANDLE


def test_levels_end_with_what_they_are_part_of(guest: Guest) -> None:
    mipmap = handle(1, "MIPMAPPED_ARRAY")
    guest.ask("cuMipmappedArrayCreate", pHandle=mipmap, pMipmappedArrayDesc=deep(64, 64), numMipmapLevels=7)
    level = guest.ask("cuMipmappedArrayGetLevel", pLevelArray=handle(3), hMipmappedArray=mipmap, level=2)["pLevelArray"]
    assert level == handle(3)
    again = guest.ask("cuMipmappedArrayGetLevel", pLevelArray=handle(4), hMipmappedArray=mipmap, level=2)["pLevelArray"]
    assert again == level
    assert guest.call("cuMipmappedArrayGetLevel", pLevelArray=handle(4), hMipmappedArray=mipmap, level=7) == INVALID_VALUE
    assert guest.call("cuArrayDestroy", hArray=level) == INVALID_HANDLE
    assert guest.call("cuArray3DGetDescriptor_v2", hArray=level) == 0
    guest.ask("cuMipmappedArrayDestroy", hMipmappedArray=mipmap)
    assert guest.call("cuArray3DGetDescriptor_v2", hArray=level) == INVALID_HANDLE
    assert guest.call("cuMipmappedArrayDestroy", hMipmappedArray=mipmap) == INVALID_HANDLE


def resource(kind: int, *words: int) -> bytes:
    """CUDA_RESOURCE_DESC of words of 8 bytes."""
    return struct.pack("<Q", kind) + struct.pack(f"<{len(words)}Q", *words).ljust(128, b"\0") + bytes(8)


def test_textures_read_what_is_the_clients(guest: Guest) -> None:
    device, worker = guest.alloc(1 << 20), libc_of(guest.worker())
    one_float = FLOAT | 1 << 32
    assert create(guest, 1, 16, 4, flags=SURFACE) == 0
    made = guest.ask("cuTexObjectCreate", pResDesc=resource(2, device, one_float, 1 << 20), pTexDesc=bytes(104))
    value = made["pTexObject"]
    assert guest.call("cuTexObjectGetResourceDesc", texObject=value) == 0
    for bad in ((0, one_float, 64), (worker, one_float, 64), (device, one_float, (1 << 20) + 1), (device - 512, one_float, 1024),
                (device, one_float, MAX), (handle(1), one_float, 64)):  # fmt: skip
        assert guest.call("cuTexObjectCreate", pResDesc=resource(2, *bad), pTexDesc=bytes(104)) == INVALID_VALUE, bad
    flat = (device, one_float, 64, 4096, 256)
    assert guest.call("cuTexObjectCreate", pResDesc=resource(3, *flat), pTexDesc=bytes(104)) == 0
    for at, wrong in ((0, worker), (2, MAX), (3, 4097), (3, MAX), (4, MAX), (4, 1 << 62), (1, FLOAT | 0xFFFFFFFF << 32)):
        bad = (*flat[:at], wrong, *flat[at + 1 :])
        assert guest.call("cuTexObjectCreate", pResDesc=resource(3, *bad), pTexDesc=bytes(104)) == INVALID_VALUE, bad
    for name, more in (("cuTexObjectCreate", {"pTexDesc": bytes(104)}), ("cuSurfObjectCreate", {})):
        assert guest.call(name, pResDesc=resource(0, handle(1)), **more) == 0
        for kind in (0, 1):
            assert guest.call(name, pResDesc=resource(kind, worker), **more) == INVALID_HANDLE
        assert guest.call(name, pResDesc=resource(4, handle(1)), **more) == INVALID_VALUE
    for name, field in (("cuTexObjectDestroy", "texObject"), ("cuSurfObjectDestroy", "surfObject")):
        for bad_value in (0, MAX, worker, 1 << 20):
            assert guest.call(name, **{field: bad_value}) == INVALID_VALUE
    guest.ask("cuTexObjectDestroy", texObject=value)
    assert guest.call("cuTexObjectDestroy", texObject=value) == INVALID_VALUE
    assert guest.call("cuTexObjectGetTextureDesc", texObject=value) == INVALID_VALUE


def test_lists_and_references_are_checked(guest: Guest) -> None:
    assert guest.call("cuMemMapArrayAsync", count=2, mapInfoList=bytes(96)) in (INVALID_VALUE, INVALID_HANDLE)
    assert guest.call("cuMemMapArrayAsync", count=0xFFFFFFFF, mapInfoList=bytes(96)) == INVALID_VALUE
    assert guest.call("cuMemMapArrayAsync", count=1, mapInfoList=bytes(96)) == INVALID_HANDLE
    for name in ("cuTexRefSetAddress2D_v3", "cuTexRefSetFormat", "cuTexRefGetArray"):
        values = {"desc": bytes(32)} if "2D" in name else {}
        assert guest.call(name, hTexRef=wire.handle("TEXREF", 1), **values) in (INVALID_HANDLE, 801)


@pytest.mark.parametrize("lie", [{"pResDesc_bytes": 143}, {"pTexDesc_bytes": 1 << 31}, {"pResViewDesc_bytes": 7}])
def test_cut_descriptions_end_the_channel(guest: Guest, lie: dict[str, int]) -> None:
    payload = wire.pack("cuTexObjectCreate", pResDesc=resource(0, handle(1)), pTexDesc=bytes(104), **lie)
    guest.post(wire.op_of("cuTexObjectCreate"), payload, 0, 1)
    ends(guest, "cut short")
