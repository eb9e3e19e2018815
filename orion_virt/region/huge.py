# SPDX-License-Identifier: Apache-2.0
"""Whether regions lie in huge pages: the mount option of their tmpfs decides, and the kernel's switch above it."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
SWITCH = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
USEFUL = ("always", "within_size")


def policy(base: Path) -> str:
    """`always`, `within_size`, `advise` or `never`, as the tmpfs under `base` was mounted; `deny` and `force` are
    the kernel's; "" where it cannot be told."""
    found = re.search(r"\[(\w+)\]", _read(SWITCH))
    if found is None:
        return ""  # a kernel without huge pages for shared memory
    if found[1] in ("deny", "force"):
        return found[1]
    options = _options(base)
    told = re.search(r"(?:^|,)huge=(\w+)", options or "")
    return told[1] if told else "" if options is None else "never"


def _options(base: Path) -> str | None:
    """The options of the tmpfs on which `base` lies, None where it is none."""
    best, options = -1, None
    for line in _read(MOUNTS).splitlines():
        front, _, back = line.partition(" - ")
        point, kind = Path(front.split(" ")[4]), back.split(" ")
        if point in (base, *base.parents) and len(point.parts) >= best:  # of two at one place the later one covers
            best, options = len(point.parts), kind[2] if kind[0] == "tmpfs" and len(kind) > 2 else None
    return options


def describe(base: Path) -> str:
    """A sentence for the log."""
    now = policy(base)
    if now in (*USEFUL, "force"):
        return f"regions in {base} lie in huge pages ({now})"
    if not now:
        return f"whether regions in {base} lie in huge pages cannot be told"
    if now == "deny":
        return f"regions in {base} lie in small pages: {SWITCH} says deny"
    return (f"regions in {base} lie in small pages (huge={now}); "
            f"`mount -o remount,huge=within_size {base}` makes those of later starts huge")


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
