# SPDX-License-Identifier: Apache-2.0
"""The kernel's word when an address or a link of this host changes, and when a neighbour is heard of."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator

_LINK, _NEIGH, _IPV4, _IPV6 = 0x1, 0x4, 0x10, 0x100  # RTMGRP_*, <linux/rtnetlink.h>
_NEWLINK, _DELLINK, _NEWADDR, _DELADDR, _NEWNEIGH = 16, 17, 20, 21, 28
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NDMSG_BYTES, _IFADDRMSG_SCOPE, _LLADDR, _GLOBAL = 12, 3, 2, 0
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
_DEBOUNCE_SECONDS = 0.2  # a network comes with a handful of messages

_log = logging.getLogger("orion.netlink")


class Watch:
    """For the event loop. What is said is only a hint where to look."""

    def __init__(self, addresses: Callable[[], None], links: Callable[[], None], neighbour: Callable[[str], None]) -> None:
        """Called when addresses of this host changed, when links did, and with the MAC address of a neighbour."""
        self._addresses, self._links, self._neighbour = addresses, links, neighbour
        self._due: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._sock: socket.socket | None = None

    def start(self) -> None:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        sock.bind((0, _LINK | _NEIGH | _IPV4 | _IPV6))
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def stop(self) -> None:
        for handle in self._due.values():
            handle.cancel()
        self._due.clear()
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            data = self._sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:  # messages were lost: anything may have changed
            self._soon(self._addresses)
            return
        for kind, body in messages(data):
            if kind in (_NEWADDR, _DELADDR) and len(body) > _IFADDRMSG_SCOPE and body[_IFADDRMSG_SCOPE] == _GLOBAL:
                self._soon(self._addresses)
            elif kind in (_NEWLINK, _DELLINK):
                self._soon(self._links)
            elif kind == _NEWNEIGH and (mac := neighbour_mac(body)):
                self._neighbour(mac)

    def _soon(self, what: Callable[[], None]) -> None:
        if what not in self._due:
            self._due[what] = asyncio.get_running_loop().call_later(_DEBOUNCE_SECONDS, self._now, what)

    def _now(self, what: Callable[[], None]) -> None:
        del self._due[what]
        what()


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each message in a datagram."""
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size:length]
        data = data[(length + 3) & ~3:]


def neighbour_mac(body: bytes) -> str:
    """The link-layer address of an RTM_NEWNEIGH message, empty where it has none yet."""
    rest = body[_NDMSG_BYTES:]
    while len(rest) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(rest)
        if length < _ATTRIBUTE.size:
            return ""
        if kind == _LLADDR and length == _ATTRIBUTE.size + 6:
            return rest[_ATTRIBUTE.size:length].hex(":")
        rest = rest[(length + 3) & ~3:]
    return ""
