# SPDX-License-Identifier: Apache-2.0
"""Text of the program as Markdown that shows it as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def plain(text: str) -> str:
    """Nothing in it is markup, but for what stands between backquotes."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") and len(part) > 2 else re.sub(r"([\\`*_\[\]<>{}|$#~])", r"\\\1", part)
                   for part in parts)  # fmt: skip


def code(text: str) -> str:
    """As a code span of a table's cell."""
    ticks = "``" if "`" in text else "`"
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}".replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)
