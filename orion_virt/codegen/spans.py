# SPDX-License-Identifier: Apache-2.0
"""The small languages inside a spec line: which memory a call touches, which flag bits it allows."""

from __future__ import annotations

from dataclasses import dataclass

from orion_virt.spec.schema import Call

from .load import SpecError


@dataclass(frozen=True)
class Span:
    """`rows` rows of `width` bytes, `pitch` apart, from the device pointer `ptr`; factors as written."""

    ptr: str
    width: tuple[str, ...]
    pitch: tuple[str, ...] = ()


def _factors(call: Call, text: str) -> tuple[str, ...]:
    names = {p.name for p in call.params if p.shape == "value" and p.dir == "in"}
    parts = tuple(text.split("*"))
    for part in parts:
        if not part.isdigit() and part not in names:
            raise SpecError(f"{call.family}.py: {call.name}: checks: {part!r} is no number or parameter")
    return parts


def parse_checks(call: Call) -> list[Span]:
    """The memory that `call` touches."""
    spans = []
    for piece in call.checks.split(",") if call.checks else ():
        ptr, _, size = piece.partition(":")
        if ptr not in {p.name for p in call.params} or not size:
            raise SpecError(f'{call.family}.py: {call.name}: checks: "{piece}" is not "ptr:bytes"')
        width, _, rows = size.partition("@")
        pitch = _factors(call, rows) if rows else ()
        if pitch and len(pitch) != 2:
            raise SpecError(f'{call.family}.py: {call.name}: checks: "{rows}" is not "pitch*rows"')
        spans.append(Span(ptr, _factors(call, width), pitch))
    return spans


def parse_flags(call: Call) -> tuple[str, int] | None:
    """The flag parameter and the mask of its allowed bits."""
    if not call.flags:
        return None
    name, _, mask = call.flags.partition(":")
    if name not in {p.name for p in call.params} or not mask.isdigit():
        raise SpecError(f'{call.family}.py: {call.name}: flags="{call.flags}" is not "param:mask"')
    return name, int(mask)
