# SPDX-License-Identifier: Apache-2.0
"""docs/reference.md names every variable, configuration key, attribute and HTTP call that the code knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from orion_virt import config
from orion_virt.controller import http
from orion_virt.domain import metadata

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
VARIABLE = re.compile(r"\bORION_[A-Z_]*[A-Z]\b")
TREES = (("orion_virt", {".py", ".c"}), ("guest-agent", {".py", ".c", ".in"}), ("hooks", {""}))


def sources() -> Iterator[Path]:
    for tree, suffixes in TREES:
        for path in sorted((ROOT / tree).rglob("*")):
            if path.is_file() and path.suffix in suffixes and "gen" not in path.parts:
                yield path


def variables() -> set[str]:
    """All but include guards, which end in _H."""
    found = {name for path in sources() for name in VARIABLE.findall(path.read_text())}
    return {name for name in found if not name.endswith("_H")}


def section(title: str) -> str:
    """The text between a heading and the next one."""
    return REFERENCE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def absent(names: set[str], text: str) -> list[str]:
    return sorted(name for name in names if f"`{name}`" not in text)


def test_the_variables_are_found_in_the_code() -> None:
    assert {"ORION_VGPU", "ORION_STATS", "ORION_SIM_GPUS", "ORION_CACHE", "ORION_SHM", "ORION_ROOT"} <= variables()


def test_every_variable_is_named() -> None:
    assert not absent(variables(), REFERENCE)


def test_no_variable_is_named_that_nobody_reads() -> None:
    known = variables() | set(VARIABLE.findall((ROOT / "tests" / "skips.py").read_text()))
    assert not set(VARIABLE.findall(REFERENCE)) - known


def test_every_key_of_server_conf_is_named() -> None:
    keys = {key for _, key in config._SERVER_KEYS} | set(config._LOG_KEYS)
    assert not absent(keys | {f"[{name}]" for name, _ in config._SERVER_KEYS} | {"[server-log]"}, section("server.conf"))


def test_every_key_of_client_conf_is_named() -> None:
    assert not absent({key for _, key in config._CLIENT_KEYS} | set(config._LOG_KEYS), section("client.conf"))


def test_every_attribute_of_the_metadata_is_named() -> None:
    rows = [[cell.strip() for cell in line.split("|")] for line in section("Metadata of a domain").splitlines()]
    told = {row[1].strip("`"): row[2] for row in rows if len(row) > 3 and row[1].startswith("`")}
    assert told == metadata._ACCEPTED


def test_every_call_of_the_controller_is_named() -> None:
    text = section("Controller (HTTP)")
    assert not [path for path in (*http._CALLS, *http._CALLS_WITH_NAME) if f" /{path}" not in text]


def test_every_check_of_doctor_is_named() -> None:
    from orion_virt import doctor

    assert not absent({check.__name__ for check in doctor.CHECKS}, section("orion-virt doctor"))
