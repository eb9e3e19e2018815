# SPDX-License-Identifier: Apache-2.0
"""The daemon's local sockets: control.sock for commands, hook.sock for libvirt's hook."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from orion_virt.errors import NotFound, OrionError, ProtocolError, Unavailable
from orion_virt.server.contract import Command

CONTROL_GROUP = "libvirt"
_LINE_MAX = 64 << 10
_HOOK_MAX = 512
_UCRED = struct.Struct("iII")

_log = logging.getLogger("orion.control")
_OF_LIBVIRT = ("domains", "names", "attach", "detach", "set", "hold")  # they exist only while libvirt is followed


def _bind(kind: int, path: Path, mode: int) -> socket.socket:
    """A fresh socket file; the caller holds the lock that makes it ours to replace."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        path.chmod(mode)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    sock.setblocking(False)
    return sock


class ControlSocket:
    """One JSON object a line in, one out."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        sock = _bind(socket.SOCK_STREAM, self._path, 0o660)
        with contextlib.suppress(KeyError, PermissionError):
            os.chown(self._path, -1, grp.getgrnam(CONTROL_GROUP).gr_gid)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=_LINE_MAX)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = _peer_uid(writer.get_extra_info("socket"))
        try:
            while line := await reader.readline():
                answer = await self._answer(line, uid)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):
            _log.info("a control connection of uid %d broke the protocol", uid)
        finally:
            writer.close()

    async def _answer(self, line: bytes, uid: int) -> dict[str, Any]:
        try:
            request = _request(line)
            name = str(request.get("cmd", ""))
            command = self._commands.get(name)
            if command is None and name in _OF_LIBVIRT:
                raise Unavailable("oriond does not follow libvirt", hint="Set [libvirt] attach = all or marked in server.conf")
            if command is None:
                raise NotFound(f"command {name!r} is unknown", hint=f"Known: {', '.join(sorted(self._commands))}")
            _log.debug("uid %d: %s", uid, name)
            return {"ok": True, **await command(request)}
        except OrionError as error:
            return {"ok": False, "error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        except Exception as error:
            # The outermost frame of a command: one that fails must not end the daemon.
            _log.exception("command failed: %r", line[:200])
            return {"ok": False, "error": f"internal error: {error!r}", "hint": "See server.log", "exit_code": 1}


def _request(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise ProtocolError("the line is not a JSON object", hint='Example: {"cmd": "ping"}')
    return request


def _peer_uid(sock: Any) -> int:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(raw)[1])


class HookSocket:
    """Datagrams `op uuid name`, from root or ourselves."""

    def __init__(self, path: Path, hook: Callable[[str, str, str], None]) -> None:
        self._path = path
        self._hook = hook
        self._sock: socket.socket | None = None

    def start(self) -> None:
        self._sock = _bind(socket.SOCK_DGRAM, self._path, 0o600)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        asyncio.get_running_loop().add_reader(self._sock.fileno(), self._readable)

    def stop(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._path.unlink(missing_ok=True)

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            raw, ancillary, _, _ = self._sock.recvmsg(_HOOK_MAX, socket.CMSG_SPACE(_UCRED.size))
        except BlockingIOError:
            return
        uids = [_UCRED.unpack(data[: _UCRED.size])[1] for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS]
        words = raw.decode("utf-8", "replace").split(" ", 2)
        if not uids or uids[0] not in (0, os.geteuid()) or len(words) != 3:
            _log.warning("a datagram to hook.sock is ignored: it is not the hook's")
            return
        try:
            self._hook(*words)
        except Exception:
            _log.exception("the hook's datagram %r failed", words)
