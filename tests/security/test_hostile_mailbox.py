# SPDX-License-Identifier: Apache-2.0
"""A hostile guest writes its region's mailbox: it ends its own connections, and costs the host little."""

from __future__ import annotations

import mmap
import os
import random
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from guest import Ring, shake_hands
from host import Host, wait_for
from mail import Hand, Line

from orion_virt import layout

SECONDS = 3.0


@contextmanager
def region(host: Host) -> Iterator[int]:
    fd = os.open(host.region, os.O_RDWR)
    try:
        yield fd
    finally:
        for slot in range(layout.MAIL_SLOTS):  # as if all its processes were gone
            Hand(fd, slot).put("owner", layout.OWNER_DIED)
        Hand(fd).ring()
        wait_for(lambda: not any(Hand(fd, slot).get("owner") for slot in range(layout.MAIL_SLOTS)))
        os.close(fd)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def computes(host: Host, fd: int, slot: int) -> None:
    """An honest process of the same guest is served through the mailbox."""
    line = Line(fd, slot)
    _, verb, fields = shake_hands(host, conn=line)
    assert verb == "WELCOME", fields
    with mmap.mmap(fd, os.fstat(fd).st_size) as memory:
        ring = Ring(memory, int(fields["block"]), line)
        ring.wake = lambda: None  # type: ignore[method-assign]
        ring.is_over = lambda: line.hand.is_over  # type: ignore[method-assign]
        ring.start_context()
        assert ring.alloc() > 0
    line.close()


def test_garbage_everywhere(victim: Host) -> None:
    """Epoch, bell, owners, numbers, lengths: anything, for seconds."""
    with region(victim) as fd:
        draw, end, before = random.Random(5), time.monotonic() + SECONDS, cpu_seconds(victim.process.pid)
        n_bytes = layout.ctypes.sizeof(layout.Mailbox)
        while time.monotonic() < end:
            os.pwrite(fd, draw.randbytes(n_bytes), layout.MAILBOX_OFF)
            time.sleep(0.001)
        assert cpu_seconds(victim.process.pid) - before < 0.5 * SECONDS
        os.pwrite(fd, bytes(n_bytes), layout.MAILBOX_OFF)
        assert wait_for(lambda: struct.unpack("<Q", os.pread(fd, 8, layout.MAILBOX_OFF))[0])
        computes(victim, fd, 7)


def test_a_flood_of_openings(victim: Host) -> None:
    with region(victim) as fd:
        hands = [Hand(fd, slot) for slot in range(layout.MAIL_SLOTS - 1)]
        end, before = time.monotonic() + SECONDS, cpu_seconds(victim.process.pid)
        while time.monotonic() < end:
            for hand in hands:
                hand.open(service=random.choice((layout.MAIL_SERVER, layout.MAIL_CONTROLLER)))
                hand.write(b"ORION/1 INFO\n\n")
            time.sleep(0.001)
        assert cpu_seconds(victim.process.pid) - before < 0.5 * SECONDS
        computes(victim, fd, layout.MAIL_SLOTS - 1)


def test_half_a_handshake_in_every_slot(victim: Host) -> None:
    """They are cut off like slow ones over TCP, and hold no descriptor afterwards."""
    with region(victim) as fd:
        hands = [Hand(fd, slot) for slot in range(layout.MAIL_SLOTS)]
        for hand in hands:
            hand.open()
        assert wait_for(lambda: all(hand.is_open for hand in hands))
        for hand in hands:
            hand.write(b"ORION/1 HELLO\n")
        assert wait_for(lambda: all(hand.is_over for hand in hands))


@pytest.mark.parametrize("lies", [{"domain": str(uuid.uuid4())}, {"transport": "tcp", "domain": "-"}], ids=["domain", "tcp"])
def test_a_mailbox_is_its_own_domain_s(victim: Host, lies: dict[str, object]) -> None:
    with region(victim) as fd:
        line = Line(fd, 0)
        _, verb, fields = shake_hands(victim, conn=line, **lies)
        assert (verb, fields["reason"]) == ("REFUSED", "this is the mailbox of another domain")
        line.close()


def test_without_the_token(victim: Host) -> None:
    with region(victim) as fd:
        line = Line(fd, 0)
        line.sendall(b"ORION/1 USAGE\ntransport: shm\ndomain: %s\ngeneration: %d\nwant: all\n\n" % (
            victim.uuid.encode(), layout.Header.from_buffer_copy(os.pread(fd, 4096, 0)).generation))  # fmt: skip
        assert line.recv(999).startswith(b"ORION/1 CHALLENGE")
        line.sendall(b"ORION/1 AUTH\nhmac: %s\n\n" % (b"0" * 64))
        said = b""
        while piece := line.recv(999):
            said += piece
        assert said.startswith(b"ORION/1 REFUSED") and b"does not match" in said
        line.close()


@pytest.mark.parametrize("question", [
    b"GET /v1/devices HTTP/1.0\r\n\r\n", b"POST /v1/service/release/x HTTP/1.0\r\nOrion-Credential: x\r\n\r\n",
    b"GET /service?a=b HTTP/1.0 \r\n\r\n", b"GET http://other/service?a=b HTTP/1.0\r\n\r\n", b"x" * 2000,
], ids=["path", "post", "space", "proxy", "long"])  # fmt: skip
def test_only_allocations_are_asked_for(victim: Host, question: bytes) -> None:
    with region(victim) as fd:
        line = Line(fd, 0, layout.MAIL_CONTROLLER)
        with suppress(AssertionError):  # the connection may end before all of it was taken
            line.sendall(question)
        assert line.recv(999).startswith(b"HTTP/1.0 403 ")
        line.close()


def test_garbage_after_the_handshake(victim: Host) -> None:
    with region(victim) as fd:
        line = Line(fd, 0)
        _, verb, _ = shake_hands(victim, conn=line)
        assert verb == "WELCOME"
        line.sendall(b"\x02")
        assert wait_for(lambda: line.hand.is_over)
        line.close()


def test_a_truncated_region(victim: Host) -> None:
    """Nothing of it is mapped by oriond; the neighbours' mailboxes are served on."""
    other = str(uuid.uuid4())
    assert victim.command("region-create", uuid=other, size_mib=2)["ok"]
    path = Path(f"/dev/shm/orion-{other}")
    fd = os.open(path, os.O_RDWR)
    try:
        line = Line(fd, 0)
        os.ftruncate(fd, 0)
        with region(victim) as mine:
            computes(victim, mine, 3)
        line.close()
        assert line.hand.number and "its mailbox cannot be served any more" in victim.output()
    finally:
        os.close(fd)
        victim.command("region-remove", uuid=other)
