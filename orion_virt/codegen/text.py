# SPDX-License-Identifier: Apache-2.0
"""Pieces of C that every generated file needs: banner, prototypes, names of fields."""

from __future__ import annotations

from orion_virt.spec.schema import Call, Param, Type

from .load import Spec

C_WIRE = {
    "u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t",
    "i8": "int8_t", "i16": "int16_t", "i32": "int32_t", "i64": "int64_t", "f32": "float",
}  # fmt: skip


def banner(spec: Spec, purpose: str, source: str = "orion_virt/spec") -> str:
    """First lines of a generated file."""
    return (
        "/* SPDX-License-Identifier: Apache-2.0 */\n"
        f"/* {purpose} */\n"
        f"/* Generated from {source}, spec {spec.hash:x}; do not edit. */\n"
    )


def join_c(type: str, name: str) -> str:
    """``int x`` but ``void *x``."""
    return type + name if type.endswith("*") else f"{type} {name}"


def declare(param: Param) -> str:
    """The parameter as the header's prototype has it."""
    if param.shape == "cstr":
        return f"const char *{param.name}"
    if param.shape == "buffer":
        const = "const " if param.dir == "in" and param.const else ""
        return f"{const}{join_c(param.type.c, '*')}{param.name}"
    if param.dir == "in":
        return join_c(param.type.c, param.name)
    return join_c(param.type.c, "*") + param.name


def parameters(call: Call) -> str:
    """The parameter list of a prototype."""
    return ", ".join(declare(p) for p in call.params) or "void"


def prototype(call: Call, prefix: str = "", suffix: str = "") -> str:
    """The function's head, without semicolon."""
    return f"CUresult {prefix}{call.name}{suffix}({parameters(call)})"


def is_variable(param: Param) -> bool:
    """True for a parameter whose data follows the struct."""
    return param.shape in ("buffer", "cstr")


def in_fields(call: Call) -> list[tuple[str, str]]:
    """(C type, name) of each field of the call's in-struct."""
    fields = []
    for p in call.params:
        if is_variable(p):
            if p.dir == "in":
                fields.append(("uint32_t", f"{p.name}_bytes"))
        elif p.dir in ("in", "inout") or p.name == call.makes:
            fields.append((C_WIRE[p.type.wire], p.name))
    return fields


def out_fields(call: Call) -> list[tuple[str, str]]:
    """(C type, name) of each field of the call's out-struct."""
    fields = []
    for p in call.params:
        if p.dir == "in" or p.name == call.makes:
            continue
        if is_variable(p):
            fields.append(("uint32_t", f"{p.name}_bytes"))
        else:
            fields.append((C_WIRE[p.type.wire], p.name))
    return fields


def is_pointer(type: Type) -> bool:
    """True where the C type is a pointer (handles mostly), so a cast goes through uintptr_t."""
    return type.c.endswith("*") or (type.handle is not None and "struct" in type.body)


def to_wire(type: Type, value: str) -> str:
    """Expression of the wire value of C expression `value`."""
    if is_pointer(type):
        return f"(uint64_t)(uintptr_t){value}"
    return f"({C_WIRE[type.wire]}){value}" if C_WIRE[type.wire] != type.c else value


def from_wire(type: Type, value: str) -> str:
    """Expression of the C value of wire expression `value`."""
    if is_pointer(type):
        return f"({type.c})(uintptr_t){value}"
    return f"({type.c}){value}" if C_WIRE.get(type.wire) != type.c else value


def element_size(param: Param) -> str:
    """Expression of the size of one element of a buffer."""
    return "1u" if param.type.wire in ("u8", "i8") else f"sizeof({param.type.c})"
