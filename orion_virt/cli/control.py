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


def ask(command: str, seconds: float | None = None, **fields: Any) -> dict[str, Any]:
    """The daemon's answer, within `seconds` (default: ANSWER_SECONDS). Raises the OrionError that it names, Unavailable or Forbidden where it cannot be asked."""
    path = paths.control_socket()
    request = json.dumps({"cmd": command, **fields}).encode() + b"\n"
    try:
        raw = _exchange(str(path), request, seconds or ANSWER_SECONDS)
    except PermissionError:
        raise errors.Forbidden(f"no permission to use {path}",
                               hint="Use sudo, or join its group (usermod -aG libvirt YOU)") from None
    except TimeoutError:
        raise errors.Unavailable(f"oriond does not answer at {path} within {seconds or ANSWER_SECONDS:g} s",
                                 hint="Look at its log: journalctl -u oriond") from None
    except OSError as error:
        raise NotRunning(f"oriond is not running ({path}: {error.strerror})",
                         hint="Start it: systemctl start oriond") from None
    return _checked(raw)


def _exchange(path: str, request: bytes, seconds: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(seconds)
        sock.connect(path)
        sock.sendall(request)
        raw = b""
        while not raw.endswith(b"\n") and len(raw) < _LONGEST:
            data = sock.recv(65536)
            if not data:
                break
            raw += data
    return raw


def _checked(raw: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(raw)
    except ValueError:
        raise errors.ProtocolError("oriond's answer is not understood", hint="Restart oriond after an update") from None
    if answer.get("ok"):
        return dict(answer)
    kinds = {kind.exit_code: kind for kind in errors.OrionError.__subclasses__()}
    kind = kinds.get(answer.get("exit_code", 1), errors.OrionError)
    raise kind(str(answer.get("error", "refused without a reason")), hint=str(answer.get("hint", "")))
