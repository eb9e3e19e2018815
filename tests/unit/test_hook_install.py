# SPDX-License-Identifier: Apache-2.0
"""`orion-virt hook install`: what it writes is a hook that runs."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from orion_virt.cli import hook as module
from orion_virt.cli.main import main
from orion_virt.config import load_server
from orion_virt.server import libvirt_hook


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


def test_it_is_told_what_server_conf_says(tmp_path: Path) -> None:
    conf, hooks = tmp_path / "server.conf", tmp_path / "hooks"
    conf.write_text(f"[server-shm]\nshm_path_base = {tmp_path}\nshm_group_name = root\n")
    config = load_server(conf)
    assert not libvirt_hook.is_installed(hooks)
    done = CliRunner().invoke(main, ["hook", "install", "--directory", str(hooks), "--config", str(conf)])
    assert done.exit_code == 0 and f"Regions in {tmp_path} will belong to root and group root" in done.output
    lines = (hooks / "orion-virt.env").read_text().splitlines()
    assert f"ORION_SHM={tmp_path}" in lines and "ORION_QEMU_GROUP=root" in lines
    assert libvirt_hook.is_installed(hooks) and libvirt_hook.stale(config, hooks) == []
    assert [p.name for p in (hooks / "qemu.d").iterdir()] == ["50-orion-virt"]
    stale = libvirt_hook.stale(replace(config, shm_path_base="/elsewhere"), hooks)
    assert stale == [f"ORION_SHM is {tmp_path}, oriond has /elsewhere"]
    libvirt_hook.script(hooks).chmod(0o644)  # libvirt does not run it any more
    assert not libvirt_hook.is_installed(hooks)


def test_a_group_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    (tmp_path / "server.conf").write_text("[server-shm]\nshm_group_name = no-such-group\n")
    done = CliRunner().invoke(main, ["hook", "install", "--directory", str(tmp_path), "--config", str(tmp_path / "server.conf")])
    assert done.exit_code == 6 and "no-such-group" in done.output and "shm_group_name" in done.output
    assert not (tmp_path / "qemu.d").exists()


def test_remove_where_there_is_none(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["hook", "remove", "--directory", str(tmp_path)])
    assert done.exit_code == 0 and "There was no hook" in done.output


def test_remove_leaves_nothing(tmp_path: Path) -> None:
    CliRunner().invoke(main, ["hook", "install", "--directory", str(tmp_path)])
    assert CliRunner().invoke(main, ["hook", "remove", "--directory", str(tmp_path)]).exit_code == 0
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_remove_tells_oriond_of_domains_with_a_doorbell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at every domain again and, without the hook, takes doorbells out of definitions."""
    asked: list[str] = []
    monkeypatch.setattr(module, "ask", asked.append)
    done = CliRunner().invoke(main, ["hook", "remove", "--directory", str(tmp_path / "hooks")])
    assert done.exit_code == 0 and asked == ["reconcile"] and "doorbell" not in done.output


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
