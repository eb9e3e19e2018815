# SPDX-License-Identifier: Apache-2.0
"""Man pages say what the commands say, in text that a formatter takes without a warning."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orion_virt.cli import man
from orion_virt.cli.main import main
from orion_virt.cli.status import EPILOG, MEANINGS

REFERENCE = (Path(__file__).resolve().parents[2] / "docs" / "reference.md").read_text()


def test_every_command_and_option_is_in_the_page() -> None:
    text = man.page("orion-virt")
    for name, command in main.commands.items():
        for each in getattr(command, "commands", {"": command}).values():
            for param in each.params:
                for option in param.opts if param.param_type_name == "option" else ():
                    assert man.roff(option) in text, f"{name}: {option}"
        assert f"orion\\-virt {man.roff(name)}" in text
    assert all(f"\\fB{status}\\fR" in text for status in MEANINGS)


@pytest.mark.parametrize("program", man.PROGRAMS)
def test_pages_are_clean(program: str) -> None:
    text = man.page(program)
    assert text.startswith(f'.TH "{program.upper()}"') and ".SH SEE ALSO" in text
    for line in text.splitlines():
        assert line and (
            not line.startswith(".") or line.split()[0] in (".TH", ".SH", ".SS", ".TP", ".PP", ".nf", ".fi")
        ), repr(line)
        assert "\b" not in line and not line.startswith("'")
    if shutil.which("man") and shutil.which("groff"):
        done = subprocess.run(
            ["man", "-l", "-E", "UTF-8", "--warnings", "-"], input=text, capture_output=True, text=True, timeout=180
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_what_begins_like_a_request_is_text() -> None:
    assert man.roff(".x") == "\\&.x" and man.roff("a\\b-c") == "a\\eb\\-c"


def test_they_are_written(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "orion_virt.cli.man", str(tmp_path / "man")], check=True, timeout=180)
    assert sorted(p.name for p in (tmp_path / "man").iterdir()) == [
        "orion-check.1",
        "orion-controller.8",
        "orion-virt.1",
        "oriond.8",
    ]


def test_the_reference_has_the_same_statuses() -> None:
    rows = [
        line.split("|")
        for line in REFERENCE.split("\n## Exit statuses\n")[1].split("\n## ")[0].splitlines()
        if line.startswith("| ")
    ]
    told = {int(row[1]): row[2].partition("(")[0].strip() for row in rows if row[1].strip().isdigit()}
    assert told == MEANINGS
    assert all(meaning in EPILOG for meaning in MEANINGS.values())
