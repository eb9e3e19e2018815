# SPDX-License-Identifier: Apache-2.0
"""What is heard of a peer that ends without a word, as a machine does that was reset, and of one that is only silent."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import addressof, create_string_buffer

import pytest

from orion_virt.server import hangup

TCP_REPAIR = 19  # a socket that is closed in it says nothing to its peer
SO_ATTACH_FILTER = 26
NOTHING_PASSES = struct.pack("HBBI", 6, 0, 0, 0)  # BPF: return 0


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    with ours, theirs:
        yield ours, theirs


async def is_gone(ours: socket.socket, within: float, guest: bool) -> bool:
    gone = asyncio.Event()
    watch = hangup.HangupWatch()
    watch.start()
    watch.add(ours, gone.set, guest)
    try:
        await asyncio.wait_for(gone.wait(), within)
    except asyncio.TimeoutError:
        return False
    finally:
        watch.remove(ours)
        watch.close()
    return True


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangup, "PROBE_SECONDS", 1)


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed for a socket that ends in silence")
@pytest.mark.parametrize("guest", [True, False])
def test_a_peer_that_forgot_the_connection(guest: bool) -> None:
    with connection() as (ours, theirs):
        theirs.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        theirs.close()
        assert asyncio.run(is_gone(ours, 25, guest))


def silence(theirs: socket.socket) -> None:
    program = create_string_buffer(NOTHING_PASSES, 8)
    theirs.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, addressof(program)))


def test_a_guest_may_be_silent() -> None:
    """Also when as many probes as the kernel bears by itself have no answer."""
    with connection() as (ours, theirs):
        silence(theirs)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 1)
        assert not asyncio.run(is_gone(ours, 4, guest=True))


def test_a_machine_may_not_be_silent_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangup, "MACHINE_AGAIN_SECONDS", 1)
    monkeypatch.setattr(hangup, "MACHINE_PROBES", 2)
    with connection() as (ours, theirs):
        silence(theirs)
        assert asyncio.run(is_gone(ours, 25, guest=False))
