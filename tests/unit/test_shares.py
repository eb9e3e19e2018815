# SPDX-License-Identifier: Apache-2.0
"""Who may open what, who books it, and that no descriptor stays open."""

from __future__ import annotations

import os

import pytest

from orion_virt.errors import NotFound, ProtocolError, QuotaExceeded
from orion_virt.server import shares
from orion_virt.server.shares import ALLOCATION, Shares

MEMORY = 1


class Channel:
    def __init__(self, number: int, domain: str = "d") -> None:
        self.id, self.proven_domain = number, domain
        self.owns: list[bytes] = []

    def own(self, token: bytes) -> None:
        self.owns.append(token)


def test_opened_by_the_domain_only() -> None:
    table, maker = Shares(), Channel(1)
    token = table.add(maker, MEMORY, b"h" * 64, -1, 100)
    assert len(token) == 64
    share = table.open(Channel(2), MEMORY, token)
    assert (share.handle, share.n_bytes, share.fd) == (b"h" * 64, 100, -1)
    for stranger, kind, wanted in (
        (Channel(3, "e"), MEMORY, token),
        (Channel(3, ""), MEMORY, token),
        (Channel(3), ALLOCATION, token),
        (Channel(3), MEMORY, bytes(64)),
    ):
        with pytest.raises(NotFound):
            table.open(stranger, kind, wanted)
    assert len(table) == 1


def test_who_is_left_pays() -> None:
    table, maker, second, third = Shares(), Channel(1), Channel(2), Channel(3)
    token = table.add(maker, MEMORY, b"", -1, 100)
    for channel in (second, third, second):
        table.open(channel, MEMORY, token)
    table.leave(maker, token)
    assert (second.owns, third.owns) == ([token], [])
    table.gone(third)
    assert second.owns == [token]
    table.open(third, MEMORY, token)
    table.gone(second)
    assert third.owns == [token]
    table.leave(third, token)
    assert len(table) == 0
    with pytest.raises(NotFound):
        table.open(maker, MEMORY, token)


def test_descriptors_are_closed() -> None:
    table, maker, user = Shares(), Channel(1), Channel(2)
    read, write = os.pipe()
    token = table.add(maker, ALLOCATION, b"", write, 1)
    table.open(user, ALLOCATION, token)
    table.gone(maker)
    os.fstat(write)
    table.gone(user)
    with pytest.raises(OSError):
        os.fstat(write)
    os.close(read)


@pytest.mark.parametrize(("kind", "with_fd", "domain"), [(0, False, "d"), (6, False, "d"), (MEMORY, True, "d"), (ALLOCATION, False, "d"), (MEMORY, False, "")])
def test_what_no_worker_says(kind: int, with_fd: bool, domain: str) -> None:
    fd = os.dup(1) if with_fd else -1
    with pytest.raises(ProtocolError):
        Shares().add(Channel(1, domain), kind, b"", fd, 0)
    if with_fd:
        with pytest.raises(OSError):
            os.fstat(fd)


def test_letting_go_of_nothing() -> None:
    table = Shares()
    token = table.add(Channel(1), MEMORY, b"", -1, 0)
    for wrong in (token, bytes(64)):
        with pytest.raises(ProtocolError):
            table.leave(Channel(2), wrong)


def test_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MAX_TOKENS", 2)
    table, maker = Shares(), Channel(1)
    tokens = [table.add(maker, MEMORY, b"", -1, 0) for _ in range(2)]
    with pytest.raises(QuotaExceeded):
        table.add(maker, MEMORY, b"", -1, 0)
    table.leave(maker, tokens[0])
    table.add(maker, MEMORY, b"", -1, 0)
    table.add(Channel(2), MEMORY, b"", -1, 0)


def test_no_more_descriptors_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "MAX_DESCRIPTORS_IN_ALL", 1)
    table, maker = Shares(), Channel(1)
    table.add(maker, ALLOCATION, b"", os.dup(1), 0)
    with pytest.raises(QuotaExceeded):
        table.add(Channel(2), ALLOCATION, b"", os.dup(1), 0)
    table.gone(maker)
    table.add(Channel(2), ALLOCATION, b"", os.dup(1), 0)
    table.gone(Channel(2))
