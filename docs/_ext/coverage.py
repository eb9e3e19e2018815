# SPDX-License-Identifier: Apache-2.0
"""What of the driver API and of NVML is carried, and how, from `orion_virt/spec`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import markdown

from orion_virt.codegen import load
from orion_virt.spec import nvml
from orion_virt.spec.nvml import schema
from orion_virt.spec.schema import ASYNC, LOCAL, Call

WAYS = ("round trip", "one way", "by the guest's library")
GENERATED, BY_HAND = "generated", "by hand"
NVML_KINDS = {
    schema.Figure: "a number of the card, asked of the host's NVML",
    schema.Text: "a text of the card, asked of the host's NVML",
    schema.Always: "the same for every vGPU",
    schema.Hand: "by hand",
    schema.Same: "another name of",
    schema.Absent: "not supported",
}


def way(call: Call) -> str:
    """How a call travels: one of WAYS."""
    return WAYS[2 if call.order is LOCAL else 1 if call.order is ASYNC else 0]


def bodies(call: Call) -> str:
    """Which of its bodies are written by hand."""
    sides = {"client": "guest", "executor": "host"}
    hand = [sides[side] for side in sorted(call.hand)]
    return f"{BY_HAND}: {' and '.join(hand)}" if hand else GENERATED


def text() -> str:
    """The driver API: counts, then each family."""
    spec = load.load()
    public = [call for call in spec.calls if not call.internal]
    counts = Counter(way(call) for call in public)
    rows = [(name, str(counts[name])) for name in WAYS]
    rows += [("not supported", str(len(spec.unsupported))), ("all", str(len(public) + len(spec.unsupported)))]
    parts = [markdown.table(("driver API", "functions"), rows)]
    for family in spec.families:
        calls = sorted((call for call in family.calls if not call.internal), key=lambda call: call.name)
        if calls:
            parts.append(f"### {family.name.replace('_', ' ')}")
            parts.append(markdown.table(("function", "travels", "body"), (_row(call) for call in calls)))
    return "\n\n".join(parts)


def _row(call: Call) -> tuple[str, str, str]:
    name = markdown.code(call.name)
    return (f"{name}, {markdown.code('_' + call.ptsz)}" if call.ptsz else name, way(call), bodies(call))


def nvml_text() -> str:
    """NVML: counts, what is carried, and what is not with its reason."""
    lines = [line for line in nvml.LINES if not isinstance(line, schema.Field)]
    counts = Counter(NVML_KINDS[type(line)] for line in lines if not isinstance(line, schema.Same))
    rows = [(kind, str(counts[kind])) for kind in NVML_KINDS.values() if counts[kind]]
    parts = [markdown.table(("NVML", "functions"), rows), "### carried"]
    parts.append(markdown.table(("function", "answer"), sorted(_nvml_rows(lines))))
    absent = [line for line in lines if isinstance(line, schema.Absent)]
    reasons = sorted({line.reason for line in absent})
    parts.append("### not supported")
    parts.append(markdown.table(("because", "functions"), ((markdown.plain(reason), _of(absent, reason)) for reason in reasons)))
    return "\n\n".join(parts)


def _of(absent: list[schema.Absent], reason: str) -> str:
    return ", ".join(sorted(markdown.code(line.name) for line in absent if line.reason == reason))


def _nvml_rows(lines: list[schema.Line]) -> Iterator[tuple[str, str]]:
    for line in lines:
        if isinstance(line, schema.Absent):
            continue
        what = NVML_KINDS[type(line)]
        if isinstance(line, schema.Same):
            what += f" {markdown.code(line.of)}"
        elif isinstance(line, schema.Always):
            what += f": {markdown.plain(line.reason)}"
        yield markdown.code(line.name), what
