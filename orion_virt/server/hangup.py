# SPDX-License-Identifier: Apache-2.0
"""Notices that a client is gone without reading its connection, which is its worker's."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

PROBE_SECONDS = 30
GUEST_SILENT_DAYS = 24  # about the most that TCP_USER_TIMEOUT takes; a domain's end is known otherwise
MACHINE_SILENT_DAYS = 1  # of a machine without a region, which may have been switched off for good


class HangupWatch:
    """One epoll set, itself watched by the event loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)

    def add(self, conn: socket.socket, gone: Callable[[], None], silent_days: int) -> None:
        """Calls `gone` once when the peer has closed or shut down its side, knows nothing of it, or is silent for so long."""
        if conn.family != socket.AF_UNIX:
            _probe(conn, silent_days)
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


def _probe(conn: socket.socket, silent_days: int) -> None:
    """Asks the peer's kernel now and then: one that was reset, or replaced by kexec, answers that there is no such connection.

    A suspended machine answers nothing. So silence has a limit of its own, instead of the usual number of probes.
    """
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
    conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silent_days * 86_400_000)
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
