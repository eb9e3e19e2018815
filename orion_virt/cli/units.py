# SPDX-License-Identifier: Apache-2.0
"""The systemd units that come with the package, as text for the place where the programs lie."""

from __future__ import annotations

from pathlib import Path

CONTROLLER, SERVER = "orion-controller.service", "oriond.service"
NAMES = (CONTROLLER, SERVER)
TMPFILES = "orion.tmpfiles.conf"
_FOLDER = Path(__file__).resolve().parent.parent / "systemd"


def text(name: str, programs: Path) -> str:
    """A unit whose ExecStart= names the directory `programs`; as shipped it is /usr/bin."""
    return (_FOLDER / name).read_text().replace("ExecStart=/usr/bin/", f"ExecStart={programs}/")
