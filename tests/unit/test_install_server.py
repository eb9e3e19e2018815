# SPDX-License-Identifier: Apache-2.0
"""`orion-virt install-server`: below a scratch root, and with a stand-in for systemctl."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orion_virt import layout
from orion_virt.cli import complete, control, hook, install_server, man, requirements, services
from orion_virt.cli.main import main
from orion_virt.config import ServerConfig, parse_server
from orion_virt.errors import Unavailable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="install-server needs root")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation whose programs exist."""
    folder = tmp_path / "opt" / "bin"
    folder.mkdir(parents=True)
    for name in install_server.PROGRAMS:
        (folder / name).touch()
    monkeypatch.setattr(install_server.sys, "argv", [str(folder / "orion-virt")])
    monkeypatch.setattr(hook, "PID_FILES", ())
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def run(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, ["install-server", *arguments], input=answer)


def files(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_symlink() or p.is_file()}


WANTED = {f"etc/systemd/system/{name}" for name in ("multi-user.target.wants/oriond.service", "multi-user.target.wants/orion-controller.service",
                                                    "oriond.service.wants/orion-controller.service") if shutil.which("systemctl")}
LINKS = {f"usr/local/bin/{name}" for name in install_server.PROGRAMS}
ALL = LINKS | WANTED | {"etc/orion/server.conf", "etc/systemd/system/oriond.service", "etc/systemd/system/orion-controller.service",
               "etc/tmpfiles.d/orion.conf", "etc/libvirt/hooks/qemu.d/50-orion-virt", "etc/libvirt/hooks/orion-virt.env",
               *(f"usr/local/share/{place}" for place in complete.PLACES.values()),
               *(f"usr/local/share/man/man{section}/{name}.{section}" for name, (_, section) in man.PROGRAMS.items())}


def test_the_default_configuration_is_the_default() -> None:
    config = parse_server(install_server._DEFAULT_CONF.read_text(), "", {})
    assert config == ServerConfig()


def test_everything_is_written_and_again(programs: Path, root: Path) -> None:
    done = run("--root", str(root), answer="y\n")
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Orion server will be set up on this host, with the programs of {programs}\n"
                                  "Do you want to continue [n/y] ?\nConfiguration file is generated to /etc/orion/server.conf\n")
    assert files(root) == ALL
    assert f"\nExecStart={programs}/oriond\n" in (root / "etc/systemd/system/oriond.service").read_text()
    assert (root / "usr/local/bin/oriond").readlink() == programs / "oriond"
    assert run("-q", "--root", str(root)).output == ""
    assert files(root) == ALL


def test_an_existing_configuration_is_kept(programs: Path, root: Path) -> None:
    conf = root / "etc/orion/server.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("[server]\nvgpu_count = 2\n")
    done = run("--root", str(root), answer="y\n")
    assert "generated to /etc/orion/server.conf.new\n" in done.output
    assert conf.read_text() == "[server]\nvgpu_count = 2\n" and conf.with_name("server.conf.new").exists()
    run("-q", "--root", str(root), "--uninstall")
    assert files(root) == {"etc/orion/server.conf"}


def test_uninstall_leaves_only_the_configuration(programs: Path, root: Path) -> None:
    run("-q", "--root", str(root))
    done = run("--root", str(root), "--uninstall")
    assert done.exit_code == 0 and "are kept" in done.output
    assert files(root) == {"etc/orion/server.conf"}
    assert run("-q", "--root", str(root), "--uninstall").exit_code == 0


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_no_answer_sets_nothing_up(programs: Path, root: Path, answer: str) -> None:
    done = run("--root", str(root), answer=answer)
    assert done.exit_code == 1 and "Use -q" in done.output and not root.exists()


def test_a_package_brings_its_units_itself(programs: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_server, "_PACKAGED", programs)
    units = [root / "usr/lib/systemd/system" / name for name in services.NAMES]
    units[0].parent.mkdir(parents=True)
    for unit in units:
        unit.write_text(services.text(unit.name, programs))
    assert run("-q", "--root", str(root)).exit_code == 0
    assert files(root) == WANTED | {str(u.relative_to(root)) for u in units} | {f for f in ALL if f.startswith(("etc/orion", "etc/libvirt"))}
    if WANTED:
        units[0].unlink()
        done = run("-q", "--root", str(root))
        assert done.exit_code == 6 and f"package in {root}?" in done.output


def test_somebody_elses_program_is_not_overwritten(programs: Path, root: Path) -> None:
    other = root / "usr/local/bin/oriond"
    other.parent.mkdir(parents=True)
    other.write_text("theirs")
    done = run("-q", "--root", str(root))
    assert done.exit_code == 4 and "is there and not ours" in done.output and other.read_text() == "theirs"


def test_a_checkout_is_told_to_install_first(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(install_server.sys, "argv", ["/nowhere/main.py"])
    monkeypatch.setattr(install_server.sysconfig, "get_path", lambda name: "/nowhere")
    done = run("-q", "--root", str(root))
    assert done.exit_code == 3 and "pip install ." in done.output


def test_what_is_missing_is_named_with_its_remedy(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "before_setup", lambda: [requirements.Requirement("QEMU", False, "apt-get install qemu-system-x86")])
    done = run("-q")
    assert done.exit_code == 6 and "QEMU is missing (apt-get install qemu-system-x86)" in done.output and "--force" in done.output


# ---- services ----

Live = Callable[..., list[str]]


@pytest.fixture
def live(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    """A host on which systemd runs: `live(clients=2, active=True)` returns the list of systemctl's calls."""
    calls: list[str] = []

    def make(clients: int = 0, active: bool = False, controller: str = "127.0.0.1:9123", **kept: int) -> list[str]:
        def ask(command: str, **_: Any) -> dict[str, Any]:
            if not active:
                raise control.NotRunning("oriond is not running")
            return {"channels": [{}] * clients, **kept, "domains": [{"name": "vm1", "device": "live"}, {"name": "vm2", "device": "none"}]}

        monkeypatch.setattr(services, "SYSTEMD", tmp_path)
        monkeypatch.setattr(control, "ask", ask)
        monkeypatch.setattr(services, "systemctl", lambda *words: calls.append(" ".join(words)))
        monkeypatch.setattr(services, "is_active", lambda unit: active)
        monkeypatch.setattr(requirements, "before_setup", lambda: [])
        monkeypatch.setattr(install_server.Setup, "at", lambda self, path: tmp_path / "root" / str(path).lstrip("/"))
        monkeypatch.setattr(install_server.configs, "load_server", lambda path: ServerConfig(controller_addr=controller))
        return calls

    return make


def test_a_first_start(live: Live) -> None:
    calls = live()
    done = run("-q")
    assert done.exit_code == 0, done.output
    assert calls == ["daemon-reload", "enable orion-controller.service oriond.service", "start orion-controller.service", "start oriond.service"]


def test_a_controller_elsewhere_is_not_started_here(live: Live) -> None:
    calls = live(controller="10.0.0.9:9123")
    assert run("-q").exit_code == 0
    assert calls == ["daemon-reload", "enable oriond.service", "start oriond.service"]


def test_an_upgrade_restarts_what_serves_nobody(live: Live) -> None:
    calls = live(active=True)
    assert run("-q").exit_code == 0
    assert [c for c in calls if "start" in c] == ["restart orion-controller.service", "restart oriond.service"]


def test_an_upgrade_restarts_what_its_programs_outlive(live: Live) -> None:
    calls = live(active=True, clients=3, keep_workers=60, protocol=layout.PROTOCOL)
    assert run("-q").exit_code == 0 and "restart oriond.service" in calls


@pytest.mark.parametrize("kept", [{"keep_workers": 0, "protocol": layout.PROTOCOL}, {"keep_workers": 60, "protocol": layout.PROTOCOL + 1}])
def test_an_upgrade_that_its_programs_would_not_outlive(live: Live, kept: dict[str, int]) -> None:
    calls = live(active=True, clients=3, **kept)
    assert "cannot take up" in run("-q").output and not [c for c in calls if "start" in c]


def test_an_upgrade_ends_no_program(live: Live) -> None:
    calls = live(active=True, clients=3)
    done = run("-q")
    assert done.exit_code == 0 and "since 3 CUDA programs of guests use it" in done.output and "error 46" in done.output
    assert not [c for c in calls if "start" in c]


def test_an_upgrade_that_may_end_programs(live: Live) -> None:
    calls = live(active=True, clients=3)
    assert run("-q", "--restart").exit_code == 0
    assert [c for c in calls if "start" in c] == ["restart orion-controller.service", "restart oriond.service"]


def test_uninstall_with_running_programs_needs_force(live: Live) -> None:
    calls = live(active=True, clients=1)
    done = run("--uninstall")
    assert done.exit_code == 4 and "--force, which ends them" in done.output and not calls
    done = run("--uninstall", "--force")
    assert done.exit_code == 0 and "which does no harm: vm1." in done.output
    assert calls == ["stop oriond.service", "stop orion-controller.service", "disable orion-controller.service oriond.service", "daemon-reload"]


def test_an_oriond_that_does_not_answer(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = live(active=True)

    def silent(command: str) -> dict[str, Any]:
        raise Unavailable("oriond does not answer", hint="Look at its log")

    monkeypatch.setattr(control, "ask", silent)
    for arguments in (["-q"], ["-q", "--uninstall"]):
        assert run(*arguments).exit_code == 6 and not [c for c in calls if "start" in c or "stop" in c]
    assert run("-q", "--restart").exit_code == 0 and "restart oriond.service" in calls
    assert run("-q", "--uninstall", "--force").exit_code == 0 and "stop oriond.service" in calls


def test_a_failing_systemctl_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "systemctl").write_text("#!/bin/sh\necho 'Failed to start: no' >&2\nexit 1\n")
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match="systemctl start x: Failed to start: no"):
        services.systemctl("start", "x")
    assert not services.is_active("x")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable):
        services.systemctl("start", "x")
