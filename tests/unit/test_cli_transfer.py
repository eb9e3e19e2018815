# SPDX-License-Identifier: Apache-2.0
"""`orion-virt save` and `migrate`: what is around virsh, and what it is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from control_daemon import FakeDaemon

from orion_virt.cli import transfer
from orion_virt.cli.main import main

PROCESS = {"comm": "python3", "pid": 42}
HELD = {"domain": "vm1", "uuid": "u1", "uri": "qemu:///system", "state": "running", "ended": [PROCESS]}


class Kit:
    """A daemon, and a virsh that notes its arguments and ends as told."""

    def __init__(self, directory: Path) -> None:
        self.daemon = FakeDaemon(directory)
        self.daemon.answers["hold"] = HELD
        self._noted = directory / "noted"
        self.virsh(0)

    def virsh(self, status: int, before: str = "") -> None:
        path = self._noted.parent / "bin" / "virsh"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\n{before}\nprintf "%s|" "$@" >> {self._noted}\nexit {status}\n')
        path.chmod(0o755)

    def noted(self) -> list[str]:
        return self._noted.read_text().split("|")[:-1] if self._noted.exists() else []

    def holds(self) -> list[tuple[str, Any, Any]]:
        return [(a["domain"], a["seconds"], a.get("force")) for a in self.daemon.asked if a["cmd"] == "hold"]


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    made = Kit(tmp_path)
    yield made
    made.daemon.close()


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["save", "vm1"], ["managedsave", "vm1"]),
        (["save", "vm1", "--file", "/x", "--", "--verbose"], ["save", "vm1", "/x", "--verbose"]),
        (
            ["migrate", "vm1", "qemu+ssh://b/system", "--", "--persistent"],
            ["migrate", "--live", "vm1", "qemu+ssh://b/system", "--persistent"],
        ),
    ],
)
def test_what_virsh_is_told(kit: Kit, words: list[str], told: list[str]) -> None:
    done = run(*words)
    assert done.exit_code == 0, done.output
    assert kit.noted() == ["-c", "qemu:///system", *told]
    assert kit.holds() == [("vm1", transfer.HOLD_SECONDS, False), ("u1", 0, None)], "held before, released after"
    assert "ended: python3 (pid 42 in the guest)" in done.output and "error 46" in done.output


def test_processes_are_ended_only_by_force(kit: Kit) -> None:
    kit.daemon.answers["hold"] = {
        "ok": False,
        "error": "1 CUDA process of vm1 would end",
        "hint": "or say --force",
        "exit_code": 4,
    }
    done = run("save", "vm1")
    assert done.exit_code == 4 and "--force" in done.output and kit.noted() == []
    kit.daemon.answers["hold"] = HELD
    assert run("save", "vm1", "--force").exit_code == 0 and kit.holds()[1] == ("vm1", transfer.HOLD_SECONDS, True)


def test_a_domain_that_does_not_run(kit: Kit) -> None:
    kit.daemon.answers["hold"] = HELD | {"state": "shut off", "ended": []}
    assert run("save", "vm1").exit_code == 4 and kit.noted() == []


def test_a_failure_of_virsh_releases_the_domain(kit: Kit) -> None:
    kit.virsh(3)
    done = run("migrate", "vm1", "qemu+ssh://b/system")
    assert done.exit_code == 1 and "The domain is where it was" in done.output and "runs at" not in done.output
    assert kit.holds()[-1] == ("u1", 0, None)


def test_the_hold_is_renewed_while_virsh_works(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RENEW_SECONDS", 0.05)
    kit.virsh(0, before="sleep 0.6")
    assert run("save", "vm1").exit_code == 0
    assert kit.holds().count(("u1", transfer.HOLD_SECONDS, True)) >= 2


def test_without_virsh(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = run("save", "vm1")
    assert done.exit_code == 3 and "libvirt-clients" in done.output and kit.holds()[-1] == ("u1", 0, None)
