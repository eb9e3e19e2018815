# SPDX-License-Identifier: Apache-2.0
"""oriond's side of a mailbox: openings, packets, ends, and what a guest may make it do."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import mail
import pytest
from mail import Hand

from orion_virt import layout
from orion_virt.config import ServerConfig
from orion_virt.region import mailbox
from orion_virt.region.regions import Region, Regions
from orion_virt.server import mailbox as served
from orion_virt.server.mailbox import Box, Mailboxes

UUID = str(uuid.uuid4())


@pytest.fixture
def regions(tmp_path: Path) -> Iterator[Regions]:
    made = Regions(ServerConfig(shm_path_base=str(tmp_path), shm_group_name="root"), b"b" * 16, b"")
    made.create(UUID, 2 << 20)
    made.prepare_header(UUID, [], "")
    yield made
    made.close()


class Bench:
    """A box whose time is ours."""

    def __init__(self, region: Region) -> None:
        self.region, self.now, self.taken = region, 100.0, list[socket.socket]()
        self.box = Box(region, {layout.MAIL_SERVER: self._take}, self.now)
        self.look()

    def _take(self, conn: socket.socket, domain: str) -> None:
        assert domain == UUID
        self.taken.append(conn)

    def look(self, seconds: float = 0.1) -> None:
        self.now += seconds
        self.box.look(self.now)

    def hand(self, slot: int = 0) -> Hand:
        return Hand(self.region.fd, slot)

    def opened(self, slot: int = 0, **lies: int) -> tuple[Hand, socket.socket]:
        hand = self.hand(slot)
        hand.open(**lies)
        self.look()
        assert hand.is_open
        return hand, self.taken[-1]

    def close(self) -> None:
        self.box.hang_up()
        for conn in self.taken:
            conn.close()


@pytest.fixture
def bench(regions: Regions) -> Iterator[Bench]:
    made = Bench(regions.get(UUID))
    yield made
    made.close()


def is_closed(conn: socket.socket) -> bool:
    try:
        return conn.recv(1) == b""
    except BlockingIOError:
        return False


def test_the_header_says_that_it_is_served(regions: Regions) -> None:
    raw = os.pread(regions.get(UUID).fd, layout.ctypes.sizeof(layout.Header), 0)
    assert layout.Header.from_buffer_copy(raw).features & layout.FEATURE_MAILBOX


def test_packets_both_ways(bench: Bench) -> None:
    hand, conn = bench.opened()
    sent, got = b"", b""
    for n in range(300):  # numbers wrap
        hand.write(bytes([n % 256]) * (n % layout.MAIL_DATA + 1))
        bench.look()
        assert hand.get("host_ack") == hand.out_seq
        sent += bytes([n % 256]) * (n % layout.MAIL_DATA + 1)
        got += conn.recv(1 << 16)
    assert got == sent
    conn.sendall(sent)
    came = b""
    while len(came) < len(sent):
        bench.look()
        packet = hand.read()
        assert packet and len(packet) <= layout.MAIL_DATA
        came += packet
    assert came == sent


def test_one_packet_at_a_time(bench: Bench) -> None:
    """The host does not overwrite what the guest has not taken."""
    hand, conn = bench.opened()
    conn.sendall(b"a" * layout.MAIL_DATA + b"b")
    for _ in range(3):
        bench.look()
    assert hand.data() == b"a" * layout.MAIL_DATA
    hand.read()
    bench.look()
    assert hand.read() == b"b"


def test_the_guest_says_that_it_has_ended(bench: Bench) -> None:
    hand, conn = bench.opened()
    hand.put("fin", 1)
    bench.look()
    assert is_closed(conn)
    conn.sendall(b"goodbye")
    bench.look()
    assert hand.read() == b"goodbye"
    conn.close()
    bench.look()
    assert hand.is_over


def test_the_host_s_last_words_come_before_its_end(bench: Bench) -> None:
    hand, conn = bench.opened()
    conn.sendall(b"refused")
    conn.close()
    bench.look()
    assert hand.read() == b"refused" and not hand.is_over
    bench.look()
    assert hand.is_over


@pytest.mark.parametrize("word", [0, layout.OWNER_DIED], ids=["released", "died"])
def test_an_owner_goes(bench: Bench, word: int) -> None:
    hand, conn = bench.opened()
    hand.put("owner", word)
    bench.look()
    assert is_closed(conn)
    bench.look()
    assert hand.get("owner") == 0
    bench.opened()


def test_silence_is_no_death(bench: Bench) -> None:
    """A stopped process, a suspended domain: nothing moves for an hour."""
    hand, conn = bench.opened()
    for _ in range(10):
        bench.look(360)
    assert not is_closed(conn) and not hand.is_over


def test_a_dead_owner_that_was_never_served_is_cleared(bench: Bench) -> None:
    hand = bench.hand(5)
    hand.put("owner", layout.OWNER_DIED)
    hand.ring()
    bench.look()
    assert hand.get("owner") == 0 and not bench.taken


def test_a_slot_is_opened_again(bench: Bench) -> None:
    hand, first = bench.opened()
    for _ in range(600):
        before = bench.taken[-1]
        hand.open()
        bench.look()  # the one before ends
        bench.look()
        assert hand.is_open and is_closed(before) and not is_closed(bench.taken[-1])
        for conn in bench.taken[:-1]:
            conn.close()
        del bench.taken[:-1]


def test_a_new_boot_of_the_guest_ends_what_the_one_before_held(bench: Bench) -> None:
    old, conn = bench.opened(0, boot=1)
    same, kept = bench.opened(1, boot=2)
    assert is_closed(conn) and old.get("owner") == 0 and not is_closed(kept)
    bench.opened(2, boot=2)
    bench.opened(3, boot=0)  # one that does not know
    assert not is_closed(kept)


def test_a_new_daemon_makes_connections_void(regions: Regions, bench: Bench) -> None:
    hand, conn = bench.opened()
    epoch = mailbox.head(bench.region.fd)[0]
    other = Bench(bench.region)
    assert mailbox.head(bench.region.fd)[0] not in (0, epoch)
    other.look()
    assert not other.taken, "what was opened in another epoch is not taken up"
    hand.open()
    other.look()
    assert hand.is_open and len(other.taken) == 1
    other.close()


def test_a_header_from_elsewhere(bench: Bench) -> None:
    """A restore writes the file back as it was: the mailbox begins anew."""
    _, conn = bench.opened()
    os.pwrite(bench.region.fd, bytes(8), layout.MAILBOX_OFF)
    bench.look()
    assert is_closed(conn) and mailbox.head(bench.region.fd)[0] != 0
    bench.opened()


def test_the_end_of_service_is_told(bench: Bench) -> None:
    hand, conn = bench.opened()
    conn.sendall(b"bye")
    bench.box.finish()
    assert hand.read() == b"bye" and hand.is_over and mailbox.head(bench.region.fd)[0] == 0


BROKEN = {"a number skipped": {"seq": 2}, "a great number": {"seq": 0xFFFFFFFF}, "too long": {"bytes": 193, "seq": 1},
          "very long": {"bytes": 0xFFFFFFFF, "seq": 1}, "nothing": {"bytes": 0, "seq": 1}}  # fmt: skip


@pytest.mark.parametrize("lies", BROKEN.values(), ids=BROKEN)
def test_a_malformed_packet_ends_its_connection_alone(bench: Bench, lies: dict[str, int]) -> None:
    hand, conn = bench.opened(0)
    other, kept = bench.opened(1)
    for field, value in lies.items():
        hand.put(field, value)
    bench.look()
    assert is_closed(conn) and hand.is_over
    assert not is_closed(kept)
    other.write(b"on")
    bench.look()
    assert kept.recv(9) == b"on"


def test_a_packet_after_the_end(bench: Bench) -> None:
    hand, conn = bench.opened()
    hand.put("fin", 1)
    bench.look()
    hand.write(b"more")
    bench.look()
    assert is_closed(conn) and hand.is_over


def test_an_ack_that_lies_gets_nothing(bench: Bench) -> None:
    hand, conn = bench.opened()
    conn.sendall(b"x" * 1000)
    hand.put("ack", 77)
    for _ in range(5):
        bench.look()
    assert hand.get("host_seq") == 0 and not hand.is_over


@pytest.mark.parametrize("lies", [{"service": 0}, {"service": 99}, {"opening": 0}, {"opening": 256}, {"epoch": 1}], ids=str)
def test_an_opening_that_lies_is_not_taken_up(bench: Bench, lies: dict[str, int]) -> None:
    bench.hand().open(**lies)
    bench.look()
    assert not bench.taken


def test_who_does_not_read_is_waited_for(bench: Bench) -> None:
    """Flow control: not a byte is kept by us."""
    hand, conn = bench.opened()
    for n in range(100000):
        hand.write(b"x" * layout.MAIL_DATA)
        bench.look()
        if hand.get("host_ack") != hand.out_seq:
            break
    else:
        pytest.fail("everything was taken")
    got = len(conn.recv(1 << 20))
    bench.look()
    assert got and hand.get("host_ack") == hand.out_seq and not hand.is_over


def test_looks_are_seldom_where_nothing_moves(bench: Bench) -> None:
    hand, conn = bench.opened()
    assert bench.box.due - bench.now == pytest.approx(served.FASTEST)
    for _ in range(100):
        bench.look(0.05)
    assert bench.box.due - bench.now == pytest.approx(served.SLOWEST_OPEN[0])
    bench.look(3600)
    assert bench.box.due - bench.now == pytest.approx(served.SLOWEST_OPEN[1])
    hand.put("owner", 0)
    for _ in range(100):
        bench.look(0.05)
    assert bench.box.due - bench.now == pytest.approx(served.SLOWEST[0])
    bench.look(3600)
    assert bench.box.due - bench.now == pytest.approx(served.SLOWEST[1])
    bench.region.server_addrs = ("192.0.2.1:9960",)
    bench.look(3600)
    assert bench.box.due - bench.now == pytest.approx(served.SLOWEST_SPARE[1])


def test_a_flood_is_served_at_its_own_pace(bench: Bench) -> None:
    """However much a guest writes, looks and openings of a second are bounded."""
    hand, conn = bench.opened()
    end, looks, openings = bench.now + 60, 0, len(bench.taken)
    while bench.now < end:
        for slot in range(layout.MAIL_SLOTS):
            Hand(bench.region.fd, slot).open()
        bench.look(bench.box.due - bench.now)
        looks += 1
        openings += len(bench.taken)
        for conn in bench.taken:
            conn.close()
        bench.taken.clear()
    budget = served.PURSE + 60 * served.PER_SECOND
    assert looks * served.LOOK + openings * served.OPENING < budget + layout.MAIL_SLOTS * served.OPENING
    assert looks < 60 / served.POOR + served.PURSE


def test_a_truncated_file(bench: Bench) -> None:
    os.ftruncate(bench.region.fd, 4096)
    with pytest.raises(OSError, match="truncated"):
        bench.look()


def test_mailboxes_follow_the_regions(regions: Regions) -> None:
    taken: list[socket.socket] = []

    async def until(what, seconds: float = 5) -> None:  # type: ignore[no-untyped-def]
        for _ in range(int(seconds / 0.01)):
            if what():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not come to pass")

    async def body() -> None:
        region = regions.get(UUID)
        boxes = Mailboxes(regions, {layout.MAIL_SERVER: lambda conn, domain: taken.append(conn)})
        boxes.start()
        hand = Hand(region.fd)
        await until(lambda: mailbox.head(region.fd)[0])
        hand.open()
        await until(lambda: hand.is_open)
        regions.new_generation(UUID)
        await until(lambda: is_closed(taken[0]))
        hand.open()
        await until(lambda: hand.is_open and len(taken) == 2)
        fd = os.dup(region.fd)
        os.ftruncate(fd, 0)  # said once, and the others are served on
        await until(lambda: is_closed(taken[1]))
        other = str(uuid.uuid4())
        regions.create(other, 2 << 20)
        regions.prepare_header(other, [], "")
        last = Hand(regions.get(other).fd)
        await until(lambda: mailbox.head(last.fd)[0])
        last.open()
        await until(lambda: last.is_open)
        boxes.finish(other)
        assert last.is_over
        regions.remove(other)
        await boxes.stop()
        os.close(fd)

    asyncio.run(body())
    for conn in taken:
        conn.close()


def test_the_slots_of_the_helper_are_the_layout_s() -> None:
    assert mail.at(1) - mail.at(0) == 512 == layout.ctypes.sizeof(layout.MailSlot)


def test_another_daemon_takes_up_a_connection(bench: Bench) -> None:
    """Its bytes go on where they were; other connections of before end; a place that is not true is nobody's."""
    hand, conn = bench.opened()
    other, _ = bench.opened(1)
    place = bench.box.place(os.fstat(conn.fileno()).st_ino)
    assert place[0] == 0 and len(place) == 3 and bench.box.place(0) == ()
    bench.box.hang_up()
    after = Box(bench.region, {layout.MAIL_SERVER: bench._take}, bench.now)
    for lie in ((0, place[1] % 255 + 1, place[2]), (0, place[1], place[2] + 1), (2, place[1], place[2])):
        assert after.resume(*lie) is None
    again = after.resume(*place)
    assert again is not None and hand.is_open
    bench.taken.append(again)
    bench.box = after
    bench.look()
    assert other.is_over and not hand.is_over
    hand.write(b"on it goes")
    bench.look()
    assert again.recv(100) == b"on it goes"
    again.send(b"back")
    bench.look()
    assert hand.read() == b"back"
