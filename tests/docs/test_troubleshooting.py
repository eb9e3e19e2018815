# SPDX-License-Identifier: Apache-2.0
"""docs/troubleshooting.md quotes what the code says, and leaves out nothing that ends a program's use of the GPU."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache

import blocks
import pytest

sys.path.insert(0, str(blocks.ROOT / "docs" / "_ext"))
import messages  # noqa: E402

PAGE = (blocks.ROOT / "docs" / "troubleshooting.md").read_text()
# Python that tells a person what is wrong, in sentences that are no OrionError.
SPEAKING = ("cli/check.py", "cli/checks.py", "model/placement.py", "model/ceiling.py", "server/equip.py", "doctor/guests.py",
            "hook/doorbell.py", "cli/requirements.py")  # fmt: skip
GUEST_CHECK = blocks.ROOT / "guest-agent" / "installer" / "orion-check"


def one_line(text: str) -> str:
    return " ".join(text.split())


def quoted() -> list[str]:
    """What stands in the first cell of each row, as code."""
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [one_line(text) for row in rows for text in re.findall(r"`([^`]+)`", row.split(" | ")[0])]


def pattern(quote: str) -> re.Pattern[str]:
    return re.compile(".*?".join(re.escape(part) for part in quote.split("…")))


@cache
def speaking() -> tuple[str, ...]:
    found = []
    for name in SPEAKING:
        for node in ast.walk(ast.parse((blocks.ROOT / "orion_virt" / name).read_text())):
            if isinstance(node, (ast.JoinedStr, ast.Constant)):
                found.append(messages._words(node))
    return tuple(found)


def shell(line: str) -> str:
    return re.sub(r"\$\w+|\$\([^)]*\)", "…", line)


def of_guest_check() -> list[str]:
    return [shell(text) for text in re.findall(r'\berror "(.*?)"(?:;|$)', GUEST_CHECK.read_text(), re.M)]


@cache
def corpus() -> str:
    texts = [m.text + ". " + m.remedy for m in (*messages.of_c(), *messages.of_python())]
    return "\n".join(one_line(text) for text in (*texts, *speaking(), *of_guest_check()))


def said_to_users() -> list[str]:
    """All that ends a program's use of the GPU, a domain's start, or a check."""
    ends = [m.text for m in messages.of_c() if m.said_by in ("og_say", "og_lost")]
    ends += [m.text for m in messages.of_python() if m.said_by == "Refusal" and m.where == "hook"]
    ends += [t.removeprefix("…") for t in _errors_of_check()]
    return [one_line(t) for t in (*ends, *of_guest_check())]


def _errors_of_check() -> list[str]:
    found = []
    for node in ast.walk(ast.parse((blocks.ROOT / "orion_virt" / "cli" / "check.py").read_text())):
        if isinstance(node, ast.JoinedStr) and ast.unparse(node).startswith(("f'{ERROR}", 'f"{ERROR}')):
            found.append(messages._words(node))
    return [text for text in found if messages._says_something(text)]


# Frames around other messages, which are on the page themselves.
FRAMES = {"no vGPU: …", "the vGPU is lost: …; every further CUDA call of this process fails. …", "…: …"}


def test_the_code_is_read() -> None:
    said = said_to_users()
    assert len(said) > 40 and any("no Orion server answers" in text for text in said) and any("planting" in text for text in said)
    assert "its worker on the host died or was stopped" in said


def test_everything_that_ends_a_use_is_explained() -> None:
    quotes = [pattern(quote) for quote in quoted() if len(quote) > 8]
    assert not [text for text in said_to_users() if text not in FRAMES and not any(quote.search(text) for quote in quotes)]


@pytest.mark.parametrize("quote", [q for q in quoted() if " " in q and not q.startswith(("/dev", "orion-virt", "CUDA error"))])
def test_what_is_quoted_is_said(quote: str) -> None:
    assert pattern(quote).search(corpus())
