# SPDX-License-Identifier: Apache-2.0
"""`orion-virt`: what it asks, what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from orion_virt.cli import addresses, control
from orion_virt.cli.main import main
from orion_virt.errors import Forbidden

DOMAIN = {"name": "vm1", "uuid": "u1", "state": "running", "device": "live", "size_mib": 128, "channels": 2,
          "server_addrs": ["10.0.0.1:9960"], "controller_addr": "10.0.0.1:9123", "addresses": [], "wanted": True,
          "reason": "marked", "problems": ["metadata: memory='lots' is not valid"], "settings": {"vgpus": "2"},
          "next_settings": {}, "usage": {"processes": 2, "vgpus": 3, "used_bytes": 5 << 20, "memory_bytes": 9 << 20,
                                         "calls_per_second": 7, "bytes_per_second": 1500000},
          "gateways": [{"address": "10.0.0.1", "listen": "10.0.0.1", "mac": "52:54:00:00:00:01", "confirmed": True, "doubt": "",
                        "why": "NIC 52:54:00:00:00:01 is on the nat network 'n', on which this host is 10.0.0.1/24"}],
          "unusable": ["NIC 52:54:00:00:00:02 is macvtap on eth0"],
          "domifaddr": [{"name": "vnet0", "mac": "52:54:00:00:00:01", "protocol": "ipv4", "address": "10.0.0.9",
                         "prefix": 24, "source": "lease"}]}
DOMAINS = {"ok": True, "domains": [DOMAIN], "used_mib": 128, "budget_mib": 1024}


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], list[dict[str, Any]]]]:
    """Answers every question with the same object (or raw bytes); returns what was asked."""
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(tmp_path / "control.sock"))
    server.listen()
    asked: list[dict[str, Any]] = []

    def serve(answer: Any) -> list[dict[str, Any]]:
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n"

        def loop() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer, peer.makefile() as lines:
                    asked.append(json.loads(lines.readline()))
                    peer.sendall(raw)

        threading.Thread(target=loop, daemon=True).start()
        return asked

    yield serve
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_list(daemon: Callable[[Any], list[dict[str, Any]]]) -> None:
    daemon(DOMAINS)
    lines = run("list").output.splitlines()
    assert lines[0].split() == ["DOMAIN", "STATE", "DEVICE", "REGION", "SERVER", "GUEST", "VGPUS", "MEMORY", "PROCESSES",
                                "CALLS/S", "COPIES"]
    assert lines[1].split() == ["vm1", "running", "live", "128", "MiB", "10.0.0.1:9960", "-", "3", "5/9", "MiB", "2", "7",
                                "1.5", "MB/s"]
    assert lines[2].startswith("vm1: metadata:") and lines[3] == "Regions use 128 of 1024 MiB."
    assert json.loads(run("list", "--json").output)["domains"] == [DOMAIN]


def test_show(daemon: Callable[[Any], list[dict[str, Any]]]) -> None:
    daemon(DOMAINS)
    shown = run("show", "vm1").output
    assert "settings:        vgpus=2 (at the next start: none)" in shown
    assert "server address:  10.0.0.1:9960" in shown
    assert "gateway:         10.0.0.1: NIC 52:54:00:00:00:01 is on the nat network 'n'" in shown
    assert "no gateway:      NIC 52:54:00:00:00:02 is macvtap on eth0" in shown
    assert shown.endswith("virsh domifaddr vm1 --source lease    (DHCP leases)\n"
                          " Name       MAC address          Protocol     Address\n" + "-" * 79 + "\n"
                          " vnet0      52:54:00:00:00:01    ipv4         10.0.0.9/24\n")
    assert json.loads(run("show", "--json", "vm1").output) == DOMAIN
    assert run("show", "vm2").exit_code == 3


def test_several_addresses_of_one_interface_and_none() -> None:
    row = DOMAIN["domifaddr"][0]  # type: ignore[index]
    rows = [row, row | {"address": "fd00::9", "protocol": "ipv6", "prefix": 64},
            row | {"name": "eth1", "mac": "", "address": ""}, row | {"name": "lo", "mac": "", "address": "127.0.0.1", "prefix": 8}]
    assert addresses.table(rows)[2:] == [
        " vnet0      52:54:00:00:00:01    ipv4         10.0.0.9/24",
        " -          -                    ipv6         fd00::9/64",
        " eth1       N/A                  N/A          N/A",
        " lo                              ipv4         127.0.0.1/8"]


def test_behind_user_mode_networking() -> None:
    gateway = DOMAIN["gateways"][0] | {"address": "10.0.2.2", "listen": "127.0.0.1", "why": "so"}  # type: ignore[index]
    lines = addresses.gateway_lines(DOMAIN | {"gateways": [gateway], "unusable": []})
    assert lines == ["  gateway:         10.0.2.2 (this host's 127.0.0.1): so"]
    assert addresses.gateway_lines(DOMAIN | {"gateways": [], "unusable": ["NIC x"]}) == [
        "  gateway:         none", "  no gateway:      NIC x"]


def test_what_is_asked(daemon: Callable[[Any], list[dict[str, Any]]]) -> None:
    asked = daemon({"ok": True, "domain": "vm1", "uuid": "u1", "size_mib": 64, "config": "c", "live": "l",
                    "path": "/p"})
    for words in (["attach", "vm1"], ["attach", "vm1", "--size", "64"], ["detach", "vm1"], ["detach", "--persistent", "vm1"],
                  ["region", "create", "--uuid", "u", "--size", "16"], ["region", "remove", "u"]):
        assert run(*words).exit_code == 0
    assert asked == [
        {"cmd": "attach", "domain": "vm1"}, {"cmd": "attach", "domain": "vm1", "size_mib": 64},
        {"cmd": "detach", "domain": "vm1", "persistent": False}, {"cmd": "detach", "domain": "vm1", "persistent": True},
        {"cmd": "region-create", "uuid": "u", "size_mib": 16}, {"cmd": "region-remove", "uuid": "u"}]


@pytest.mark.parametrize(("answer", "status"), [
    ({"ok": False, "error": "no such thing", "hint": "look", "exit_code": 3}, 3),
    ({"ok": False, "error": "no such thing", "hint": "look", "exit_code": 7}, 7),
    ({"ok": False, "error": "no such thing", "hint": "look"}, 1), (b"nonsense\n", 8), (b"", 8)])
def test_errors(daemon: Callable[[Any], list[dict[str, Any]]], answer: Any, status: int) -> None:
    daemon(answer)
    done = run("attach", "vm1")
    assert done.exit_code == status
    assert done.output.startswith("Error: ") and len(done.output.splitlines()) == 2


@pytest.mark.parametrize("words", [
    ["list"], ["show", "vm1"], ["top", "--once"], ["set", "vm1", "--vgpus", "1"], ["attach", "vm1"], ["save", "vm1"], ["logs", "vm1"]])
def test_a_daemon_of_another_version(daemon: Callable[[Any], list[dict[str, Any]]], words: list[str]) -> None:
    daemon({"ok": True, "domains": [{"name": "vm1", "uuid": "u1"}]})
    done = run(*words)
    assert done.exit_code == 8 and "systemctl restart oriond" in done.output, done.output


def test_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    done = run("list")
    assert done.exit_code == 6 and "systemctl start oriond" in done.output


def test_silent_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "control.sock"))
        server.listen()
        done = run("list")
    assert done.exit_code == 6 and "does not answer" in done.output


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_no_permission(daemon: Callable[[Any], list[dict[str, Any]]], tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    (tmp_path / "control.sock").chmod(0o660)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            control.ask("domains")
        except Forbidden as error:
            os._exit(error.exit_code if "libvirt" in error.hint else 99)
        os._exit(98)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("words", [
    ["attach"], ["attach", "vm1", "--size", "1"], ["attach", "vm1", "--size", "x"], ["nothing"]])
def test_wrong_usage(words: list[str]) -> None:
    assert run(*words).exit_code == 2
