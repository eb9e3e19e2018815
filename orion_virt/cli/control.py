# SPDX-License-Identifier: Apache-2.0
"""One question to oriond over its control socket."""

from __future__ import annotations

import json
import socket
from typing import Any

from orion_virt import errors, paths

ANSWER_SECONDS = 30.0
_LONGEST = 16 << 20


class NotRunning(errors.Unavailable):
    """Nobody listens at the control socket."""


class Answer(dict[str, Any]):
    """An object of the daemon's; what it lacks, an oriond of another version did not say."""

    def __missing__(self, key: str) -> Any:
        raise errors.ProtocolError(f"oriond's answer has no {key!r}: it is of another version",
                                   hint="Restart it after an update: systemctl restart oriond")


def ask(command: str, patience: float | None = None, /, **fields: Any) -> dict[str, Any]:
    """The daemon's answer within `patience` seconds (default ANSWER_SECONDS).

    Raises the OrionError that it names, NotRunning, Unavailable or Forbidden where it cannot be asked.
    """
    path = paths.control_socket()
    patience = ANSWER_SECONDS if patience is None else patience
    request = json.dumps({"cmd": command, **fields}).encode() + b"\n"
    try:
        raw = _exchange(str(path), request, patience)
    except PermissionError:
        raise errors.Forbidden(f"no permission to use {path}",
                               hint="Use sudo, or join its group (usermod -aG libvirt YOU)") from None
    except TimeoutError:
        raise errors.Unavailable(f"oriond does not answer at {path} within {patience:g} s",
                                 hint="Look at its log: journalctl -u oriond") from None
    except OSError as error:
        raise NotRunning(f"oriond is not running ({path}: {error.strerror})",
                         hint="Start it: systemctl start oriond") from None
    return _checked(raw)


def _exchange(path: str, request: bytes, patience: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(patience)
        sock.connect(path)
        sock.sendall(request)
        raw = b""
        while not raw.endswith(b"\n") and len(raw) < _LONGEST:
            data = sock.recv(65536)
            if not data:
                break
            raw += data
    return raw


def _checked(raw: bytes) -> Answer:
    try:
        answer = json.loads(raw, object_hook=Answer)
    except ValueError:
        raise errors.ProtocolError("oriond's answer is not understood", hint="Restart oriond after an update") from None
    if answer.get("ok"):
        return answer
    kinds = {kind.exit_code: kind for kind in errors.OrionError.__subclasses__()}
    kind = kinds.get(answer.get("exit_code", 1), errors.OrionError)
    raise kind(str(answer.get("error", "refused without a reason")), hint=str(answer.get("hint", "")))
