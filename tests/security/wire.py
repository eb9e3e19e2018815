# SPDX-License-Identifier: Apache-2.0
"""Payloads of commands, packed from the specification as the generated structs lay them out."""

from __future__ import annotations

import struct
from functools import cache

from orion_virt.codegen.load import Spec, load
from orion_virt.codegen.text import in_fields, is_variable, out_fields
from orion_virt.spec.schema import Call

_FORMS = {"uint8_t": "B", "int8_t": "b", "uint16_t": "H", "int16_t": "h", "uint32_t": "I", "int32_t": "i",
          "uint64_t": "Q", "int64_t": "q", "float": "f"}  # fmt: skip
NULL = 0xFFFFFFFF


@cache
def spec() -> Spec:
    return load()


@cache
def call_of(name: str) -> Call:
    return next(c for c in spec().crossing if c.name == name)


def op_of(name: str) -> int:
    return int(call_of(name).op or 0)


def layout_of(fields: list[tuple[str, str]]) -> tuple[dict[str, tuple[int, str]], int]:
    """Offset and struct format of each field, and the struct's size, as C aligns them."""
    found, at = {}, 0
    for type_, name in fields:
        size = struct.calcsize(_FORMS[type_])
        at = (at + size - 1) // size * size
        found[name] = (at, "<" + _FORMS[type_])
        at += size
    return found, (at + 7) // 8 * 8


def pack(name: str, /, **values: object) -> bytes:
    """The payload of a call. A buffer or string is given as bytes, None for NULL; `then` follows everything."""
    call = call_of(name)
    fields, size = layout_of(in_fields(call))
    then = values.pop("then", b"")
    raw, tail = bytearray(size), b""
    for p in call.params:
        if is_variable(p) and p.dir == "in":
            data = values.pop(p.name, None)
            values.setdefault(f"{p.name}_bytes", NULL if data is None else len(data))  # type: ignore[arg-type]
            tail += bytes(data or b"") + bytes(-len(data or b"") % 8)  # type: ignore[call-overload,arg-type]
    for field, value in values.items():
        at, form = fields[field]
        struct.pack_into(form, raw, at, value)
    return bytes(raw) + tail + bytes(then)  # type: ignore[call-overload]


def unpack(name: str, raw: bytes) -> dict[str, int]:
    """The fixed part of an answer; `rest` is what follows it."""
    fields, size = layout_of(out_fields(call_of(name)))
    if len(raw) < size:
        return {}
    return {f: struct.unpack_from(form, raw, at)[0] for f, (at, form) in fields.items()} | {"rest": raw[size:]}


def handle(kind: str, index: int, generation: int = 1) -> int:
    """A handle as a client mints it."""
    return (spec().kinds.index(kind) + 1) << 40 | generation << 24 | index << 4
