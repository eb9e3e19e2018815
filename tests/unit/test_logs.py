# SPDX-License-Identifier: Apache-2.0
"""server.log, the screen, the journal; `orion-virt config check`; what a reload changes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from orion_virt.cli.main import main
from orion_virt.config import KEY_OF_FIELD, LogConfig, ServerConfig
from orion_virt.errors import Unavailable
from orion_virt.server import logs, reload, systemd


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """ORION_LOG; the logging of this process is as before afterwards."""
    monkeypatch.setenv("ORION_LOG", str(tmp_path))
    root, level = logging.getLogger(), logging.getLogger().level
    yield tmp_path
    for handler in logs._ours:
        root.removeHandler(handler)
        handler.close()
    logs._ours.clear()
    root.setLevel(level)


def say(text: str, level: int = logging.INFO) -> None:
    logging.getLogger("orion.test").log(level, "%s", text)


def test_a_file_rotates_and_the_oldest_goes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 300)
    logs.setup(LogConfig(), False)
    for number in range(60):
        say(f"line {number}")
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["server.log", *(f"server.log.{n}" for n in range(1, logs.OLD_FILES + 1))]
    assert all(p.stat().st_size <= 300 for p in folder.iterdir())
    assert "line 59\n" in (folder / "server.log").read_text()


def test_setting_up_again_takes_the_place_of_the_former(folder: Path) -> None:
    logs.setup(LogConfig(log_with_time=False, file_log_level="WARNING"), False)
    say("quiet")
    logs.setup(LogConfig(log_with_time=False), False)
    say("once")
    assert (folder / "server.log").read_text() == "[INFO] once\n"
    logs.setup(LogConfig(log_to_file=False), False)
    say("nowhere")
    assert (folder / "server.log").read_text() == "[INFO] once\n"


def test_an_unwritable_file_is_one_error_and_the_former_log_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.setup(LogConfig(log_with_time=False), False)
    (folder / "file").touch()
    monkeypatch.setenv("ORION_LOG", str(folder / "file" / "below"))
    with pytest.raises(Unavailable, match="server.log cannot be written"):
        logs.setup(LogConfig(), False)
    say("still here")
    assert "still here" in (folder / "server.log").read_text()


@pytest.mark.parametrize(("level", "priority"), [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3)])
def test_the_journal_gets_priorities_and_no_time(folder: Path, monkeypatch: pytest.MonkeyPatch, level: int, priority: int,
                                                 capfd: pytest.CaptureFixture[str]) -> None:
    info = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{info.st_dev}:{info.st_ino}")
    logs.setup(LogConfig(log_to_file=False, log_level="DEBUG"), False)
    say("one\ntwo", level)
    assert capfd.readouterr().err == f"<{priority}>one\n<{priority}>two\n"


def test_another_ones_journal_is_not_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    assert not systemd.stderr_is_journal()


@pytest.mark.parametrize("name", ["@orion-test-{}", "{}"])
def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = name.format(f"{tmp_path}/notify" if name == "{}" else os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + path[1:] if path.startswith("@") else path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        systemd.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
        systemd.reloading()
        assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")


# ---- what a reload changes ----

def test_every_field_takes_effect_or_is_said() -> None:
    """A new key cannot be forgotten: it is in KEY_OF_FIELD, hence in one of the two lists."""
    known = {field.name for field in fields(ServerConfig)} - {"file", "warnings"}
    assert known == set(KEY_OF_FIELD) and known > reload.AT_ONCE


def test_merge() -> None:
    wanted = ServerConfig(listen_port=1, libvirt_exclude=("a",), log=LogConfig(log_level="DEBUG"), vgpu_count=9, confine=True, compute_limits="on",
                          warnings=("w",))
    merged, at_once, later = reload.merge(ServerConfig(), wanted)
    assert set(at_once) == {"[libvirt] exclude", "[server-log]"} and set(later) == {
        "[server] listen_port", "[server] vgpu_count", "[server] confine", "[server] compute_limits"}
    assert merged == replace(ServerConfig(), libvirt_exclude=("a",), log=LogConfig(log_level="DEBUG"))
    assert reload.merge(merged, merged) == (merged, [], [])


@pytest.mark.parametrize(("now", "then", "needs_restart"), [("all", "marked", False), ("all", "off", True), ("off", "all", True)])
def test_following_libvirt_at_all_needs_a_restart(now: str, then: str, needs_restart: bool) -> None:
    _, at_once, later = reload.merge(ServerConfig(libvirt_attach=now), ServerConfig(libvirt_attach=then))
    assert (later if needs_restart else at_once) == ["[libvirt] attach"]


# ---- orion-virt config check ----

@pytest.mark.parametrize(("text", "arguments", "status", "said"), [
    ("[server]\nvgpu_count = 3\n", [], 0, "is in order."),
    ("[server]\nvgpu = 3\n", [], 0, ":2: unknown key [server] vgpu is ignored"),
    ("[server]\nvgpu_count = 0\n", [], 2, ":2: [server] vgpu_count = '0' is not valid"),
    ("[server]\nworker_user = nobody-at-all\n", [], 2, "there is no such user"),
    ("[controller]\ncontroller_addr = :\n", ["--client"], 2, ":2: [controller] controller_addr = ':' is not valid"),
    ("[client-log]\nlog_level = NONE\n", ["--client"], 0, "is in order."),
])
def test_config_check(tmp_path: Path, text: str, arguments: list[str], status: int, said: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(text)
    done = CliRunner().invoke(main, ["config", "check", str(path), *arguments])
    assert (done.exit_code, said in done.output) == (status, True), done.output


def test_config_check_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_ETC", str(tmp_path))
    done = CliRunner().invoke(main, ["config", "check"])
    assert done.exit_code == 0 and "every key has its default" in done.output
    assert CliRunner().invoke(main, ["config", "check", str(tmp_path / "server.conf")]).exit_code == 2
