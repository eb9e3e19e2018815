# SPDX-License-Identifier: Apache-2.0
"""Every fenced block of the documentation is marked, and what is marked as run does what it shows."""

from __future__ import annotations

from pathlib import Path

import blocks
import console
import host as hosts
import pytest
import stage
from lxml import etree

from orion_virt import config
from orion_virt.controller import settings as controller_settings
from orion_virt.domain import metadata, shmem
from orion_virt.units import MIB

ALL = [block for path in blocks.PAGES for block in blocks.of_text(path, path.read_text())]
ON_STAGE = ("host", "busy", "guest", "save")
PAGES = sorted({block.path for block in blocks.of(*ON_STAGE)})
MOST_NOT_RUN = 0.25


def each(*kinds: str) -> pytest.MarkDecorator:
    found = blocks.of(*kinds)
    assert found, f"no page has a block of kind {kinds}: remove it from blocks.KINDS"
    return pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in found])


def test_every_block_is_marked() -> None:
    assert not [b.where for b in ALL if not b.toctree and not b.reason and b.kind not in blocks.KINDS]


def test_few_are_not_run_and_say_why() -> None:
    marked = [b for b in ALL if b.reason or b.kind]
    silent = [b for b in marked if b.reason]
    assert len(silent) <= MOST_NOT_RUN * len(marked), [b.where for b in silent]
    assert not [b.where for b in silent if len(b.reason.split()) < 2]


@pytest.mark.root
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands(host: hosts.Host, tmp_path: Path, page: Path) -> None:
    """The blocks of a page in their order, in one directory."""
    scene = stage.Stage(host, tmp_path / "work")
    wrong = []
    for block in (b for b in ALL if b.path == page and b.kind in ON_STAGE):
        if block.kind == "save":
            (scene.work / block.words[0]).write_text(block.text)
        else:
            wrong += [f"{block.where}: {one}" for one in scene.run(block.kind, block.text)]
    assert not wrong, "\n\n".join(wrong)


@each("config")
def test_configuration(block: blocks.Block, tmp_path: Path) -> None:
    """As `orion-virt config check` and the daemons read it: no error, and no warning."""
    path = tmp_path / f"{block.words[0]}.conf"
    path.write_text(block.text)
    if block.words == ("server",):
        found = config.load_server(path, required=True).warnings
    elif block.words == ("client",):
        found = config.load_client(path, required=True).warnings
    else:
        assert block.words == ("controller",)
        found = controller_settings.load(path, "", required=True).warnings
    assert not found


@each("metadata")
def test_metadata(block: blocks.Block) -> None:
    found = etree.fromstring(block.text)
    assert found.tag == f"{{{metadata.URI}}}vgpu"
    metadata.check({str(name): str(value) for name, value in found.attrib.items()})


@each("shmem")
def test_device(block: blocks.Block) -> None:
    """The page shows what the code makes."""
    found = etree.fromstring(block.text, etree.XMLParser(remove_blank_text=True))
    size = int(found.findtext("size") or 0)
    uuid = found.get("name", "").removeprefix(shmem.PREFIX)
    assert etree.tostring(found, encoding="unicode") == shmem.device_xml(uuid, size * MIB)


@each("spec")
def test_spec_line(block: blocks.Block) -> None:
    spec = (blocks.ROOT / "orion_virt" / "spec" / "calls" / f"{block.words[0]}.py").read_text()
    assert " ".join(block.text.split()) in " ".join(spec.split())


def test_a_block_without_a_mark_is_seen() -> None:
    page = blocks.ROOT / "docs" / "x.md"
    text = ("```console\n$ a\n```\n\n<!-- run: host -->\n```console\n$ b\n```\n\n<!-- norun: no reason -->\n* x\n\n  "
            "```\n  c\n  ```\n\ny\n\n    d\n")
    assert [(b.line, b.kind, b.reason) for b in blocks.of_text(page, text)] == [(1, "", ""), (6, "host", ""), (13, "", ""), (19, "", "")]


@pytest.mark.parametrize(("shown", "output", "same"), [
    (["a", "b"], "a\nb\n", True), (["a"], "a\nb\n", False), (["a", "..."], "a\nb\nc\n", True), (["...", "c"], "a\nb\nc\n", True),
    (["a ... c"], "a b c\n", True), (["a ... c"], "a b\nc\n", False), (["..."], "", True), (["a"], "a  \n", True), (["a."], "ab\n", False),
])  # fmt: skip
def test_comparison(shown: list[str], output: str, same: bool) -> None:
    assert console.matches(shown, output) is same


def test_what_a_block_shows_is_held_against_what_happens(tmp_path: Path) -> None:
    text = "$ echo one\none\n$ echo \\\n  two\nthree\n$ false\n$ exit 3\n$ echo never\n"
    wrong = console.run(text, {"PATH": "/usr/bin:/bin"}, tmp_path)
    assert len(wrong) == 3 and "prints\ntwo" in wrong[0] and wrong[1].startswith("$ false\nended with 1") and "not reached" in wrong[2]
