# SPDX-License-Identifier: Apache-2.0
"""The fenced blocks of README.md and docs/*.md, each marked by the comment before it: `run: KIND ...` or `norun: reason`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"<!-- (run|norun): (.+?) -->\s*")
# What a block can be run as, and who does it.
KINDS = {
    "host": "test_blocks.py: commands on a host with oriond",
    "busy": "test_blocks.py: the same while a program of a guest has a vGPU",
    "guest": "test_blocks.py: commands in a guest",
    "save": "test_blocks.py: a file that later blocks of the page use",
    "config": "test_blocks.py: server.conf, client.conf or controller.conf",
    "metadata": "test_blocks.py: a domain's settings, by the RELAX NG schema",
    "shmem": "test_blocks.py: the device in a definition, as the code reads it",
    "spec": "test_blocks.py: lines of orion_virt/spec/calls",
    "domain": "tests/vm/test_docs_domain.py: commands on a host with libvirt and a domain",
    "compat": "tests/compat/test_docs_examples.py: a program with another framework",
    "gpu": "tests/gpu/test_docs_on_nvidia.py: a program that needs machine code",
}


@dataclass(frozen=True)
class Block:
    """``kind``: one of KINDS, or "" where it is not run (``reason``) or not marked. ``words``: what follows the kind."""

    path: Path
    line: int
    text: str
    kind: str = ""
    words: tuple[str, ...] = ()
    reason: str = ""
    toctree: bool = False  # a table of contents for Sphinx, which is no example

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def of_text(path: Path, text: str) -> list[Block]:
    """All blocks of a page, also those in lists, and indented ones, which cannot be marked."""
    found: list[Block] = []
    before: Token | None = None
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type in ("fence", "code_block"):
            found.append(_block(path, token, before))
        before = token
    return found


def _block(path: Path, token: Token, before: Token | None) -> Block:
    line = (token.map or [0])[0] + 1
    if token.info == "{toctree}":
        return Block(path, line, token.content, toctree=True)
    mark = MARK.fullmatch(before.content) if before is not None and before.type == "html_block" else None
    if mark is None or token.type == "code_block":
        return Block(path, line, token.content)
    if mark[1] == "norun":
        return Block(path, line, token.content, reason=mark[2])
    kind, *words = mark[2].split()
    return Block(path, line, token.content, kind, tuple(words))


def of(*kinds: str) -> list[Block]:
    """The blocks of these kinds, of all pages in their order."""
    return [block for path in PAGES for block in of_text(path, path.read_text()) if block.kind in kinds]
