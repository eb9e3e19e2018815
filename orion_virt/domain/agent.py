# SPDX-License-Identifier: Apache-2.0
"""The QEMU guest agent of a running domain, through libvirt: files into the guest, programs in it.

The protocol is QEMU's ("QEMU Guest Agent Protocol Reference"): one JSON object each way, bytes in base64.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import libvirt
import libvirt_qemu

from orion_virt.domain.connection import View
from orion_virt.errors import Conflict, Forbidden, OrionError, ProtocolError, Unavailable

CHANNEL = "org.qemu.guest_agent.0"
NEEDED = ("guest-file-open", "guest-file-write", "guest-file-close", "guest-exec", "guest-exec-status")
CHUNK_BYTES = 48 << 10  # 64 KiB in base64, far below what libvirt and the agent take
ANSWER_SECONDS = 20
_POLL_SECONDS = 0.2
_COMMAND_TIMEOUT, _COMMAND_FAILED = 112, 113  # VIR_ERR_AGENT_COMMAND_..., since libvirt 11.3
_ADD_CHANNEL = (f"Shut the domain down, add <channel type='unix'><target type='virtio' name='{CHANNEL}'/></channel> to its devices "
                "with `virsh edit`, and start it; in the guest install and start qemu-guest-agent")
_START_AGENT = "In the guest, install and start it: apt-get install qemu-guest-agent, or dnf install qemu-guest-agent"

Raw = Callable[[str, int], str]  # one command and the seconds to wait for its answer; raises OrionError


@dataclass(frozen=True)
class Done:
    """How a program in the guest ended."""

    status: int
    out: str
    err: str


def through_libvirt(domain: libvirt.virDomain, view: View) -> Raw:
    """The domain's agent. Raises Conflict where it has no channel or does not run."""
    if view.live is None:
        raise Conflict(f"domain {view.name} does not run", hint=f"Start it: virsh start {view.name}")
    if not view.live.xpath("devices/channel/target[@name=$name]", name=CHANNEL):
        raise Conflict(f"domain {view.name} has no channel for a guest agent", hint=_ADD_CHANNEL)

    def command(text: str, seconds: int) -> str:
        try:
            return str(libvirt_qemu.qemuAgentCommand(domain, text, seconds, 0))
        except libvirt.libvirtError as error:
            raise _translated(error, view.name) from error

    return command


def _translated(error: libvirt.libvirtError, name: str) -> OrionError:
    code, text = error.get_error_code(), error.get_error_message() or str(error)
    if code in (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED, _COMMAND_TIMEOUT):
        return Unavailable(f"the guest agent of domain {name} does not answer ({text})", hint=_START_AGENT)
    if code == _COMMAND_FAILED or "agent command" in text:
        return _refused(text)
    return Unavailable(f"the guest agent of domain {name} cannot be asked: {text}", hint="See that the domain runs: virsh list")


def _refused(text: str) -> OrionError:
    if "disabled" in text or "CommandNotFound" in text or "not been found" in text:
        return _forbidden(text)
    return OrionError(f"the guest agent refuses: {text}", hint="Its log in the guest says more: journalctl -u qemu-guest-agent")


def _forbidden(what: str) -> OrionError:
    return Forbidden(f"the guest's policy forbids what is needed: {what}",
                     hint="In the guest, allow it in /etc/qemu/qemu-ga.conf (block-rpcs, allow-rpcs) or /etc/sysconfig/qemu-ga, and restart "
                          "qemu-guest-agent; or copy install-client there by hand (orion-virt build-client)")


class Agent:
    """Commands to one guest; all block, all raise OrionError."""

    def __init__(self, raw: Raw) -> None:
        self._raw = raw

    def ask(self, command: str, kind: type[Any] = dict, /, **arguments: Any) -> Any:
        """The answer's `return`, which is of that kind. Raises ProtocolError, and what the answer itself says."""
        request = {"execute": command} | ({"arguments": arguments} if arguments else {})
        text = self._raw(json.dumps(request), ANSWER_SECONDS)
        answer = None
        with contextlib.suppress(ValueError):
            answer = json.loads(text)
        if isinstance(answer, dict) and "error" in answer:
            error = answer["error"]
            raise _refused(f"{command}: {error.get('desc', error) if isinstance(error, dict) else error}")
        if not isinstance(answer, dict) or not isinstance(answer.get("return"), kind):
            raise ProtocolError(f"the guest agent's answer to {command} is not understood", hint="Is it QEMU's?")
        return answer["return"]

    def require(self) -> None:
        """It answers and allows what is needed. Raises Unavailable, Forbidden."""
        listed = self.ask("guest-info").get("supported_commands", [])
        allowed = {entry.get("name") for entry in listed if isinstance(entry, dict) and entry.get("enabled")}
        missing = [name for name in NEEDED if name not in allowed]
        if missing:
            raise _forbidden(", ".join(missing))

    def write(self, path: str, data: bytes, progress: Callable[[int], None] = lambda n: None) -> None:
        """A new file; `progress` gets the bytes of each piece."""
        handle = self.ask("guest-file-open", int, path=path, mode="wb")
        try:
            at = 0
            while at < len(data):
                piece = base64.b64encode(data[at:at + CHUNK_BYTES]).decode()
                count = self.ask("guest-file-write", handle=handle, **{"buf-b64": piece}).get("count")
                if not isinstance(count, int) or not 0 < count <= CHUNK_BYTES:
                    raise OrionError(f"{path} cannot be written in the guest", hint="Is its disk full?")
                at += count
                progress(count)
        finally:
            self.ask("guest-file-close", handle=handle)

    def run(self, argv: Sequence[str], seconds: float) -> Done:
        """Runs a program to its end. Raises Unavailable after `seconds`; the program goes on then."""
        pid = self.ask("guest-exec", path=argv[0], arg=list(argv[1:]), **{"capture-output": True}).get("pid")
        deadline = time.monotonic() + seconds
        while True:
            status = self.ask("guest-exec-status", pid=pid)
            if status.get("exited"):
                break
            if time.monotonic() > deadline:
                raise Unavailable(f"{argv[0]} has not ended in the guest within {seconds:g} s", hint="Look into the guest; it goes on there")
            time.sleep(_POLL_SECONDS)
        text = [base64.b64decode(status.get(key, "")).decode("utf-8", "replace") for key in ("out-data", "err-data")]
        return Done(status.get("exitcode", 128 + status.get("signal", 0)), *text)
