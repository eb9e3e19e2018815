# SPDX-License-Identifier: Apache-2.0
"""orion-check on the host: its text from golden files, and the line for each thing that can be broken."""

from __future__ import annotations

import copy
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orion_virt.cli import check, checks, requirements
from orion_virt.cli.requirements import Requirement

GOLDEN = Path(__file__).parent / "golden" / "check"
CONTROLLER = {"addr": "127.0.0.1:9123", "source": "configuration file", "connected": True, "problem": "",
              "version": "data_version=0.1,api_version=0.1", "total": 8, "free": 8}
FOUND: dict[str, Any] = {
    "gpu": {"simulated": False, "driver": "418.67", "gpus": ["Tesla V100-PCIE-16GB"] * 2, "error": ""},
    "mps": False,
    "server": {"problem": "", "user": "root", "command_line": "/usr/bin/oriond ", "registered": True, "enable_shm": True,
               "enable_rdma": False, "enable_kvm": True, "bind_addr": ["33.31.0.1"], "addresses": ["33.31.0.1"], "port": 9960,
               "reached": {"33.31.0.1:9960": True}},
    "controller": CONTROLLER,
}


def changed(**parts: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(FOUND)
    for part, values in parts.items():
        found[part] |= values
    return found


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("[Error]")]


def test_server_in_order() -> None:
    assert check.server_text(FOUND) + "\n" == (GOLDEN / "server.txt").read_text()


def test_client_in_order() -> None:
    found = {"controller": CONTROLLER | {"addr": "33.31.0.1:9123"}}
    assert check.client_text(found) + "\n" == (GOLDEN / "client.txt").read_text()


@pytest.mark.parametrize(("gpu", "lines"), [
    ({"gpus": ["T4"]}, ["CUDA driver 418.67 is installed.", "1 NVIDIA GPU is found :", "    0 : T4"]),
    ({"gpus": ["S"], "simulated": True}, ["1 simulated GPU is found :", "    0 : S"]),
    ({"gpus": ["S", "S"], "simulated": True}, ["2 simulated GPUs are found :", "    0 : S", "    1 : S"]),
])
def test_other_cards(gpu: dict[str, Any], lines: list[str]) -> None:
    text = check.server_text(changed(gpu=gpu))
    assert text.splitlines()[1:len(lines) + 2] == [*lines, ""] and not errors(text)


def test_several_addresses_have_a_line_each() -> None:
    two = {"bind_addr": ["auto"], "addresses": ["127.0.0.1", "fd00::1"], "reached": {"127.0.0.1:9960": True, "[fd00::1]:9960": True}}
    text = check.server_text(changed(server=two))
    assert f"{'Binding IP Address :':<40}127.0.0.1\n{'Binding IP Address :':<40}fd00::1\n" in text
    assert "through 127.0.0.1:9960\nOrion Server can be reached through [fd00::1]:9960\n" in text


BROKEN = {
    "driver": ({"gpu": {"error": "[server] driver = nvidia, but no NVIDIA driver works. Check nvidia-smi", "gpus": []}},
               "[Error] [server] driver = nvidia, but no NVIDIA driver works. Check nvidia-smi"),
    "no card": ({"gpu": {"gpus": []}},
                "[Error] No GPU is found. Please check nvidia-smi and [server] driver in the configuration file."),
    "stopped": ({"server": {"problem": "Orion Server is not running. Please start it: systemctl start oriond"}},
                "[Error] Orion Server is not running. Please start it: systemctl start oriond"),
    "firewall": ({"server": {"reached": {"33.31.0.1:9960": False}}},
                 "[Error] Can not reach 33.31.0.1:9960. Please make sure Orion Server is launched at the address, "
                 "and the firewall is correctly set."),
    "no address": ({"server": {"addresses": [], "bind_addr": ["auto"], "reached": {}}},
                   "[Error] No address to test: bind_addr is auto, and Orion Server does not tell which it has bound."),
    "no controller": ({"controller": {"connected": False}},
                      "[Error] Can not reach 127.0.0.1:9123. Please make sure Orion Controller is launched at the address, "
                      "and the firewall is correctly set."),
    "another service": ({"controller": {"problem": "HTTP 404"}},
                        "[Error] Address 127.0.0.1:9123 is reached, but what answers there is no Orion Controller: HTTP 404. "
                        "Please check controller_addr."),
    "empty controller": ({"controller": {"total": 0, "free": 0}},
                         "[Error] No Orion Server is registered with the Orion Controller at 127.0.0.1:9123. "
                         "Please make sure Orion Server is launched and its controller_addr is that one."),
    "not registered": ({"server": {"registered": False}},
                       "[Error] Orion Server is not registered with the Orion Controller. "
                       "Please look at its log: journalctl -u oriond"),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("as_json", [False, True])
def test_broken(case: str, as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    parts, line = BROKEN[case]
    monkeypatch.setattr(checks, "server_side", lambda config: changed(**parts))
    done = CliRunner().invoke(check.main, ["runtime", "server", *(["--json"] if as_json else [])])
    assert done.exit_code == 1
    assert (json.loads(done.output)["errors"] if as_json else errors(done.output)) == [line.removeprefix("[Error] ") if as_json else line]


# ---- how it is found out ----

@pytest.mark.parametrize(("status", "body", "problem"), [(404, "", "HTTP 404"), (200, "hello", "list index out of range")])
def test_something_else_at_the_controllers_address(web: Callable[..., str], status: int, body: str, problem: str) -> None:
    found = checks.controller(web(lambda path: body, status))
    assert (found["connected"], bool(found["problem"])) == (True, True)
    assert "what answers there is no Orion Controller" in check.client_text({"controller": found})


def test_nobody_at_the_controllers_address() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, and nobody listens
        found = checks.controller(f"127.0.0.1:{sock.getsockname()[1]}")
    assert not found["connected"]


def test_where_the_address_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_get", lambda *_: "n=1")
    monkeypatch.setattr(checks.socket, "create_connection", lambda *_, **__: socket.socket())
    assert checks.controller("1.2.3.4:5")["source"] == "configuration file"
    assert checks.controller("")["source"] == "default settings"
    monkeypatch.setenv("ORION_CONTROLLER", "1.2.3.4:5")
    assert checks.controller("1.2.3.4:5")["source"] == "environment variable"


def test_no_oriond_and_a_silent_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    assert checks.ask() == (None, "Orion Server is not running. Please start it: systemctl start oriond")
    monkeypatch.setattr(checks, "_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "control.sock"))
        server.listen()
        status, problem = checks.ask()
    assert status is None and problem.startswith("Orion Server is not in order: oriond does not answer")


def test_not_allowed_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checks.control, "_exchange", refuse)
    status, problem = checks.ask()
    assert status is None
    assert re.fullmatch(r"Orion Server can not be asked: no permission to use \S+\. Use sudo, .*\.", problem)


@pytest.mark.parametrize(("argv", "shown"), [
    (["-m", "orion_virt.cli.oriond", "--foreground"], "oriond --foreground "), (["-I", "/usr/bin/oriond"], "/usr/bin/oriond ")])
def test_command_line(argv: list[str], shown: str) -> None:
    assert checks.shown_command("\0".join(["/usr/bin/python3", *argv]).encode() + b"\0") == shown


def test_the_command_line_of_a_process() -> None:
    ours = Path("/proc/self/cmdline").read_bytes()
    assert checks.command_line(os.getpid()) == checks.shown_command(ours) != ""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert checks.command_line(ended.pid) == "unknown"


# ---- orion-check install ----

def test_install_ends_with_the_table() -> None:
    text = check.install_text([Requirement("QEMU", True, ""), Requirement("Group kvm", False, "install libvirt and QEMU")])
    assert text.splitlines() == ["[Error] Group kvm: install libvirt and QEMU", "Installation summaries :",
                                 f"{'QEMU':<40} [Yes]", f"{'Group kvm':<40} [No]"]


@pytest.mark.parametrize("part", ["server", "client", "controller", "all"])
def test_install_of_every_part(part: str) -> None:
    done = CliRunner().invoke(check.main, ["install", part])
    table = done.output.split("Installation summaries :\n")[1].splitlines()
    assert table and all(re.fullmatch(r".{40} \[(Yes|No)\]", line) for line in table)
    assert done.exit_code == (1 if any(line.endswith("[No]") for line in table) else 0)
    known = json.loads(CliRunner().invoke(check.main, ["install", part, "--json"]).output)
    assert [line[:40].rstrip() for line in table] == list(known["requirements"])


def test_what_is_missing_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "server.conf").write_text("[server]\nvgpu_count = 0\n[server-shm]\nshm_group_name = x\n")
    for name in ("ORION_ETC", "PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(requirements, "_SBIN", str(tmp_path))
    monkeypatch.setattr(requirements.paths, "lib", lambda: tmp_path)
    monkeypatch.setattr(requirements.paths, "simulated_driver", lambda: tmp_path / "none")
    monkeypatch.setattr(requirements.inventory, "nvidia_version", lambda: None)
    monkeypatch.setattr(requirements.hook, "HOOKS", tmp_path)
    monkeypatch.setattr(requirements.services, "SYSTEMD", tmp_path)
    monkeypatch.setattr(requirements.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(os.path, "ismount", lambda path: False)
    found = requirements.of("all")
    missing = {one.label for one in found if not one.fulfilled}
    assert missing == {one.label for one in found} - {"Group kvm", "Service oriond enabled", "Service orion-controller enabled"} | {
        one.label for one in found if one.label.startswith("Service") and not one.fulfilled}
    assert all(one.remedy for one in found if not one.fulfilled)
    assert any("[server] vgpu_count = '0' is not valid" in one.remedy for one in found)
    monkeypatch.setattr(requirements.configs, "load_server", lambda path: requirements.configs.ServerConfig(shm_group_name="nobodies"))
    assert not [one for one in requirements.before_setup() if one.label == "Group nobodies"][0].fulfilled
