# SPDX-License-Identifier: Apache-2.0
"""Notices that a client is gone without reading its connection, which is its worker's."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

PROBE_SECONDS = 30
GUEST_SILENT_MS = 24 * 86_400_000  # about the most that TCP_USER_TIMEOUT takes; a domain's end is known otherwise
# A machine without a region may have been switched off for good: 127 probes, the most that there can be, take most of a day.
MACHINE_AGAIN_SECONDS, MACHINE_PROBES = 600, 127


class HangupWatch:
    """One epoll set, itself watched by the event loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)

    def add(self, conn: socket.socket, gone: Callable[[], None], guest: bool) -> None:
        """Calls `gone` once when the peer has closed or shut down its side, knows nothing of it, or is silent for too long.

        ``guest``: of a domain of this host, whose end libvirt tells.
        """
        if conn.family != socket.AF_UNIX:
            _probe(conn, guest)
        self._callbacks[conn.fileno()] = gone
        self._epoll.register(conn.fileno(), select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLONESHOT)

    def remove(self, conn: socket.socket) -> None:
        if self._callbacks.pop(conn.fileno(), None) is not None:
            self._epoll.unregister(conn.fileno())

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            gone = self._callbacks.get(fd)
            if gone is not None:
                gone()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._epoll.fileno())
        self._epoll.close()


def _probe(conn: socket.socket, guest: bool) -> None:
    """Asks the peer's kernel now and then: one that was reset, or replaced by kexec, answers that there is no such connection.

    A suspended guest answers nothing, neither to probes nor to wake-ups, and goes on one day: its silence is measured by time.
    """
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
    if guest:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GUEST_SILENT_MS)
    else:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, MACHINE_AGAIN_SECONDS)
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, MACHINE_PROBES)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
