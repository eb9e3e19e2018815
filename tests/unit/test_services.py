# SPDX-License-Identifier: Apache-2.0
"""The systemd units: systemd understands them, how far they are closed, and what they must leave open."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orion_virt.cli import services

NAMES = ["oriond", "orion-controller"]
# systemd's exposure, 0 (closed) to 10, times ten. oriond: open devices, addresses and user are its work (2.0 of them),
# and what the unit's comment lists; the controller needs the network and root's files only.
MOST_EXPOSED = {"oriond": 45, "orion-controller": 20}

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def directives(name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in services.text(f"{name}.service", Path("/usr/bin")).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """The units as an installation writes them, with programs that exist."""
    for name in NAMES:
        (tmp_path / name).symlink_to(sys.executable)
        (tmp_path / f"{name}.service").write_text(services.text(f"{name}.service", tmp_path))
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_every_line(written: Path, name: str) -> None:
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", f"{name}.service"], cwd=written, text=True, timeout=180,
                          capture_output=True, check=False)
    said = [line for line in done.stderr.splitlines() if name in line]
    assert (done.returncode, said) == (0, [])


@needs_systemd
def test_a_mistake_would_be_noticed(written: Path) -> None:
    unit = written / "oriond.service"
    unit.write_text(unit.read_text().replace("KillMode=process", "KillMode=proces"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit.name], cwd=written, text=True, timeout=180,
                          capture_output=True, check=False)
    assert "kill mode" in done.stderr


@needs_systemd
@pytest.mark.parametrize("name", NAMES)
def test_exposure(written: Path, name: str) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED[name]}", f"./{name}.service"]
    done = subprocess.run(argv, cwd=written, text=True, capture_output=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_oriond_ends_its_workers_itself() -> None:
    assert directives("oriond")["KillMode"] == ["process"]


@pytest.mark.parametrize("closing", ["LockPersonality", "MemoryDenyWriteExecute", "PrivateDevices", "DevicePolicy", "DeviceAllow",
                                     "ProtectClock", "PrivateUsers", "PrivateIPC"])
def test_cuda_and_personality_still_work(closing: str) -> None:
    assert closing not in directives("oriond")


@needs_systemd
def test_no_filter_takes_a_call_that_workers_make() -> None:
    denied: set[str] = set()
    queue = re.findall(r"@[a-z-]+", " ".join(directives("oriond")["SystemCallFilter"]))
    while queue:
        shown = subprocess.run(["systemd-analyze", "syscall-filter", queue.pop()], text=True, capture_output=True, timeout=180,
                               check=True).stdout
        names = [line.strip() for line in shown.splitlines() if line.startswith("    ") and not line.strip().startswith("#")]
        queue += [name for name in names if name.startswith("@")]
        denied |= set(names)
    assert "mount" in denied
    assert not denied & {"personality", "execve", "mmap", "ioctl", "pidfd_open", "pidfd_send_signal", "mlock", "mknod",
                         "setresuid", "setgroups", "memfd_create", "prctl", "sched_setaffinity", "perf_event_open", "mbind"}


def test_they_are_part_of_the_package() -> None:
    listed = (Path(__file__).resolve().parents[2] / "setup.cfg").read_text()
    assert "systemd/*" in listed
    assert json.dumps(sorted(services.NAMES)) == json.dumps(sorted(["oriond.service", "orion-controller.service"]))
