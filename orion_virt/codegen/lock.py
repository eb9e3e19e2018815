# SPDX-License-Identifier: Apache-2.0
"""tests/spec/ops.lock: the operation numbers ever given out, append only."""

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
