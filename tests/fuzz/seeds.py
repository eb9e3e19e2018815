# SPDX-License-Identifier: Apache-2.0
"""Writes the inputs that fuzzing begins with into a folder: `python tests/fuzz/seeds.py FOLDER`. The corpus is what came of them, minimized."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import targets  # first: it finds the other tests

import fuzz  # noqa: I001
import test_images
import wire

from orion_virt import layout

HANDLES = {kind: wire.handle(kind, 1) for kind in wire.spec().kinds}
PREPARE: dict[str, list[tuple[str, dict[str, object]]]] = {
    "STREAM": [("cuStreamCreate", {"phStream": HANDLES["STREAM"], "Flags": 1})],
    "EVENT": [("cuEventCreate", {"phEvent": HANDLES["EVENT"]})],
    "GRAPH": [("cuGraphCreate", {"phGraph": HANDLES["GRAPH"]})],
    "GRAPH_NODE": [("cuGraphCreate", {"phGraph": HANDLES["GRAPH"]}),
                   ("orion_node_add", {"graph": HANDLES["GRAPH"], "node": HANDLES["GRAPH_NODE"]})],
    "GRAPH_EXEC": [("cuGraphCreate", {"phGraph": HANDLES["GRAPH"]}),
                   ("orion_exec_make", {"graph": HANDLES["GRAPH"], "exec": HANDLES["GRAPH_EXEC"]})],
    "MEMPOOL": [("cuDeviceGetDefaultMemPool", {"pool_out": HANDLES["MEMPOOL"]})],
    "MEM_ALLOCATION": [("cuMemCreate", {"handle": HANDLES["MEM_ALLOCATION"], "size": 2 << 20,
                                        "prop": struct.pack("<4i", 1, 0, 1, 0) + bytes(16)})],
    "MODULE": [("orion_image_begin", {"image": 1, "kind": 0, "pieces": 1}), ("orion_image_piece", {"image": 1, "bytes": len(fuzz.PTX)}),
               ("orion_image_data", {"image": 1, "offset": 0, "data": fuzz.PTX, "bytes": len(fuzz.PTX)}),
               ("orion_module_load", {"module": HANDLES["MODULE"], "image": 1, "options": b""}),
               ("orion_module_function", {"module": HANDLES["MODULE"], "function": HANDLES["FUNCTION"], "name": b"a\0"})],
    "LIBRARY": [("orion_image_begin", {"image": 1, "kind": 0, "pieces": 1}), ("orion_image_piece", {"image": 1, "bytes": len(fuzz.PTX)}),
                ("orion_image_data", {"image": 1, "offset": 0, "data": fuzz.PTX, "bytes": len(fuzz.PTX)}),
                ("orion_library_load", {"library": HANDLES["LIBRARY"], "image": 1, "options": b""}),
                ("orion_library_kernel", {"library": HANDLES["LIBRARY"], "kernel": HANDLES["KERNEL"], "name": b"a\0"})],
    "LINK": [("orion_link_create", {"link": HANDLES["LINK"], "logs": 1, "count": 0, "options": b""})],
}  # fmt: skip
PREPARE["FUNCTION"], PREPARE["KERNEL"] = PREPARE["MODULE"], PREPARE["LIBRARY"]
DEVICE_MEMORY = [0x2AB800000000, 0x7000000000]


def command(name: str, payload: bytes) -> bytes:
    calls = [c.name for c in wire.spec().crossing if c.name not in targets.LEFT_OUT]
    return struct.pack("<HBH", calls.index(name), 0, len(payload)) + payload


def commands() -> list[bytes]:
    """For each operation what it needs, then itself, four times: mostly well-formed."""
    made = []
    grants = [layout.EXTENT_BYTES + layout.CHANNEL_BYTES, layout.EXTENT_BYTES]
    for call in wire.spec().crossing:
        if call.name in targets.LEFT_OUT:
            continue
        source = fuzz.Source(call.op or 0, DEVICE_MEMORY, grants)
        source.alive = list(HANDLES.items())
        kinds = {p.type.handle for p in call.params if p.type.handle} | {k for n, k in fuzz._HANDLES.items() if n in {p.name for p in call.params}}
        before = [step for kind in sorted(kinds) for step in PREPARE.get(kind, [])]
        steps = [command(name, wire.pack(name, **dict(values))) for name, values in before]
        steps += [command(call.name, fuzz.payload(source, call, True)) for _ in range(4)]
        made.append(b"".join(steps))
    made.append(struct.pack("<HBH", 0, 1, 16) + struct.pack("<HHIIII", 4, 1, 8, 0, 1, 0)[:16])
    return made


def frames() -> list[bytes]:
    head = struct.Struct("<IIQ")
    ring = layout.RING_OFF
    return [head.pack(2, 0, 0), head.pack(1, 64, ring) + bytes(64), head.pack(1, 8, 320) + bytes(8), head.pack(1, 16, layout.STAGING_OFF) + bytes(16),
            head.pack(1, 7, ring + 3) + bytes(7) + head.pack(2, 0, 0), head.pack(1, 6000, layout.STAGING_OFF + 8) + bytes(6000), head.pack(3, 0, 0),
            head.pack(1, 8, 0) + bytes(8), head.pack(2, 5, 0) + bytes(5), head.pack(1, 0xFFFFFFFF, layout.STAGING_OFF)]  # fmt: skip


def images() -> list[bytes]:
    programs = [p.read_bytes() + b"\0" for p in sorted((targets.ROOT).rglob("*.ptx")) if p.stat().st_size < 15000 and "build" not in p.parts]
    plain = [fuzz.PTX, *test_images.HOSTILE, *programs]
    wrapped = [test_images.fatbin(), *(d for d in test_images.HOSTILE if d[:4] == b"\x50\xed\x55\xba")]
    return [b"\0" + d for d in plain] + [b"\1" + d for d in wrapped] + [b"\2" + d for d in plain[:3] + [test_images.fatbin()]]


def main(folder: Path) -> None:
    for name, inputs in (("commands", commands()), ("frames", frames()), ("images", images())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (folder / name / f"seed-{number:03}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
