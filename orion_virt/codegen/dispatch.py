# SPDX-License-Identifier: Apache-2.0
"""dispatch_<family>.c of the executor: decode, validate, call the driver, answer."""

from __future__ import annotations

import re

from orion_virt.spec.schema import ASYNC, Call, Family, Param, Type

from .load import Spec
from .ops import by_hand
from .spans import Span, parse_checks
from .text import banner, element_size, from_wire, in_fields, is_variable, join_c, out_fields, to_wire

_HEAD = (
    "CUresult oh_run_{name}(struct oh_twin *t, const void *payload, uint32_t bytes,"
    " void *reply, uint32_t *reply_bytes)"
)


def dispatch_c(spec: Spec, family: Family) -> str | None:
    """The text of dispatch_<family>.c, None where nothing of the family crosses."""
    calls = [c for c in family.calls if c.op is not None]
    if not calls:
        return None
    lines = [banner(spec, f"Execution of the {family.name} calls.", f"spec/calls/{family.name}.py")]
    lines += ["#include <string.h>", "", '#include "gen/checks.h"', '#include "gen/ops.h"']
    for call in calls:
        lines += ["", _HEAD.format(name=call.name), "{", *(_forward(call) if by_hand(call) else _body(call)), "}"]
    return "\n".join([*lines, ""])


def _forward(call: Call) -> list[str]:
    return [f"    return oh_{call.name}(t, payload, bytes, reply, reply_bytes);"]


def _body(call: Call) -> list[str]:
    ins = [p for p in call.params if is_variable(p) and p.dir == "in"]
    declarations, lines = _locals(call, ins), []
    lines += [f"    if (!oh_drv.{call.name})", "        return CUDA_ERROR_NOT_SUPPORTED;"]
    if ins:
        lines += ["    parts.at = (const uint8_t *)payload + sizeof(*in);", "    parts.left = bytes - sizeof(*in);"]
    for p in call.params:
        lines += _decode(call, p)
    lines += _check_spans(call) + _before(call)
    lines += [f"    r = oh_drv.{call.name}({', '.join(_argument(call, p) for p in call.params)});"]
    lines += _failed(call) + _after(call) + _reply(call)
    return [*declarations, "", *_unused(call, lines), *lines, "    return CUDA_SUCCESS;"]


def _unused(call: Call, lines: list[str]) -> list[str]:
    names = [] if _uses(lines, "t") else ["t"]
    names += [] if _uses(lines, "bytes") else ["bytes"]
    names += [] if in_fields(call) else ["payload"]
    names += [] if out_fields(call) else ["reply", "reply_bytes"]
    return [f"    (void){name};" for name in names]


def _uses(lines: list[str], name: str) -> bool:
    return any(re.search(rf"\b{name}(->|,| -)", line) for line in lines)


def _locals(call: Call, ins: list[Param]) -> list[str]:
    lines = []
    if in_fields(call):
        lines.append(f"    const struct ow_{call.name}_in *in = payload;")
    if out_fields(call):
        lines.append(f"    struct ow_{call.name}_out *out = reply;")
    if ins:
        lines.append("    struct ow_cursor parts;")
    outs = [p for p in call.params if is_variable(p) and p.dir == "out"]
    if outs:
        lines.append("    uint64_t used = sizeof(*out);")
    for p in call.params:
        lines += _local(call, p)
    if call.ledger and call.ledger[0] == "-":
        lines.append("    struct oh_entry entry;")
    if call.frees:
        lines.append("    void *taken, *data;")
    return [*lines, "    CUresult r;"]


def _local(call: Call, p: Param) -> list[str]:
    if is_variable(p):
        if p.dir == "out":
            return [f"    void *v_{p.name};", f"    uint64_t {p.name}_size;"]
        return [f"    const void *v_{p.name} = NULL;"]
    if p.dir == "in":
        if p.type.handle:
            return [f"    void *v_{p.name} = NULL;"]
        return [f"    int v_{p.name};"] if p.type.c == "CUdevice" else []
    initial = f" = {from_wire(p.type, f'in->{p.name}')}" if p.dir == "inout" and not p.type.handle else " = 0"
    name = join_c(p.type.c, "v_" + p.name)
    return [f"    {name}{initial};"]


def _decode(call: Call, p: Param) -> list[str]:
    if is_variable(p):
        return _decode_out(p) if p.dir == "out" else _decode_part(p)
    if p.dir != "in":
        return []
    if p.type.handle:
        get = "oh_get_function(" if p.type.handle == "FUNCTION" else f"oh_get(OW_KIND_{p.type.handle}, "
        condition = f"    if (in->{p.name}) {{" if p.optional else "    {"
        body = [f"r = {get}in->{p.name}, &v_{p.name});", "if (r != CUDA_SUCCESS)", "    return r;"]
        if not p.optional:
            return [f"    {line}" for line in body]
        return [condition, *[f"        {line}" for line in body], "    }"]
    if p.type.c == "CUdevice":
        return [f"    r = oh_ordinal(in->{p.name}, &v_{p.name});", "    if (r != CUDA_SUCCESS)", "        return r;"]
    return []


def _decode_part(p: Param) -> list[str]:
    size = "0" if p.shape == "cstr" else f"oh_array_bytes((uint64_t){_length(p)}, {element_size(p)})"
    function = "oh_text" if p.shape == "cstr" else "oh_array"
    extra = "" if p.shape == "cstr" else f", {size}"
    optional = "true" if p.optional else "false"
    lines = [f"    if (!{function}(&parts, in->{p.name}_bytes, {optional}{extra}, &v_{p.name}))",
             f'        return oh_fault(t, "bad length of {p.name}");']  # fmt: skip
    if p.type.handle:
        lines += [f"    r = oh_get_array(OW_KIND_{p.type.handle}, v_{p.name}, in->{p.name}_bytes);"]
        lines += ["    if (r != CUDA_SUCCESS)", "        return r;"]
    return lines


def _length(p: Param) -> str:
    return f"{p.length}u" if isinstance(p.length, int) else f"in->{p.length}"


def _decode_out(p: Param) -> list[str]:
    return [
        f"    {p.name}_size = oh_array_bytes((uint64_t){_length(p)}, {element_size(p)});",
        f"    if ({p.name}_size > OC_SLOT_OUT_BYTES - used)",
        "        return CUDA_ERROR_INVALID_VALUE;",
        f"    v_{p.name} = (uint8_t *)reply + used;",
        f"    used += ow_align({p.name}_size);",
        "    if (used > OC_SLOT_OUT_BYTES)",
        "        return CUDA_ERROR_INVALID_VALUE;",
    ]


def _argument(call: Call, p: Param) -> str:
    if is_variable(p):
        return f"v_{p.name}" if p.dir == "out" else f"({join_c(p.type.c, '*')})(uintptr_t)v_{p.name}"
    if p.dir != "in":
        return f"&v_{p.name}"
    if p.type.handle:
        return f"v_{p.name}" if "struct" in p.type.body else f"({p.type.c})(uintptr_t)v_{p.name}"
    return f"v_{p.name}" if p.type.c == "CUdevice" else from_wire(p.type, f"in->{p.name}")


def _check_spans(call: Call) -> list[str]:
    lines = []
    for span in parse_checks(call):
        lines += [f"    if (!oh_touches(in->{span.ptr}, {_span(span)}))", "        return CUDA_ERROR_INVALID_VALUE;"]
    return lines


def _factor(factors: tuple[str, ...]) -> str:
    names = [f"{f}u" if f.isdigit() else f"(uint64_t)in->{f}" for f in factors]
    text = names[0]
    for name in names[1:]:
        text = f"oh_array_bytes({text}, {name})"
    return text


def _span(span: Span) -> str:
    width = _factor(span.width)
    if not span.pitch:
        return width
    pitch, rows = (_factor((f,)) for f in span.pitch)
    return f"oh_rows_bytes({width}, {pitch}, {rows})"


def _before(call: Call) -> list[str]:
    # first of all: two threads must not both have the driver free it; and after a one-way call the client has
    # forgotten the handle, whatever the driver will say
    lines = _forget(call) if call.frees else []
    if call.books or (call.ledger and call.ledger[0] == "+"):
        lines += ["    if (t->device < 0)", "        return CUDA_ERROR_INVALID_CONTEXT;"]
    if call.books and call.books[0] == "+":
        lines += [f"    r = oh_book(t->device, in->{call.books[1:]});"]
        lines += ["    if (r != CUDA_SUCCESS)", "        return r;"]
    if call.ledger and call.ledger[0] == "-":
        pointer = f"in->{call.ledger[1:]}"
        lines += [f"    if ({pointer} == 0)", "        return CUDA_SUCCESS;"]
        lines += [f"    if (!oh_entry_take({pointer}, &entry))", "        return CUDA_ERROR_INVALID_VALUE;"]
    return lines


def _failed(call: Call) -> list[str]:
    if call.ledger and call.ledger[0] == "-":
        return ["    if (r != CUDA_SUCCESS) {", "        oh_entry_restore(&entry);", "        return r;", "    }"]
    if call.frees and call.order is not ASYNC:
        made = _param(call, call.frees)
        name = f"OW_KIND_{made.type.handle}, in->{made.name}"
        lines = ["    if (r != CUDA_SUCCESS) {", f"        if (oh_put({name}, taken) != CUDA_SUCCESS)"]
        lines += ["            return OH_FAULT;", f"        oh_set_data({name}, data);", "        return r;", "    }"]
        return lines
    if not (call.books and call.books[0] == "+"):
        return ["    if (r != CUDA_SUCCESS)", "        return r;"]
    undo = f"        oh_unbook(t->device, in->{call.books[1:]});"
    return ["    if (r != CUDA_SUCCESS) {", undo, "        return r;", "    }"]


def _after(call: Call) -> list[str]:
    lines = ["    oh_entry_drop(&entry);"] if call.ledger and call.ledger[0] == "-" else []
    if call.ledger and call.ledger[0] == "+":
        pointer, size = call.ledger[1:].split(":")
        booked = f"in->{call.books[1:]}" if call.books else "0"
        lines.append(f"    oh_ledger_add(v_{pointer}, in->{size}, t->device, {booked});")
    if call.makes:
        made = _param(call, call.makes)
        lines += [f"    r = oh_put(OW_KIND_{made.type.handle}, in->{made.name}, (void *)(uintptr_t)v_{made.name});"]
        lines += ["    if (r != CUDA_SUCCESS)", "        return r;"]
    return lines


def _forget(call: Call) -> list[str]:
    param = _param(call, call.frees or "")
    taken = f"oh_take(OW_KIND_{param.type.handle}, in->{call.frees}, &taken, &data)"
    return [f"    if (!{taken})", f"        return {param.type.invalid};"]


def _param(call: Call, name: str) -> Param:
    return next(p for p in call.params if p.name == name)


def _reply(call: Call) -> list[str]:
    if not out_fields(call):
        return []
    lines = []
    outs = [p for p in call.params if p.dir != "in" and p.name != call.makes]
    for p in outs:
        if is_variable(p):
            lines.append(f"    out->{p.name}_bytes = (uint32_t){p.name}_size;")
        else:
            lines.append(f"    out->{p.name} = {_answer(p.type, p.name)};")
    used = "(uint32_t)used" if any(is_variable(p) for p in outs) else "sizeof(*out)"
    return [*lines, f"    *reply_bytes = {used};"]


def _answer(type: Type, name: str) -> str:
    if type.handle:
        return f"oh_find(OW_KIND_{type.handle}, (void *)(uintptr_t)v_{name})"
    return to_wire(type, f"v_{name}")
