# SPDX-License-Identifier: Apache-2.0
"""Made-up payloads for every operation of the specification: plausible fields, hostile fields, and noise."""

from __future__ import annotations

import random
import struct

import wire

from orion_virt import layout
from orion_virt.codegen.text import in_fields, is_variable
from orion_virt.spec.schema import Call

EDGES = (0, 1, 2, 3, 7, 8, 16, 63, 64, 255, 256, 4095, 4096, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 32,
         0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFF0, 0xFFFFFFFFFFFFFFFF)  # fmt: skip
# Calls whose purpose is to wait for what a random guest never does, or that make the worker forget the context.
SKIPPED = ("cuStreamWaitValue32_v2", "cuStreamWaitValue64_v2", "orion_host_func")


class Source:
    """Random values that often name what is there."""

    def __init__(self, seed: int, devptrs: list[int], grants: list[int]) -> None:
        self.random = random.Random(seed)
        self.devptrs, self.grants = devptrs, grants
        self.minted: list[tuple[str, int]] = [("CONTEXT", wire.handle("CONTEXT", 1))]
        self.alive: list[tuple[str, int]] = []  # made before, and mostly still there
        self.next_index = 100

    def mint(self, kind: str) -> int:
        self.next_index += 1
        made = wire.handle(kind, self.next_index & 0xFFFFF)
        self.minted.append((kind, made))
        return made

    def handle(self, kind: str) -> int:
        pick = self.random.random()
        mine = [h for k, h in self.minted if k == kind]
        alive = [h for k, h in self.alive if k == kind]
        if alive and pick < 0.5:
            return alive[0]
        if mine and pick < 0.7:
            return self.random.choice(mine[-8:])
        return self.random.choice([0, 1, 2, self.mint(kind), self.random.choice(self.minted)[1], self.number()])

    def number(self) -> int:
        r = self.random
        kinds = (lambda: r.choice(EDGES), lambda: r.randrange(64), lambda: r.randrange(1 << 16), lambda: r.getrandbits(64),
                 lambda: r.choice(self.devptrs) + r.choice((0, 4, 1 << 12, -4, 1 << 20)),
                 lambda: r.choice(self.grants) + r.choice((0, 8, 1 << 12, -8, 2 << 20)),
                 lambda: layout.BASES[0] + r.choice(self.grants), lambda: layout.BASES[0] + layout.EXTENT_BYTES + 64)  # fmt: skip
        return r.choice(kinds)() & 0xFFFFFFFFFFFFFFFF

    def bytes(self) -> bytes:
        r = self.random
        n = r.choice((0, 4, 8, 16, 24, 32, 40, 48, 64, 88, 104, 200, 904))
        if r.random() < 0.3:
            return r.randbytes(n)
        return struct.pack(f"<{n // 8}Q", *(self.any() for _ in range(n // 8)))

    def then(self) -> bytes:
        """What follows a copy, a node, a list: plain bytes, or a copy of rows that is nearly right."""
        r = self.random
        if r.random() < 0.5:
            return self.bytes()
        sides = r.choice((0, 1)), r.choice((0, 1))
        ends = [r.choice(self.grants if side else self.devptrs) for side in sides]
        shape = [r.choice((64, 64, 4096, self.number())) for _ in range(2)] + [r.choice((0, 4, 16)) for _ in range(2)]
        size = [r.choice((1, 64, 200)), r.choice((1, 4, 16)), r.choice((1, 2, 4, self.number()))]
        return struct.pack("<9Q4I", *ends, *shape, *size, *sides, 0, 0)

    def any(self) -> int:
        if self.random.random() < 0.3:
            return self.random.choice(self.minted)[1]
        return self.number()


# Fields of our own operations that carry handles as plain numbers.
_HANDLES = {"context": "CONTEXT", "module": "MODULE", "library": "LIBRARY", "kernel": "KERNEL", "stream": "STREAM",
            "graph": "GRAPH", "node": "GRAPH_NODE", "exec": "GRAPH_EXEC", "pool": "MEMPOOL", "function": "FUNCTION",
            "image": "IMAGE", "logs": "IMAGE", "link": "LINK",
            "green": "GREEN_CONTEXT", "desc": "RESOURCE_DESC"}  # fmt: skip
_MAKES = {"orion_module_load": "module", "orion_library_load": "library", "orion_module_function": "function",
          "orion_library_kernel": "kernel", "orion_library_module": "module", "orion_kernel_function": "function",
          "orion_node_add": "node", "orion_exec_make": "exec", "orion_ctx_activate": "context",
          "orion_link_create": "link", "orion_green_create": "green", "orion_resource_desc": "desc"}  # fmt: skip
# Numbers beyond which our own operations call the stream malformed.
_RANGES = {"orion_ctx_activate": {"kind": 1}, "orion_occupancy": {"what": 1}, "orion_ctx_end": {"how": 2}}
_SMALL = ("grid", "block", "room", "count", "what", "kind", "which", "side", "height", "depth", "pieces", "device", "how",
          "ElementSize", "Height", "pitch", "option", "attribute", "flags", "Flags", "num")  # fmt: skip
PTX = (b".version 7.0\n.target sm_52\n.address_size 64\n.global .align 4 .f32 scale;\n"
       b".visible .entry a(.param .u64 x, .param .u32 n)\n{\n.reg .b32 %r<3>;\n.reg .b64 %rd<3>;\n"
       b"ld.param.u64 %rd1, [x];\nld.param.u32 %r1, [n];\nst.global.u32 [%rd1], %r1;\nret;\n}\n\0")  # fmt: skip


def _kind_of(call: Call, name: str) -> str | None:
    param = next((p for p in call.params if p.name == name), None)
    if param and param.type.handle:
        return param.type.handle
    if not call.internal:
        return None
    if name == "function" and call.name in ("orion_function_params", "orion_launch"):
        return "KERNEL" if call.op and call.op % 2 else "FUNCTION"
    return _HANDLES.get(name)


def _field(source: Source, call: Call, name: str) -> int:
    kind = _kind_of(call, name)
    if kind == "IMAGE":
        return 1 + source.random.randrange(4)
    if kind:
        makes = name in (call.makes, _MAKES.get(call.name))
        return source.mint(kind) if makes and source.random.random() < 0.995 else source.handle(kind)
    if call.name in _RANGES and name in _RANGES[call.name]:
        return source.random.randrange(_RANGES[call.name][name] + 1)
    is_device = any(p.name == name and p.type.c == "CUdeviceptr" for p in call.params)
    if (is_device or name in ("dst", "src", "ptr", "off")) and source.random.random() < 0.7:
        return source.random.choice(source.devptrs if is_device else source.devptrs + source.grants)
    if name in ("bytes", "ByteCount", "N", "Width", "bytesize", "size", "attribute") and source.random.random() < 0.7:
        return source.random.choice((1, 4, 16, 64, 256, 4096))
    if name in ("device", "dev", "src", "dst") and call.internal and call.op and call.op > 1000:
        return source.random.choice((0, 0, 1))
    if name.startswith(_SMALL) or (name.endswith(("_side", "bytes")) and source.random.random() < 0.7):
        return source.random.choice((0, 0, 1, 1, 2, 3, 4, 8, 16, 64))
    return source.number()


def _parts(source: Source, call: Call, raw: bytearray, fields: dict[str, tuple[int, str]], polite: bool) -> bytes:
    """The variable parts; a polite one is as long as its count says."""
    tail, counted = b"", {}
    for p in call.params:
        if not is_variable(p) or p.dir != "in":
            continue
        data = source.random.choice((b"a\0", b"scale\0")) if p.shape == "cstr" else source.bytes()
        n_bytes = len(data)
        count = next((q for q in call.params if q.name == p.length), None)
        if polite and count is not None and p.shape == "buffer":
            size = {"u8": 1, "u32": 4, "i32": 4}.get(p.type.wire, 8)
            if p.name == "attributes":  # struct CUlaunchAttribute_st: an id and 64 bytes
                data = b"".join(struct.pack("<II", source.random.randrange(20), 0) + source.random.randbytes(64)
                                for _ in range(source.random.randrange(3)))  # fmt: skip
            nr = counted.setdefault(count.name, len(data) // size)  # another part may have the same count
            data = (data + bytes(nr * size))[: nr * size]
            at, form = fields[count.name]
            struct.pack_into(form, raw, at, nr)
            n_bytes = len(data)
        elif not polite:
            n_bytes = source.random.choice((len(data), wire.NULL, source.number() & 0xFFFFFFFF))
        struct.pack_into("<I", raw, fields[f"{p.name}_bytes"][0], n_bytes)
        tail += data + bytes(-len(data) % 8)
    return tail


def payload(source: Source, call: Call, polite: bool) -> bytes:
    """One payload: mostly well-formed, so that bodies are reached; else of any length."""
    fields, size = wire.layout_of(in_fields(call))
    raw = bytearray(size)
    for name, (at, form) in fields.items():
        width = struct.calcsize(form) * 8
        if form.endswith("f"):
            struct.pack_into(form, raw, at, source.random.random())
        else:
            value = _field(source, call, name) & ((1 << width) - 1)
            raw[at : at + width // 8] = value.to_bytes(width // 8, "little")
    whole = bytes(raw) + _parts(source, call, raw, fields, polite)
    whole = bytes(raw) + whole[size:] + (source.then() if call.internal and source.random.random() < 0.8 else b"")
    return whole if polite else whole[: source.random.randrange(len(whole) + 1)]
