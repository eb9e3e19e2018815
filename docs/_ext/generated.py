# SPDX-License-Identifier: Apache-2.0
"""A line `<!-- generated: NAME -->` in a page becomes what the code itself says, so that nothing is written twice."""

from __future__ import annotations

import re
from typing import Any

import commands
import coverage
import messages

PARTS = {
    "commands": commands.text,
    "coverage": coverage.text,
    "nvml": coverage.nvml_text,
    "messages-guest": messages.guest_text,
    "messages-host": messages.host_text,
    "messages-log": messages.log_text,
}
LINE = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.M)


def fill(source: str) -> str:
    """The page with all that is generated in it. KeyError: no part has that name."""
    return LINE.sub(lambda found: PARTS[found[1]](), source)


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""

    def read(_app: Any, _page: str, source: list[str]) -> None:
        source[0] = fill(source[0])

    app.connect("source-read", read)
    # The code that pages come from is no dependency that Sphinx knows: each build reads every page.
    return {"version": "1", "parallel_read_safe": True, "env_version": 1}
