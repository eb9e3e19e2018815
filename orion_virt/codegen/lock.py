# SPDX-License-Identifier: Apache-2.0
"""tests/spec/ops.lock and figures.lock: the numbers ever given out, append only."""

from __future__ import annotations

from pathlib import Path

from .load import Spec, SpecError


def read_lock(path: Path) -> dict[int, str]:
    """number -> name of each line "number name"; {} where there is no file."""
    if not path.exists():
        return {}
    lines = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {int(number): name for number, name in lines}


def update_lock(spec: Spec, path: Path) -> None:
    """Appends new numbers; SpecError where a number changed its meaning."""
    known = read_lock(path)
    used = {c.op: c for c in spec.crossing if c.op is not None}
    for number, name in known.items():
        if number in used and used[number].name != name:
            call = used[number]
            raise SpecError(f"{call.family}.py: {call.name}: number {number} was {name}; take a new number")
    new = [f"{n} {used[n].name}" for n in sorted(used) if n not in known]
    if not new:
        return
    head = "" if path.exists() else "# Operation numbers ever given out. Append only; codegen adds lines at the end.\n"
    with path.open("a") as file:
        file.write(head + "\n".join(new) + "\n")


def update_figures(entries: dict[str, str], path: Path) -> None:
    """As update_lock, for figures and texts of NVML: "kind number count" -> name."""
    lines = path.read_text().splitlines() if path.exists() else []
    known = dict(line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    for key, name in known.items():
        if entries.get(key, name) != name:
            raise SpecError(f"spec/nvml: {entries[key]}: {key} was {name}; take a new number")
    new = [f"{key} {name}" for key, name in entries.items() if key not in known]
    if new:
        head = "" if lines else "# Numbers of NVML's figures and texts ever given out: kind, first, count, name. Append only.\n"
        with path.open("a") as file:
            file.write(head + "\n".join(new) + "\n")
