# SPDX-License-Identifier: Apache-2.0
"""Asks the server of a domain's doorbell device (ivshmem/server.py) for what the guest rings. Blocking, but not for long."""

from __future__ import annotations

import json
import logging
import os
import socket
from typing import Any

HOST = 1  # our peer number
VERSION = 1  # of the server's answers
ANSWER_SECONDS = 1.0
_ANSWER_BYTES = 4096
_log = logging.getLogger("orion.region")


def control_of(server: str) -> str:
    """Where the server to which QEMU connects at `server` answers us."""
    return server.removesuffix(".sock") + ".ctl"


def check(control: str) -> str:
    """Why the doorbell does not ring; "": it does."""
    return _ask(control, None)[0]


def take(control: str, vector: int) -> int | None:
    """The eventfd that ringing `vector` makes readable, None where the server does not give it."""
    why, fd = _ask(control, vector)
    if why:
        _log.info("%s: no doorbell for this channel: %s", control, why)
    return fd


def _ask(control: str, vector: int | None) -> tuple[str, int | None]:
    """(why not, the vector's eventfd)."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(ANSWER_SECONDS)
            sock.connect(control)
            sock.send(json.dumps({"vector": vector}).encode())
            raw, fds, _, _ = socket.recv_fds(sock, _ANSWER_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError as error:
        return f"its server does not answer: {error.strerror or error}", None
    why = _complaint(raw)
    if not why and len(fds) == (vector is not None):
        return "", fds[0] if fds else None
    for fd in fds:
        os.close(fd)
    return why or "its server's answer is not understood", None


def _complaint(raw: bytes) -> str:
    try:
        answer: dict[str, Any] = json.loads(raw)
        if answer["version"] != VERSION:
            return f"its server speaks version {answer['version']}, {VERSION} is known"
        if not answer["ok"]:
            return str(answer["error"])
        return "" if answer["qemu"] else "its server was started anew, and QEMU does not connect again"
    except (ValueError, KeyError, TypeError):
        return "its server's answer is not understood"
