# SPDX-License-Identifier: Apache-2.0
"""stub_<family>.c of the guest: one sender for each call that crosses, and the exported function."""

from __future__ import annotations

from orion_virt.spec.schema import ASYNC, Call, Family, Param

from .load import Spec
from .spans import Span, parse_checks, parse_flags
from .text import banner, element_size, from_wire, is_variable, prototype, to_wire


def stub_c(spec: Spec, family: Family) -> str | None:
    """The text of stub_<family>.c, None where nothing of the family crosses."""
    calls = [c for c in family.calls if c.op is not None]
    if not calls:
        return None
    lines = [banner(spec, f"Senders of the {family.name} calls.", f"spec/calls/{family.name}.py")]
    lines += ["#include <string.h>", "", '#include "client.h"', "", '#include "gen/send.h"']
    for call in calls:
        lines += ["", prototype(call, "og_send_"), "{", *_sender(call), "}"]
        if not call.internal and "client" not in call.hand:
            lines += exported(call)
    return "\n".join([*lines, ""])


def exported(call: Call) -> list[str]:
    """The exported function."""
    args = ", ".join(p.name for p in call.params)
    return ["", f"OG_EXPORT {prototype(call)}", "{", f"    return og_send_{call.name}({args});", "}"]


def _sender(call: Call) -> list[str]:
    parts = [p for p in call.params if is_variable(p) and p.dir == "in"]
    lines = [*_locals(call, parts), ""]
    lines += [line for p in call.params for line in _check(call, p)] + _flags(call) + _spans(call) + _sizes(parts)
    lines += _total(call, parts)
    lines += _mint(call)
    size = "bytes_" if parts else _fixed(call)
    lines.append(f"    r_ = og_begin(&c_, OW_OP_{call.name}, {size});")
    lines += _unmint(call, "r_ != CUDA_SUCCESS", "return r_;")
    lines += _fill(call, parts)
    lines += _post(call) if call.order is ASYNC else _round_trip(call)
    return lines


def _lend(call: Call) -> list[str]:
    """Natively a stream, or else an event, brings the context that a thread without one lacks."""
    handles = {p.type.handle: p for p in reversed(call.params) if p.dir == "in" and not is_variable(p)}
    on = handles.get("STREAM") or handles.get("EVENT")
    return [f"    OG_ON({to_wire(on.type, on.name)});"] if call.context and on else []


def _fixed(call: Call) -> str:
    return f"(uint32_t)sizeof(struct ow_{call.name}_in)"


def _has_in(call: Call) -> bool:
    return any(p.dir != "out" or p.name == call.makes for p in call.params)


def _locals(call: Call, parts: list[Param]) -> list[str]:
    lines = [*_lend(call), "    struct og_call c_;"]
    if _waits_on(call):
        lines.append(f"    const bool host_ = og_is_pinned((const void *)(uintptr_t){_waits_on(call)}, 1);")
    if _has_in(call):
        lines.append(f"    struct ow_{call.name}_in *in_;")
    if parts:
        lines += [f"    uint64_t {p.name}_len;" for p in parts]
        lines += ["    uint64_t total_;", "    uint32_t bytes_;", "    uint8_t *at_;"]
    outs = [p for p in call.params if p.dir != "in" and p.name != call.makes]
    if outs:
        lines.append(f"    const struct ow_{call.name}_out *out_;")
    if any(is_variable(p) for p in outs):
        lines.append("    const uint8_t *data_;")
    if call.makes:
        lines.append("    uint64_t made_;")
    return [*lines, "    CUresult r_;"]


def _valid(call: Call, p: Param) -> str:
    value = to_wire(p.type, p.name)
    if p.type.handle == "STREAM" and p.name != call.frees:
        return f"og_stream_valid({value})"
    if p.type.handle == "FUNCTION":
        return f"og_function({value})"
    return f"og_valid(OW_KIND_{p.type.handle}, {value})"


def _check(call: Call, p: Param) -> list[str]:
    if is_variable(p) or p.dir != "in":
        if p.optional:
            return []
        condition = f"!{p.name}"
        if p.shape == "buffer" and not isinstance(p.length, int):
            condition = f"!{p.name} && {p.length}"
        return [f"    if ({condition})", "        return og_refuse(CUDA_ERROR_INVALID_VALUE);"]
    if p.type.handle is None or (p.type.handle == "STREAM" and p.optional):
        return []
    null = f"{p.name} && " if p.optional else ""
    return [f"    if ({null}!{_valid(call, p)})", f"        return og_refuse({p.type.invalid});"]


def _flags(call: Call) -> list[str]:
    flags = parse_flags(call)
    if flags is None:
        return []
    return [f"    if ({flags[0]} & ~{flags[1]}u)", "        return og_refuse(CUDA_ERROR_INVALID_VALUE);"]


def _spans(call: Call) -> list[str]:
    """A one-way call's answer comes late: what is wrong with an address whatever the host says is told at once."""
    lines = []
    for span in parse_checks(call) if call.order is ASYNC else ():
        lines += [f"    if (!og_span_ok({span.ptr}, {_span(span)}))"]
        lines += ["        return og_refuse(CUDA_ERROR_INVALID_VALUE);"]
    return lines


def _span(span: Span) -> str:
    element = next((f for f in span.width if f.isdigit()), "1")
    width = " * ".join(f"(uint64_t){f}" for f in span.width)
    return ", ".join([element, width, *(span.pitch or ("0", "1"))])


def _sizes(parts: list[Param]) -> list[str]:
    lines = []
    for p in parts:
        if p.shape == "cstr":
            expression = f"strlen({p.name}) + 1"
            lines.append(f"    {p.name}_len = {p.name} ? {expression} : 0;" if p.optional else
                         f"    {p.name}_len = {expression};")
        else:
            lines.append(f"    {p.name}_len = og_array_bytes((uint64_t){p.length}, {element_size(p)});")
        if p.optional and p.shape == "buffer":
            lines += [f"    if (!{p.name})", f"        {p.name}_len = 0;"]
        lines += [f"    if ({p.name}_len > OG_MAX_PAYLOAD)", "        return og_refuse(CUDA_ERROR_INVALID_VALUE);"]
    return lines


def _total(call: Call, parts: list[Param]) -> list[str]:
    if not parts:
        return []
    sizes = " + ".join(f"ow_align({p.name}_len)" for p in parts)
    return [f"    total_ = {_fixed(call)} + {sizes};", "    if (total_ > OG_MAX_PAYLOAD)",
            "        return og_refuse(CUDA_ERROR_INVALID_VALUE);", "    bytes_ = (uint32_t)total_;"]  # fmt: skip


def _mint(call: Call) -> list[str]:
    if not call.makes:
        return []
    kind = _makes(call).type.handle
    return [f"    made_ = og_mint(OW_KIND_{kind});", "    if (!made_)",
            "        return og_refuse(CUDA_ERROR_OUT_OF_MEMORY);"]  # fmt: skip


def _makes(call: Call) -> Param:
    return next(p for p in call.params if p.name == call.makes)


def _unmint(call: Call, condition: str, leave: str) -> list[str]:
    if not call.makes:
        return [f"    if ({condition})", f"        {leave}"]
    kind = _makes(call).type.handle
    return [f"    if ({condition}) {{", f"        og_unmint(OW_KIND_{kind}, made_);", f"        {leave}", "    }"]


def _fill(call: Call, parts: list[Param]) -> list[str]:
    lines = ["    in_ = c_.in;"] if _has_in(call) else []
    for p in call.params:
        if p.name == call.makes:
            lines.append(f"    in_->{p.name} = made_;")
        elif is_variable(p):
            if p.dir == "in":
                null = f"{p.name} ? (uint32_t){p.name}_len : OW_NULL" if p.optional else f"(uint32_t){p.name}_len"
                lines.append(f"    in_->{p.name}_bytes = {null};")
        elif p.dir == "in":
            lines.append(f"    in_->{p.name} = {to_wire(p.type, p.name)};")
        elif p.dir == "inout":
            lines.append(f"    in_->{p.name} = {to_wire(p.type, '*' + p.name)};")
    if parts:
        lines.append("    at_ = (uint8_t *)(in_ + 1);")
    for i, p in enumerate(parts):
        lines.append(f"    og_put_part(at_, {p.name}, {p.name}_len);")
        if i + 1 < len(parts):
            lines.append(f"    at_ += ow_align({p.name}_len);")
    return lines


def _waits_on(call: Call) -> str | None:
    """The address that decides: without a stream of its own, writing host memory is over when the call returns."""
    return parse_checks(call)[0].ptr if call.per_thread and call.order is ASYNC and call.checks else None


def _post(call: Call) -> list[str]:
    if _waits_on(call):
        return ["    return host_ ? og_call(&c_) : og_post(&c_);"]
    if not (call.makes or call.frees):
        return ["    return og_post(&c_);"]
    return ["    r_ = og_post(&c_);", *_unmint(call, "r_ != CUDA_SUCCESS", "return r_;"), *_after(call),
            "    return CUDA_SUCCESS;"]  # fmt: skip


def _after(call: Call) -> list[str]:
    lines = []
    if call.makes:
        lines.append(f"    *{call.makes} = {from_wire(_makes(call).type, 'made_')};")
    if call.frees and "client" not in call.hand:
        param = next(p for p in call.params if p.name == call.frees)
        lines.append(f"    og_unmint(OW_KIND_{param.type.handle}, {to_wire(param.type, param.name)});")
    return lines


def _round_trip(call: Call) -> list[str]:
    outs = [p for p in call.params if p.dir != "in" and p.name != call.makes]
    if not (outs or call.makes or call.frees):
        return ["    return og_call(&c_);"]
    lines = ["    r_ = og_call(&c_);", *_unmint(call, "r_ != CUDA_SUCCESS", "return r_;")]
    if outs:
        lines.append("    out_ = c_.out;")
        lines += _unmint(call, "c_.out_bytes < sizeof(*out_)", "return CUDA_ERROR_UNKNOWN;")
    for p in outs:
        lines += _take(call, p)
    return [*lines, *_after(call), "    return CUDA_SUCCESS;"]


def _take(call: Call, p: Param) -> list[str]:
    if not is_variable(p):
        guard = [f"    if ({p.name})"] if p.optional else []
        indent = "        " if p.optional else "    "
        return [*guard, f"{indent}*{p.name} = {from_wire(p.type, f'out_->{p.name}')};"]
    first = [q for q in call.params if is_variable(q) and q.dir == "out"][0] is p
    return [
        *(["    data_ = (const uint8_t *)(out_ + 1);"] if first else []),
        f"    if (!og_take_part(&data_, (const uint8_t *)c_.out + c_.out_bytes, out_->{p.name}_bytes, {p.name},",
        f"                      og_array_bytes((uint64_t){p.length}, {element_size(p)})))",
        "        return CUDA_ERROR_UNKNOWN;",
    ]
