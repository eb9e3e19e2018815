# SPDX-License-Identifier: Apache-2.0
"""`orion-virt logs`: which lines of which files are a domain's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from control_daemon import FakeDaemon
from host import let_others_reach

from orion_virt.cli import logs as module
from orion_virt.cli.main import main

U1, U2 = "11111111-2222-3333-4444-555555555555", "11111111-2222-3333-4444-666666666666"
SERVER = f"""\
10:00 [INFO] oriond is ready: 1 simulated GPU, 4 vGPU each
10:01 [INFO] domain vm1: region of 128 MiB ready, server -, controller -
10:01 [INFO] domain vm1-copy: region of 128 MiB ready, server -, controller -
10:02 [INFO] channel 1: python3 (pid 42) of {U1} over shared memory, allocation a, worker 7
10:02 [INFO] channel 2: python3 (pid 43) of {U2} over shared memory, allocation b, worker 8
10:03 [WARNING] channel 1: no 2 MiB in one piece left
10:03 [WARNING] channel 2: something of the other
10:04 [INFO] oriond is ready: 1 simulated GPU, 4 vGPU each
10:05 [INFO] channel 1: python3 (pid 50) of {U2} over TCP, allocation c, worker 9
10:06 [INFO] channel 1: ended, closed by the guest
"""
ABOUT_VM1 = [SERVER.splitlines()[i] for i in (1, 3, 5)]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    monkeypatch.setenv("ORION_LOG", str(tmp_path))
    daemon = FakeDaemon(tmp_path)
    daemon.answers["names"] = {"names": [], "by_uuid": {U1: "vm1", U2: "vm1-copy"}}
    (tmp_path / "server.log").write_text(SERVER)
    (tmp_path / "session").mkdir()
    (tmp_path / "session" / "1-1-aa.log").write_text(f"channel 1: python3 (pid 42) of domain {U1}\nthe driver says\n")
    (tmp_path / "session" / "1-2-bb.log").write_text(f"channel 2: python3 (pid 43) of domain {U2}\nof another\n")
    yield tmp_path
    daemon.close()


def run(*words: str) -> list[str]:
    done = CliRunner().invoke(main, ["logs", *words])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_all_of_server_log(log: Path) -> None:
    assert run() == [f"==> {log}/server.log <==", *SERVER.splitlines()]
    assert run("-n", "1")[1:] == SERVER.splitlines()[-1:]


@pytest.mark.parametrize("name", ["vm1", U1])
def test_one_domain(log: Path, name: str) -> None:
    assert run(name) == [
        f"==> {log}/server.log <==",
        *ABOUT_VM1,
        "",
        f"==> {log}/session/1-1-aa.log <==",
        f"channel 1: python3 (pid 42) of domain {U1}",
        "the driver says",
    ]


def test_for_programs(log: Path) -> None:
    found = [json.loads(line) for line in run("vm1", "--json")]
    assert [f["line"] for f in found][:3] == ABOUT_VM1 and found[-1]["file"].endswith("1-1-aa.log")


def test_follow(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes later, a session that begins later, and a log that was rotated."""

    def append(path: str, text: str) -> None:
        with (log / path).open("a") as file:
            file.write(text)

    def rotate() -> None:
        (log / "server.log").rename(log / "server.log.1")
        (log / "server.log").write_text("10:08 [INFO] domain vm1: in the new file\n")

    steps: list[Callable[[], None]] = [
        lambda: append("server.log", "10:07 [INFO] domain vm1: half a "),
        lambda: append("server.log", "line\n"),
        lambda: append("session/2-3-cc.log", f"of domain {U1}\nlater\n"),
        rotate,
    ]

    def nap(_: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    monkeypatch.setattr(module.time, "sleep", nap)
    assert [line for line in run("vm1", "-n", "0", "-f") if line and not line.startswith("==>")] == [
        "10:07 [INFO] domain vm1: half a line",
        f"of domain {U1}",
        "later",
        "10:08 [INFO] domain vm1: in the new file",
    ]


def test_what_cannot_be_shown(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(main, ["logs", "vm9"])
    assert done.exit_code == 3 and "virsh list" in done.output
    (log / "server.log").unlink()
    done = CliRunner().invoke(main, ["logs"])
    assert done.exit_code == 3 and "journalctl" in done.output
    monkeypatch.setenv("ORION_RUN", "/nonexistent")
    assert CliRunner().invoke(main, ["logs", "vm1"]).exit_code == 6, "without oriond nobody knows whose a name is"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_permission(log: Path) -> None:
    let_others_reach(log / "server.log")
    (log / "server.log").chmod(0o600)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        done = CliRunner().invoke(main, ["logs"])
        os._exit(done.exit_code if "Use sudo" in done.output else 99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
