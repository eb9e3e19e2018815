# SPDX-License-Identifier: Apache-2.0
"""Processes that share one allocation (ORION_GROUP): who belongs to one, and the page in which they count their memory."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass, field
from typing import Any

from orion_virt import layout
from orion_virt.errors import Forbidden, ProtocolError, QuotaExceeded
from orion_virt.server.hello import Hello

ROWS = 64  # OH_GROUP_ROWS of executor.h
_ROW = struct.Struct(f"<{layout.MAX_DEVICES}Q")


@dataclass
class Seat:
    """One process's place in its group."""

    group: Group
    row: int

    @property
    def fd(self) -> int:
        return self.group.fd

    def leave(self) -> bool:
        """What the process had booked is free again, however it ended. True for the last one."""
        self.group.clear(self.row)
        return not self.group.taken


@dataclass
class Group:
    """All processes of one allocation. ``whose``: what each must have in common with the first."""

    whose: tuple[str, ...]
    fd: int
    taken: set[int] = field(default_factory=set)

    def clear(self, row: int) -> None:
        self.taken.discard(row)
        os.pwrite(self.fd, bytes(_ROW.size), row * _ROW.size)
        if not self.taken:
            os.close(self.fd)


class Groups:
    """For the event loop."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}

    def enter(self, allocation: dict[str, Any], hello: Hello, peer: str) -> Seat | None:
        """A place in the allocation's group; None where it has none. Raises Forbidden, QuotaExceeded."""
        if not allocation.get("group"):
            return None
        whose = (hello.domain,) if hello.shared else (peer, hello.machine)
        group = self._groups.get(allocation["uuid"])
        if group is None or not group.taken:
            fd = os.memfd_create("orion-group", os.MFD_CLOEXEC)
            os.ftruncate(fd, ROWS * _ROW.size)
            group = self._groups[allocation["uuid"]] = Group(whose, fd)
        if group.whose != whose:
            raise Forbidden(f"group {allocation['group']} is of other processes than this", hint="Name another ORION_GROUP")
        row = next((row for row in range(ROWS) if row not in group.taken), None)
        if row is None:
            raise QuotaExceeded(f"group {allocation['group']} has {ROWS} processes already", hint="Name another ORION_GROUP")
        self._book_context(group, row, allocation["vgpus"])
        group.taken.add(row)
        return Seat(group, row)

    def resume(self, allocation: dict[str, Any], hello: Hello, peer: str, row: int, fd: int) -> Seat:
        """The seat that an earlier daemon gave; takes the page over. Raises ProtocolError."""
        info = os.fstat(fd) if fd >= 0 else None
        group = self._groups.get(allocation["uuid"])
        if info is None or not stat.S_ISREG(info.st_mode) or info.st_size != ROWS * _ROW.size:
            raise ProtocolError("it has no page of its group")
        if not 0 <= row < ROWS or group is not None and row in group.taken:
            raise ProtocolError("its row in its group is another's")
        if group is None:
            whose = (hello.domain,) if hello.shared else (peer, hello.machine)
            group = self._groups[allocation["uuid"]] = Group(whose, os.dup(fd))
        group.taken.add(row)
        return Seat(group, row)

    def settle(self) -> None:
        """All seats are resumed: rows of those who ended meanwhile are free."""
        for group in self._groups.values():
            for row in set(range(ROWS)) - group.taken:
                os.pwrite(group.fd, bytes(_ROW.size), row * _ROW.size)

    def let_go(self) -> None:
        """Members keep their page; another daemon hears of it."""
        for group in self._groups.values():
            if group.taken:
                os.close(group.fd)
        self._groups.clear()

    def _book_context(self, group: Group, row: int, vgpus: list[dict[str, Any]]) -> None:
        """The first process's contexts were booked on top of the allocation; those of others come out of its memory."""
        costs = [v["booked_bytes"] - v["memory_bytes"] if group.taken else 0 for v in vgpus]
        os.pwrite(group.fd, _ROW.pack(*costs, *([0] * (layout.MAX_DEVICES - len(costs)))), row * _ROW.size)

    def left(self, uuid: str) -> None:
        """The allocation's last process is gone."""
        self._groups.pop(uuid, None)
