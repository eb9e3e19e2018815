# SPDX-License-Identifier: Apache-2.0
"""The systemd units that come with the package, and systemctl."""

from __future__ import annotations

import subprocess
from pathlib import Path

from orion_virt.errors import Unavailable

CONTROLLER, SERVER = "orion-controller.service", "oriond.service"
NAMES = (CONTROLLER, SERVER)
TMPFILES = "orion.tmpfiles.conf"
SYSTEMD = Path("/run/systemd/system")  # there when systemd runs, see sd_booted(3)
_FOLDER = Path(__file__).resolve().parent.parent / "systemd"
_SECONDS = 120


def text(name: str, programs: Path) -> str:
    """A unit whose ExecStart= names the directory `programs`; as shipped it is /usr/bin."""
    return (_FOLDER / name).read_text().replace("ExecStart=/usr/bin/", f"ExecStart={programs}/")


def is_booted() -> bool:
    """True when systemd is this machine's init."""
    return SYSTEMD.is_dir()


def systemctl(*arguments: str) -> None:
    """Raises Unavailable with what it says when it fails."""
    try:
        done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"systemctl {' '.join(arguments)}: {error}", hint="Do it by hand") from error
    if done.returncode:
        raise Unavailable(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", hint="Look at journalctl -u oriond")


def is_active(unit: str) -> bool:
    try:
        return subprocess.run(["systemctl", "is-active", "--quiet", unit], timeout=_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
