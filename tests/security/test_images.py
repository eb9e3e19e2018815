# SPDX-License-Identifier: Apache-2.0
"""Images, their options and the parameters of kernels, from a guest that lies about all of them."""

from __future__ import annotations

import struct

import fuzz
import pytest
import wire
from guest import REPLY, Guest
from host import Host
from test_stream import ends

from orion_virt import layout

INVALID_VALUE, OUT_OF_MEMORY, INVALID_IMAGE, INVALID_HANDLE = 1, 2, 200, 400
RAW, WRAPPED = 0, 1
FATBIN, WRAPPER = 0xBA55ED50, 0x466243B1
MODULE, LIBRARY, FUNCTION = wire.handle("MODULE", 1), wire.handle("LIBRARY", 1), wire.handle("FUNCTION", 1)
INFO_BYTES, ERROR_BYTES = 4, 6


@pytest.fixture
def guest(victim: Host):
    with Guest(victim) as made:
        made.start_context()
        yield made


def upload(guest: Guest, data: bytes, kind: int = RAW, image: int = 1) -> None:
    guest.send("orion_image_drop", image=image)
    guest.send("orion_image_begin", image=image, kind=kind, pieces=1)
    guest.send("orion_image_piece", image=image, bytes=len(data))
    for at in range(0, len(data), 16384):
        guest.send("orion_image_data", image=image, offset=at, data=data[at : at + 16384])


def load(guest: Guest, *options: int, image: int = 1, module: int = MODULE) -> int | None:
    return guest.call("orion_module_load", module=module, image=image, count=len(options),
                      options=struct.pack(f"<{len(options)}Q", *options))  # fmt: skip


def elf(**changes: int) -> bytes:
    """A 64-bit ELF header with one section, all of it inside unless changed."""
    h = {"class": 2, "phoff": 0, "shoff": 64, "phentsize": 0, "phnum": 0, "shentsize": 64, "shnum": 1, "shstrndx": 0,
         "type": 1, "offset": 64, "size": 64} | changes  # fmt: skip
    head = b"\x7fELF" + bytes([h["class"], 1, 1]) + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 190, 1, 0, h["phoff"], h["shoff"],
        0, 64, h["phentsize"], h["phnum"], h["shentsize"], h["shnum"], h["shstrndx"])  # fmt: skip
    return head + struct.pack("<IIQQQQIIQQ", 0, h["type"], 0, 0, h["offset"], h["size"], 0, 0, 1, 0)


def fatbin(header: int = 16, files: int | None = None, kind: int = 1, entry: int = 64, payload: int | None = None) -> bytes:
    text = fuzz.PTX
    first = struct.pack("<HHIQ", kind, 0x101, entry, len(text) if payload is None else payload) + bytes(48)
    body = first + text
    return struct.pack("<IHHQ", FATBIN, 1, header, len(body) if files is None else files) + body


BIG = 0xFFFFFFFFFFFFFFFF
HOSTILE = [
    elf(shoff=BIG), elf(shoff=1 << 62), elf(shnum=0xFFFF), elf(shentsize=1), elf(shstrndx=9), elf(size=BIG), elf(offset=BIG),
    elf(phnum=9, phoff=BIG, phentsize=56), elf(phnum=0xFFFF, phentsize=56), elf(phnum=1, phentsize=55), elf(**{"class": 1}),
    elf()[:40], b"\x7fELF", fatbin(header=8), fatbin(header=0xFFFF), fatbin(files=BIG), fatbin(files=7), fatbin(entry=8),
    fatbin(entry=0xFFFFFFFF), fatbin(payload=BIG), fatbin(payload=1 << 40), fatbin()[:15], fatbin(kind=2), b"!<arch>\n",
    b"!<arch>\n" + bytes(60), b"!<arch>\n" + b" " * 48 + b"9999999999`\n", b"no end", b"\x01\x02\x03\0",
    struct.pack("<IIQQ", WRAPPER, 1, 0xDEAD000, 0), struct.pack("<IIQQ", WRAPPER, 2, 0x7F0000000000, 8), b"BC\xc0\xde" + bytes(60)[:-1] + b"x",
]  # fmt: skip


def test_what_lies_behind_a_fatbins_entries_is_nobodys(guest: Guest) -> None:
    bad = elf(shoff=1 << 46)
    upload(guest, fatbin() + struct.pack("<HHIQ", 2, 0x101, 64, len(bad)) + bytes(48) + bad)
    assert load(guest) == 0


def test_headers_that_point_outside_are_no_images(guest: Guest) -> None:
    for number, data in enumerate(HOSTILE):
        upload(guest, data)
        result = load(guest, module=wire.handle("MODULE", 50 + number))
        assert result in (INVALID_IMAGE, 209, 218, 300), (number, data[:16], result)
        library = guest.call("orion_library_load", library=wire.handle("LIBRARY", 50 + number), image=1, options=b"")
        assert library in (INVALID_IMAGE, 209, 218, 300), (number, data[:16], library)


@pytest.mark.parametrize("data", [fuzz.PTX, elf(), fatbin()[:12], struct.pack("<IIQQ", WRAPPER, 1, 0xDEAD000, 0)])
def test_a_wrapper_holds_a_fat_binary_alone(guest: Guest, data: bytes) -> None:
    upload(guest, data, WRAPPED)
    assert load(guest) == INVALID_IMAGE


def test_sizes_of_pieces(guest: Guest) -> None:
    for n_bytes in (BIG, 1 << 62, 1 << 40, (1 << 30) + 1):
        guest.send("orion_image_begin", image=7, kind=RAW, pieces=1)
        guest.send("orion_image_piece", image=7, bytes=n_bytes)
        assert load(guest, image=7) == OUT_OF_MEMORY
        guest.send("orion_image_drop", image=7)
    for image in range(100, 116):  # a gigabyte each, of which no byte is written
        guest.send("orion_image_begin", image=image, kind=RAW, pieces=1)
        guest.send("orion_image_piece", image=image, bytes=1 << 30)
        assert load(guest, image=image) in (OUT_OF_MEMORY, INVALID_IMAGE)
    assert load(guest, image=115) == OUT_OF_MEMORY
    assert load(guest, image=0) == load(guest, image=BIG) == OUT_OF_MEMORY
    for image in range(100, 116):
        guest.send("orion_image_drop", image=image)
    guest.send("orion_image_begin", image=8, kind=RAW, pieces=1)
    guest.send("orion_image_piece", image=8, bytes=64)
    assert load(guest, image=8) == INVALID_IMAGE  # not all of it came


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("orion_image_begin", {"image": 1, "kind": 0, "pieces": 1}),
        ("orion_image_begin", {"image": 2, "kind": 3, "pieces": 1}),
        ("orion_image_begin", {"image": 2, "kind": 0, "pieces": 0}),
        ("orion_image_begin", {"image": 2, "kind": 2, "pieces": 0xFFFFFFFF}),
        ("orion_image_begin", {"image": 0, "kind": 0, "pieces": 1}),
        ("orion_image_piece", {"image": 1, "bytes": 5}),
        ("orion_image_data", {"image": 1, "offset": 1, "data": b"12345678"}),
        ("orion_image_data", {"image": 1, "offset": len(fuzz.PTX), "data": b"x"}),
        ("orion_image_data", {"image": 1, "offset": BIG, "data": b"12345678"}),
        ("orion_image_data", {"image": 1, "data_bytes": 0xFFFFFFF0}),
        ("orion_module_load", {"module": MODULE, "image": 1, "count": 0xFFFFFFFF, "options": b""}),
        ("orion_module_load", {"module": MODULE, "image": 1, "count": 1, "options_bytes": 8}),
        ("orion_module_function", {"module": MODULE, "function": FUNCTION, "name": b"not terminated"}),
        ("orion_module_function", {"module": MODULE, "function": FUNCTION, "name_bytes": 0xFFFFFFFF}),
        ("orion_library_kernel", {"library": LIBRARY, "kernel": wire.handle("KERNEL", 1), "name": b""}),
        ("orion_module_enumerate", {"module": MODULE, "count": 3, "functions": b""}),
        ("orion_launch", {"function": FUNCTION, "params_bytes": 0xFFFFFFFF}),
        ("orion_launch_ex", {"function": FUNCTION, "attributes_bytes": 0xFFFFFFF8, "params_bytes": 16}),
        ("orion_launch_ex", {"function": FUNCTION, "attributes_bytes": 4, "params": b""}),
        ("orion_occupancy", {"function": FUNCTION, "what": 9}),
        ("orion_occupancy_cluster", {"function": FUNCTION, "attributes_bytes": 0xFFFFFF00}),
    ],
)
def test_what_no_client_of_ours_sends_ends_the_channel(guest: Guest, name: str, values: dict[str, object]) -> None:
    upload(guest, fuzz.PTX)
    assert load(guest) == 0
    guest.ask("orion_module_function", module=MODULE, function=FUNCTION, name=b"a\0")
    guest.post(wire.op_of(name), wire.pack(name, **values), 0, REPLY)
    ends(guest, f"{name} of guest thread 0")


def test_images_come_from_the_guests_own_memory(guest: Guest) -> None:
    guest.send("orion_image_drop", image=1)
    guest.send("orion_image_begin", image=1, kind=RAW, pieces=1)
    guest.send("orion_image_piece", image=1, bytes=len(fuzz.PTX))
    for region, n_bytes in ((0, 8), (guest.block - 8, 16), (guest.block + layout.CHANNEL_BYTES - 8, 16), (BIG, 16),
                            (guest.block, BIG), (guest.block + 8, BIG - 7), (1 << 40, 8)):  # fmt: skip
        assert guest.call("orion_image_bulk", image=1, offset=0, region=region, bytes=n_bytes) == INVALID_VALUE
    at = guest.block + layout.STAGING_OFF
    guest.memory[at : at + len(fuzz.PTX)] = fuzz.PTX
    assert guest.call("orion_image_bulk", image=99, offset=0, region=at, bytes=8) == 0
    assert guest.call("orion_image_bulk", image=1, offset=0, region=at, bytes=len(fuzz.PTX)) == 0
    assert load(guest) == 0
    more = wire.pack("orion_image_bulk", image=1, offset=len(fuzz.PTX), region=at, bytes=1)
    guest.post(wire.op_of("orion_image_bulk"), more, 0, REPLY)
    ends(guest, "orion_image_bulk of guest thread 0")


def test_options_that_are_pointers_are_refused(guest: Guest) -> None:
    upload(guest, fuzz.PTX)
    for option in (3, 5, 17, 18, 19, 25, 26, 27, 28, 37, 63, 64, 1000, 0xFFFFFFFF):
        assert load(guest, option << 32 | 0x1000) == INVALID_VALUE, option
    assert load(guest, *[1 << 32] * 60) == INVALID_VALUE


def test_a_log_is_as_long_as_its_buffer(guest: Guest) -> None:
    """The length is given twice, the second time larger: nothing behind the buffer is written or read."""
    upload(guest, fuzz.PTX.replace(b"ret;", b"what is this;"))
    short, long = ERROR_BYTES << 32 | 1, ERROR_BYTES << 32 | 0xFFFF
    for options in ((short, long), (long,), (short, long, long)):
        assert load(guest, *options, INFO_BYTES << 32) not in (0, None)
        answer = guest.ask("orion_image_log", image=1, which=1, offset=0, room=0xFFFFFFFF)
        assert answer["total"] <= 1 and len(answer["rest"]) <= 1
    for offset, which in ((0xFFFFFFFF, 1), (1 << 31, 0), (0, 7)):
        assert guest.ask("orion_image_log", image=1, which=which, offset=offset, room=900)["data_bytes"] == 0


def test_parameters_shorter_than_the_kernels(guest: Guest) -> None:
    upload(guest, fuzz.PTX)
    assert load(guest) == 0
    guest.ask("orion_module_function", module=MODULE, function=FUNCTION, name=b"a\0")
    shape = {"function": FUNCTION, "grid_x": 1, "grid_y": 1, "grid_z": 1, "block": 1 | 1 << 11 | 1 << 22}
    device = guest.alloc(4096)
    for n_bytes in (0, 1, 7, 8, 11):
        params = struct.pack("<QI", device, 5)[:n_bytes]
        assert guest.call("orion_launch", **shape, params=params) not in (0, None), n_bytes
        assert guest.call("orion_launch_ex", **shape, attributes=b"", params=params) not in (0, None), n_bytes
    assert guest.call("orion_launch", **shape, params=struct.pack("<QI", device, 5)) == 0
    assert guest.call("cuStreamSynchronize", hStream=0) == 0
    for grid in ({"grid_x": 0}, {"grid_x": 0xFFFFFFFF}, {"block": 0}, {"block": 0xFFFFFFFF}, {"shared": 0xFFFFFFFF}):
        assert guest.call("orion_launch", **(shape | grid), params=struct.pack("<QI", device, 5)) not in (0, None), grid
    assert guest.call("orion_launch", **(shape | {"function": MODULE}), params=b"") == INVALID_HANDLE
    for attribute in (1, 7, 12, 15, 19, 0xFFFFFFFF):
        raw = struct.pack("<II", attribute, 0) + b"\xff" * 64
        assert guest.call("orion_launch_ex", **shape, attributes=raw, params=struct.pack("<QI", device, 5)) not in (0, None)


def test_dropped_images_and_unloaded_modules(guest: Guest) -> None:
    """A thread drops and unloads what another is loading and using, over and over."""
    for turn in range(60):
        module = wire.handle("MODULE", 10 + turn)
        upload(guest, fuzz.PTX)
        first = guest.post(wire.op_of("orion_module_load"), wire.pack("orion_module_load", module=module, image=1, options=b""), 0, REPLY)
        guest.send("orion_image_drop", 1, image=1)
        guest.send("orion_set_current", 1, context=wire.handle("CONTEXT", 1))
        seqs = [guest.post(wire.op_of("orion_module_unload"), wire.pack("orion_module_unload", module=module), t, REPLY) for t in (1, 0)]
        assert guest.answer(seqs[1], 0) is not None and guest.answer(seqs[0], 1) is not None, guest.log()
        assert first
