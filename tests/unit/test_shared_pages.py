# SPDX-License-Identifier: Apache-2.0
"""One piece of region memory for several channels: who fills it, who has it, when it goes back."""

from __future__ import annotations

import asyncio
import struct
from types import SimpleNamespace
from typing import Any

import pytest

from orion_virt.errors import Conflict, ProtocolError, QuotaExceeded, Unavailable
from orion_virt.server import pages
from orion_virt.server.pages import Pages

PAGE = 4096


class Memory:
    """Grants extents from a list of offsets."""

    left: list[int] = []
    closed: list[int] = []

    def __init__(self, region: Any) -> None:
        self.off = -1

    async def grant(self, n_bytes: int) -> tuple[int, int]:
        await asyncio.sleep(0)
        if not self.left:
            raise QuotaExceeded("full")
        self.off = self.left.pop(0)
        return self.off, 2 << 20

    async def close(self) -> None:
        self.closed.append(self.off)


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> type[Memory]:
    monkeypatch.setattr(pages, "Memory", Memory)
    Memory.left, Memory.closed = [10, 20, 30], []
    return Memory


def region(uuid: str = "d") -> Any:
    return SimpleNamespace(uuid=uuid)


def key(inode: int = 7, offset: int = 0) -> bytes:
    return struct.pack("<QQQ", 1, inode, offset)


def take(table: Pages, channel: int, of: bytes = key(), n_bytes: int = PAGE, uuid: str = "d") -> tuple[int, bool]:
    piece, fill = asyncio.run(table.take(region(uuid), channel, of, n_bytes))
    return piece.off, fill


def test_filled_by_the_first_and_had_by_all() -> None:
    table = Pages()
    assert take(table, 1) == (10, True)
    with pytest.raises(Unavailable):
        take(table, 2)
    table.filled(1, 10)
    assert take(table, 2) == (10, False)
    assert take(table, 2) == (10, False)
    asyncio.run(table.leave(1, 10))
    assert Memory.closed == []
    asyncio.run(table.gone(2))
    assert (Memory.closed, len(table)) == ([10], 0)
    assert take(table, 2) == (20, True)


def test_another_file_offset_or_domain_is_another_piece() -> None:
    table = Pages()
    assert take(table, 1) == (10, True)
    assert take(table, 1, key(8)) == (20, True)
    assert take(table, 1, key(), uuid="e") == (30, True)
    with pytest.raises(QuotaExceeded):
        take(table, 1, key(9))
    assert len(table) == 3


@pytest.mark.parametrize(("offset", "n_bytes"), [(0, 2 * PAGE), (PAGE, PAGE), (PAGE, 8 * PAGE)])
def test_pieces_may_not_overlap(offset: int, n_bytes: int) -> None:
    table = Pages()
    take(table, 1, n_bytes=2 * PAGE + PAGE)
    with pytest.raises(Conflict):
        take(table, 2, key(offset=offset), n_bytes)
    assert take(table, 2, key(offset=3 * PAGE)) == (20, True)


def test_two_at_once() -> None:
    """While the region memory is being granted, the other is told to come again."""

    async def both() -> list[Any]:
        table = Pages()
        return await asyncio.gather(
            table.take(region(), 1, key(), PAGE), table.take(region(), 2, key(), PAGE), return_exceptions=True
        )

    first, second = asyncio.run(both())
    assert first[1] is True and isinstance(second, Unavailable)


def test_whoever_fills_it_dies() -> None:
    table = Pages()
    take(table, 1)
    asyncio.run(table.gone(1))
    assert Memory.closed == [10]
    assert take(table, 2) == (20, True)


def test_what_no_worker_says() -> None:
    table = Pages()
    take(table, 1)
    for channel, off in ((2, 10), (1, 11)):
        with pytest.raises(ProtocolError):
            table.filled(channel, off)
        with pytest.raises(ProtocolError):
            asyncio.run(table.leave(channel, off))
    with pytest.raises(ProtocolError):
        take(table, 1, key(9), 0)
