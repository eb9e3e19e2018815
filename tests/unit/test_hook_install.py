# SPDX-License-Identifier: Apache-2.0
"""`orion-virt hook install`: what it writes is a hook that runs."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from orion_virt.cli import hook as module
from orion_virt.cli.main import main


@pytest.fixture(autouse=True)
def no_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """No libvirtd of this machine is signalled."""
    monkeypatch.setattr(module, "PID_FILES", ())
    monkeypatch.setattr(module, "say_firewall", lambda: None)


def test_installed_hook_runs_and_lets_an_unknown_operation_pass(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["hook", "install", "--directory", str(tmp_path)])
    assert done.exit_code == 0, done.output
    script = tmp_path / "qemu.d" / "50-orion-virt"
    ran = subprocess.run(["/usr/bin/python3", "-I", str(script), "guest", "stopped", "end", "-"], input=b"<domain/>",
                         capture_output=True, timeout=20, check=False)
    assert (ran.returncode, ran.stdout) == (0, b"")
    assert b"ModuleNotFoundError" not in ran.stderr


def test_remove_leaves_nothing(tmp_path: Path) -> None:
    CliRunner().invoke(main, ["hook", "install", "--directory", str(tmp_path)])
    assert CliRunner().invoke(main, ["hook", "remove", "--directory", str(tmp_path)]).exit_code == 0
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_remove_tells_oriond_of_domains_with_a_doorbell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    domains = [{"name": "vm1", "uuid": "u-1", "doorbell": True}, {"name": "vm2", "uuid": "u-2", "doorbell": False}]
    monkeypatch.setattr(module, "ask", lambda command: {"domains": domains})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hook:
        hook.bind(str(tmp_path / "hook.sock"))
        hook.settimeout(1)
        done = CliRunner().invoke(main, ["hook", "remove", "--directory", str(tmp_path / "hooks")])
        assert done.exit_code == 0 and hook.recv(100) == b"removed u-1 vm1"
        hook.setblocking(False)
        with pytest.raises(BlockingIOError):
            hook.recv(100)


def test_remove_without_oriond_says_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    done = CliRunner().invoke(main, ["hook", "remove", "--directory", str(tmp_path / "hooks")])
    assert done.exit_code == 0 and "doorbell='yes'" in done.output


def test_no_permission_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "qemu.d"))

    monkeypatch.setattr(module.shutil, "copyfile", refuse)
    done = CliRunner().invoke(main, ["hook", "install", "--directory", str(tmp_path)])
    assert done.exit_code == 7
    assert "run it as root" in done.output.lower()


def test_what_keeps_guests_away_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from orion_virt.cli import doctor
    from orion_virt.doctor import firewall
    from orion_virt.doctor.facts import ERROR, OK, Finding

    monkeypatch.undo()
    monkeypatch.setattr(module, "PID_FILES", ())
    monkeypatch.setattr(doctor, "gather", lambda: None)
    found = [Finding(OK, "fine"), Finding(ERROR, "it keeps vm1 away", "nft insert it")]
    monkeypatch.setattr(firewall, "firewall", lambda _: found)
    done = CliRunner().invoke(main, ["hook", "install", "--directory", str(tmp_path)])
    assert done.exit_code == 0 and "it keeps vm1 away. This opens it:\n  nft insert it\n" in done.output
    assert "fine" not in done.output
