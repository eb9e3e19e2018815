# SPDX-License-Identifier: Apache-2.0
"""wire.h: operation numbers and the structs that cross."""

from __future__ import annotations

from orion_virt.spec.schema import Call

from .load import Spec
from .text import banner, in_fields, out_fields

_HELPERS = """
#define OW_NULL 0xffffffffu /* in a _bytes field: the pointer was NULL */

/* Reader of the variable parts behind a struct; every part is 8-byte aligned. */
struct ow_cursor {
    const uint8_t *at;
    uint64_t left;
};

/* The next `bytes` of the payload, or NULL when it is shorter than that. */
static inline const void *ow_take(struct ow_cursor *c, uint32_t bytes)
{
    const uint8_t *part = c->at;
    uint64_t step = ((uint64_t)bytes + 7u) & ~7ull;

    if (bytes > c->left)
        return NULL;
    if (step > c->left)
        step = c->left;
    c->at += step;
    c->left -= step;
    return part;
}

/* What `bytes` of a variable part occupy. */
static inline uint64_t ow_align(uint64_t bytes)
{
    return (bytes + 7u) & ~7ull;
}
"""

_SIZES = {"uint8_t": 1, "int8_t": 1, "uint16_t": 2, "int16_t": 2, "uint32_t": 4, "int32_t": 4, "float": 4}


def _struct_bytes(fields: list[tuple[str, str]]) -> int:
    at = 0
    for type, _ in fields:
        size = _SIZES.get(type, 8)
        at = (at + size - 1) // size * size + size
    return (at + 7) // 8 * 8


def _struct(call: Call, side: str, fields: list[tuple[str, str]]) -> list[str]:
    name = f"struct ow_{call.name}_{side}"
    lines = [f"{name} {{"]
    lines += [f"    {type} {field};" for type, field in fields]
    lines.append("} __attribute__((aligned(8)));" if fields else "};")
    lines.append(f'_Static_assert(sizeof({name}) == {_struct_bytes(fields)}, "{call.name} {side}");')
    return lines


def wire_h(spec: Spec) -> str:
    """The text of wire.h."""
    nr_ops = max((c.op or 0 for c in spec.crossing), default=0) + 1
    lines = [banner(spec, "Operation numbers and payload structs, shared by guest and host.")]
    lines += ["#ifndef ORION_WIRE_H", "#define ORION_WIRE_H", "", "#include <stddef.h>", "#include <stdint.h>", ""]
    lines += ["enum ow_kind {"] + [f"    OW_KIND_{k} = {i}," for i, k in enumerate(spec.kinds, 1)] + ["};"]
    lines += [f"#define OW_NR_KINDS {len(spec.kinds) + 1}u", "", "enum ow_op {"]
    lines += [f"    OW_OP_{c.name} = {c.op}," for c in spec.crossing]
    lines += ["};", f"#define OW_NR_OPS {nr_ops}u", f"#define OW_SPEC_HASH 0x{spec.hash:x}ull", _HELPERS]
    for call in spec.crossing:
        lines += _struct(call, "in", in_fields(call)) + _struct(call, "out", out_fields(call))
    lines += _names(spec)
    return "\n".join([*lines, "", "#endif", ""])


def _names(spec: Spec) -> list[str]:
    lines = ["", "/* Name of an operation, for people; NULL: unknown. */"]
    lines += ["static inline const char *ow_op_name(uint32_t op)", "{"]
    lines += ["    static const char *const names[OW_NR_OPS] = {"]
    lines += [f'        [{c.op}] = "{c.name}",' for c in spec.crossing]
    return [*lines, "    };", "", "    return op < OW_NR_OPS ? names[op] : NULL;", "}"]
