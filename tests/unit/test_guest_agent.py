# SPDX-License-Identifier: Apache-2.0
"""`orion-virt install DOMAIN` with an agent that is a stand-in: what it asks, and each way in which it can fail."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import pytest
from click.testing import CliRunner, Result
from lxml import etree

from orion_virt import paths
from orion_virt.cli import install as module
from orion_virt.cli.main import main
from orion_virt.domain import agent
from orion_virt.domain.connection import View
from orion_virt.errors import Conflict, OrionError, Unavailable

INSTALLER = b"#!/bin/sh\necho 'a note' >&2\n" + bytes(range(256)) * 999


class Guest:
    """Answers as qemu-ga does; programs run by `programs`, by their name and arguments."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.removed: dict[str, bytes] = {}
        self.ran: list[list[str]] = []
        self.disabled: set[str] = set()
        self.errors: dict[str, Any] = {}
        self.results: dict[str, tuple[int, str, str]] = {}
        self.takes = 1 << 20
        self._open: dict[int, str] = {}
        self.polls = 0

    def __call__(self, text: str, seconds: int) -> str:
        request = json.loads(text)
        name, arguments = request["execute"], request.get("arguments", {})
        if name in self.errors:
            if isinstance(self.errors[name], OrionError):
                raise self.errors[name]
            return str(self.errors[name])
        return json.dumps({"return": getattr(self, name.replace("-", "_"))(arguments)})

    def guest_info(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"version": "7", "supported_commands": [{"name": n, "enabled": n not in self.disabled} for n in agent.NEEDED]}

    def guest_file_open(self, arguments: dict[str, Any]) -> int:
        self._open[1000] = arguments["path"]
        self.files[arguments["path"]] = b""
        return 1000

    def guest_file_write(self, arguments: dict[str, Any]) -> dict[str, Any]:
        data = base64.b64decode(arguments["buf-b64"])[:self.takes]
        self.files[self._open[arguments["handle"]]] += data
        return {"count": len(data), "eof": False}

    def guest_file_close(self, arguments: dict[str, Any]) -> dict[str, Any]:
        del self._open[arguments["handle"]]
        return {}

    def guest_exec(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.ran.append([arguments["path"], *arguments["arg"]])
        return {"pid": len(self.ran)}

    def guest_exec_status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self.polls += 1
        if self.polls % 2:
            return {"exited": False}
        argv = self.ran[arguments["pid"] - 1]
        if argv[0] == "rm":
            self.removed |= {n: self.files.pop(n) for n in list(self.files) if n.startswith(argv[2] + "/")}
        status, out, err = self.results.get(argv[0], (0, "/tmp/orion.Ab1\n" if argv[0] == "mktemp" else "", ""))
        return {"exited": True, "exitcode": status, "out-data": base64.b64encode(out.encode()).decode()} | (
            {"err-data": base64.b64encode(err.encode()).decode()} if err else {})

    @property
    def is_clean(self) -> bool:
        return not self.files and not self._open


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    made = Guest()
    (tmp_path / "install-client").write_bytes(INSTALLER)
    monkeypatch.setattr(paths, "lib", lambda: tmp_path)
    monkeypatch.setattr(agent, "_POLL_SECONDS", 0)
    monkeypatch.setattr(module, "connect", lambda domain: (agent.Agent(made), domain))
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["install", *arguments])


def test_install(guest: Guest) -> None:
    guest.results = {"/bin/sh": (0, "", "install-client: note: something\n"), "/usr/lib/orion/orion-check": (0, "Installation summaries :\n", "")}
    done = run("vm1", "--user", "ann")
    assert done.exit_code == 0, done.output
    assert guest.ran == [["mktemp", "-d", "/tmp/orion.XXXXXXXX"],
                         ["/bin/sh", "/tmp/orion.Ab1/install-client", "-q", "--user", "ann"], ["rm", "-rf", "/tmp/orion.Ab1"],
                         ["/usr/lib/orion/orion-check", "install", "client"], ["/usr/lib/orion/orion-check", "runtime", "client"]]
    assert guest.removed["/tmp/orion.Ab1/install-client"] == INSTALLER and guest.is_clean
    for line in ("Copying install-client", "Running install-client -q --user ann in vm1", "install-client: note: something",
                 "Orion vGPU client environment has been installed in vm1", "Installation summaries :"):
        assert line in done.output


def test_uninstall(guest: Guest) -> None:
    done = run("vm1", "--uninstall")
    assert done.exit_code == 0 and "removed from vm1" in done.output
    assert ["/bin/sh", "/tmp/orion.Ab1/install-client", "-q", "--uninstall"] in guest.ran and guest.is_clean


def test_an_agent_that_takes_less_than_offered(guest: Guest) -> None:
    guest.takes = 1000
    assert run("vm1").exit_code == 0
    assert guest.removed["/tmp/orion.Ab1/install-client"] == INSTALLER


def test_what_orion_check_finds_is_shown_and_the_client_is_installed(guest: Guest) -> None:
    guest.results = {"/usr/lib/orion/orion-check": (1, "[Error] Shared memory device: no device\n", "")}
    done = run("vm1")
    assert done.exit_code == 0 and done.output.count("[Error] Shared memory device") == 1


@pytest.mark.parametrize(("break_it", "status", "said"), [
    (lambda g: g.errors.update({"guest-info": Unavailable("the guest agent of domain vm1 does not answer", hint="install it")}), 6, "does not answer"),
    (lambda g: g.disabled.update({"guest-exec", "guest-file-open"}), 7, "forbids what is needed: guest-file-open, guest-exec"),
    (lambda g: g.errors.update({"guest-exec": json.dumps({"error": {"class": "CommandNotFound", "desc": "Command guest-exec has been disabled"}})}),
     7, "has been disabled"),
    (lambda g: g.errors.update({"guest-file-open": json.dumps({"error": {"desc": "No such file or directory"}})}), 1, "guest-file-open: No such file"),
    (lambda g: g.errors.update({"guest-info": "nonsense"}), 8, "answer to guest-info is not understood"),
    (lambda g: g.errors.update({"guest-file-write": json.dumps({"return": {"count": 0}})}), 1, "Is its disk full?"),
    (lambda g: g.results.update({"mktemp": (1, "", "mktemp: no space\n")}), 1, "no directory can be made in the guest: mktemp: no space"),
    (lambda g: g.results.update({"mktemp": (0, "/etc\n", "")}), 1, "no directory can be made"),
    (lambda g: g.results.update({"/bin/sh": (1, "", "install-client: a real NVIDIA driver\n")}), 1,
     "failed in the guest with status 1: install-client: a real NVIDIA driver"),
])
def test_failures(guest: Guest, break_it: Callable[[Guest], None], status: int, said: str) -> None:
    break_it(guest)
    done = run("vm1")
    assert done.exit_code == status and said in done.output, done.output
    assert guest.is_clean or "guest-exec" in guest.errors and not guest.files
    assert "has been installed" not in done.output


def test_a_program_that_does_not_end(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RUN_SECONDS", -1.0)
    done = run("vm1")
    assert done.exit_code == 6 and "mktemp has not ended in the guest within" in done.output


@pytest.mark.parametrize("user", ["-x", "a b", "$(id)", ""])
def test_a_bad_user_is_refused(guest: Guest, user: str) -> None:
    assert run("vm1", "--user", user).exit_code == 2 and not guest.ran


# ---- between libvirt and us ----

def view(live: str | None) -> View:
    return View("u", "vm1", 1, None if live is None else etree.fromstring(live), None)


@pytest.mark.parametrize(("live", "said"), [(None, "does not run. Start it: virsh start vm1"), ("<domain><devices/></domain>",
                                                                                             "no channel for a guest agent")])
def test_no_agent_is_possible(live: str | None, said: str) -> None:
    with pytest.raises(Conflict, match=said):
        agent.through_libvirt(None, view(live))


@pytest.mark.parametrize(("code", "text", "kind", "said"), [
    (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, "Guest agent is not responding: QEMU guest agent is not connected", Unavailable, "install and start it"),
    (libvirt.VIR_ERR_INTERNAL_ERROR, "unable to execute QEMU agent command 'guest-exec': Command guest-exec has been disabled", OrionError,
     "the guest's policy forbids"),
    (libvirt.VIR_ERR_INTERNAL_ERROR, "unable to execute QEMU agent command 'guest-file-open': failed to open file", OrionError,
     "the guest agent refuses"),
    (libvirt.VIR_ERR_OPERATION_INVALID, "domain is not running", Unavailable, "cannot be asked: domain is not running"),
])
def test_errors_of_libvirt(monkeypatch: pytest.MonkeyPatch, code: int, text: str, kind: type[OrionError], said: str) -> None:
    error = libvirt.libvirtError("x")
    error.err = (code, 0, text, 2, None, None, None, 0, 0)

    def fail(*_: object) -> str:
        raise error

    monkeypatch.setattr(agent.libvirt_qemu, "qemuAgentCommand", fail)
    command = agent.through_libvirt(None, view(f"<domain><devices><channel><target name='{agent.CHANNEL}'/></channel></devices></domain>"))
    with pytest.raises(kind, match=said):
        agent.Agent(command).ask("guest-info")


@pytest.mark.parametrize("answer", ["[]", "{}", '{"return": null}', "7", '{"return": []}', '{"error": "no"}'])
def test_an_answer_of_another_shape_is_no_traceback(answer: str) -> None:
    for ask in (lambda a: a.run(["x"], 1), lambda a: a.write("x", b"y"), lambda a: a.require()):
        with pytest.raises(OrionError):
            ask(agent.Agent(lambda text, seconds: answer))
