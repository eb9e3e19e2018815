# SPDX-License-Identifier: Apache-2.0
"""Notices that a client is gone without reading its connection, which is its worker's."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable


class HangupWatch:
    """One epoll set, itself watched by the event loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)

    def add(self, conn: socket.socket, gone: Callable[[], None]) -> None:
        """Calls `gone` once when the peer has closed or shut down its side."""
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
