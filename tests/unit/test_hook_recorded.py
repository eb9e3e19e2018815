# SPDX-License-Identifier: Apache-2.0
"""The hook on what libvirt 9.0 told it for each operation (recorded by tests/vm/record_hook.py)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orion_virt.hook import domain_xml

REPO = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden" / "hook"
OPERATIONS = ("prepare", "start", "started", "stopped", "release", "reconnect", "attach", "migrate", "restore")
UUID = "6d4c1f0a-58c3-4e0b-9a51-7c2f6a0d9e33"
# What libvirt sets in a hook's environment, and no more.
ENVIRON = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the hook runs as root and gives files to root"),
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no system python3"),
]


class Installed:
    """The hook as `orion-virt hook install` leaves it, with directories of its own."""

    def __init__(self, directory: Path) -> None:
        hooks = directory / "hooks"
        self.shm = directory / "shm"
        self.shm.mkdir()
        (hooks / "qemu.d").mkdir(parents=True)
        self._script = shutil.copy(REPO / "hooks" / "qemu.d" / "50-orion-virt", hooks / "qemu.d")
        (hooks / "orion-virt.env").write_text(f"ORION_PYTHONPATH={REPO}\nORION_SHM={self.shm}\nORION_RUN={directory}\n"
                                              "ORION_QEMU_GROUP=root\n")
        self.region = self.shm / f"orion-{UUID}"
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind(str(directory / "hook.sock"))
        self.datagrams.setblocking(False)

    def run(self, op: str) -> None:
        """One recorded call. It may neither fail nor print: libvirt reads stdout as XML at restore and migrate."""
        arguments = (GOLDEN / f"{op}.args").read_text().split()
        done = subprocess.run([self._script, *arguments], input=(GOLDEN / f"{op}.xml").read_bytes(), capture_output=True,
                              env=ENVIRON, cwd="/", timeout=180, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), op

    def told(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.datagrams.recv(500).decode())
            except BlockingIOError:
                return found


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    made = Installed(tmp_path)
    yield made
    made.datagrams.close()


def test_every_operation_is_recorded() -> None:
    assert {p.stem for p in GOLDEN.glob("*.args")} == {p.stem for p in GOLDEN.glob("*.xml")} == set(OPERATIONS)


@pytest.mark.parametrize("op", OPERATIONS)
def test_the_recorded_domain_is_understood(op: str) -> None:
    domain = domain_xml.parse((GOLDEN / f"{op}.xml").read_bytes())
    assert (domain.name, domain.uuid) == ("recorded", UUID)
    assert [(s.name, s.size_bytes) for s in domain.shmems] == [(domain.region, 128 << 20)]
    assert (domain.required, domain.label) == (False, "")


def test_a_whole_life(installed: Installed) -> None:
    """Start, libvirtd's restart, save; restore; the other host's side of a migration."""
    for op in ("prepare", "start", "started"):
        installed.run(op)
    first = installed.region.stat()
    assert (first.st_size, first.st_uid, first.st_mode & 0o777) == (128 << 20, 0, 0o660)
    installed.run("reconnect")
    installed.run("attach")
    assert installed.region.stat().st_ino == first.st_ino
    assert installed.told() == [f"{op} {UUID} recorded" for op in ("started", "reconnect", "attach")]
    with installed.region.open("r+b") as held:
        held.write(b"of the first life")
        for op in ("stopped", "release", "restore", "prepare", "start", "started"):
            installed.run(op)
        assert installed.region.read_bytes()[:17] == bytes(17)
        held.seek(0)
        assert held.read(17) == b"of the first life", "QEMU's old memory was touched"
    for op in ("stopped", "release", "migrate", "prepare"):
        installed.run(op)
    assert installed.region.exists()
    installed.run("release")
    assert os.listdir(installed.shm) == []
    assert installed.told()[-4:] == [f"{op} {UUID} recorded" for op in ("stopped", "release", "migrate", "release")]


@pytest.mark.parametrize("op", [op for op in OPERATIONS if op != "prepare"])
def test_nothing_but_prepare_may_fail(installed: Installed, op: str) -> None:
    """Without oriond, on a directory that is gone, with a directory where the file should be: the domain lives."""
    installed.region.mkdir()
    installed.run(op)
    installed.datagrams.close()
    installed.region.rmdir()
    installed.shm.rmdir()
    installed.run(op)
