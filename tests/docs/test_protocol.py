# SPDX-License-Identifier: Apache-2.0
"""The offsets and sizes in docs/protocol.md are those that a compiler makes of layout.h."""

from __future__ import annotations

import subprocess
from pathlib import Path

import blocks

from orion_virt import layout

# Rows of the page's tables: the name in it, then what C says of its two numbers.
REGION = (("oc_header", "0", "OC_SNAPSHOT_OFF"), ("oc_snapshot", "OC_SNAPSHOT_OFF", "OC_MAILBOX_OFF - OC_SNAPSHOT_OFF"),
          ("oc_mailbox", "OC_MAILBOX_OFF", "OC_MAILBOX_BYTES"), ("extents", "OC_HEADER_BYTES", None))  # fmt: skip
BLOCK = (("oc_channel", "0", "OC_RING_OFF"), ("ring", "OC_RING_OFF", "OC_SLOTS_OFF - OC_RING_OFF"),
         ("completion slots", "OC_SLOTS_OFF", "OC_CALLBACKS_OFF - OC_SLOTS_OFF"),
         ("host functions", "OC_CALLBACKS_OFF", "OC_OUTPUT_OFF - OC_CALLBACKS_OFF"),
         ("kernels print", "OC_OUTPUT_OFF", "OC_OUTPUT_BYTES"), ("staging", "OC_STAGING_OFF", None))  # fmt: skip
COMMAND = tuple((name, f"offsetof(struct oc_cmd, {name})", None) for name in ("seq", "op", "lines", "bytes", "thread", "flags", "payload"))
WORDS = {"lines of 64 bytes": "OC_RING_LINES", "completion slots of 1024 bytes": "OC_NR_SLOTS", "host functions to be run": "OC_NR_CALLBACKS",
         "connections for guests without": "OC_MAIL_SLOTS"}  # fmt: skip


def numbers(expressions: list[str], folder: Path) -> list[int]:
    """What the header's macros and structs come to."""
    prints = "".join(f'printf("%llu\\n", (unsigned long long)({one}));' for one in expressions)
    (folder / "say.c").write_text(f'#include <stdio.h>\n#include "orion/layout.h"\nint main(void) {{ {prints} return 0; }}\n')
    include = str(blocks.ROOT / "ivshmem" / "include")
    subprocess.run(["cc", "-std=gnu11", "-I", include, "-o", str(folder / "say"), str(folder / "say.c")], check=True)
    return [int(line) for line in subprocess.run([str(folder / "say")], capture_output=True, text=True, check=True).stdout.split()]


def rows(after: str) -> list[list[str]]:
    """The cells of the first table behind a heading."""
    lines = (blocks.ROOT / "docs" / "protocol.md").read_text().split(f"{after}\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| ---") or line.startswith("|---")) + 1
    table = lines[start:]
    end = next((number for number, line in enumerate(table) if not line.startswith("|")), len(table))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[:end]]


def test_numbers(tmp_path: Path) -> None:
    wanted: list[tuple[str, str]] = []
    for heading, facts in (("## The region", REGION), ("## The channel block", BLOCK), ("### A command in the ring", COMMAND)):
        shown = rows(heading)
        assert len(shown) == len(facts), heading
        for cells, (name, offset, size) in zip(shown, facts, strict=True):
            assert name in " ".join(cells), (name, cells)
            wanted.append((offset, cells[0].split(",")[0]))
            if size is not None:
                wanted.append((size, cells[1]))
    assert [str(n) for n in numbers([expression for expression, _ in wanted], tmp_path)] == [text for _, text in wanted]


def test_counts_in_the_text(tmp_path: Path) -> None:
    text = (blocks.ROOT / "docs" / "protocol.md").read_text()
    for (words, _), number in zip(WORDS.items(), numbers(list(WORDS.values()), tmp_path), strict=True):
        assert f"{number} {words}" in text
    assert "one of four agreed addresses" in text and len(layout.BASES) == 4
