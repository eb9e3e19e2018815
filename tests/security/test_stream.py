# SPDX-License-Identifier: Apache-2.0
"""Commands, wake-ups and shared words that are lies: the channel ends with a reason, and nothing else does."""

from __future__ import annotations

import random
import struct
import threading
import time

import pytest
import wire
from guest import REPLY, Guest
from host import Host, wait_for

from orion_virt import layout

NOT_SUPPORTED = 801


def ends(guest: Guest, reason: str, seconds: float = 5) -> None:
    """The channel is over, for this one reason, in one line of its log and in the daemon's."""
    assert wait_for(guest.is_over, seconds), guest.log()
    assert wait_for(lambda: "channel ends:" in guest.log(), seconds), guest.log()
    lines = [line for line in guest.log().splitlines() if "channel ends:" in line]
    assert len(lines) == 1 and reason in lines[0], guest.log()
    said = f"channel {guest.channel}: ended, "
    assert wait_for(lambda: any(said in line and reason in line for line in guest.host.output().splitlines()), seconds)


@pytest.mark.parametrize(
    ("lies", "reason"),
    [
        ({"lines": 0}, "malformed command"),
        ({"lines": 1025}, "malformed command"),
        ({"lines": 4097}, "malformed command"),
        ({"lines": 2}, "malformed command"),
        ({"bytes": 0xFFFFFFFF}, "malformed command"),
        ({"bytes": 41}, "malformed command"),
        ({"thread": 512}, "malformed command"),
        ({"thread": 0xFFFFFFFF}, "malformed command"),
        ({"op": 0}, "malformed command"),
        ({"payload": b"1234"}, "orion_ping of guest thread 0"),
    ],
)
def test_a_lying_header_ends_the_channel(victim: Host, lies: dict[str, int], reason: str) -> None:
    with Guest(victim) as guest:
        assert guest.call("orion_ping", value=1) == 0
        command = {"op": wire.op_of("orion_ping"), "payload": bytes(8), "flags": REPLY} | lies
        guest.post(**command)  # type: ignore[arg-type]
        ends(guest, reason)


def test_a_wrong_sequence_is_not_there_yet(victim: Host) -> None:
    with Guest(victim) as guest:
        for seq in (0, 2, 1 << 63, 0xFFFFFFFFFFFFFFFF):
            guest.post(wire.op_of("orion_ping"), bytes(8), 0, REPLY, seq=seq)
            guest.tail = 0
            time.sleep(0.05)
            assert guest.head() == 0 and not guest.is_over()
        assert guest.call("orion_ping", value=1) == 0


def test_unknown_operations_are_refused_and_cost_little(victim: Host) -> None:
    with Guest(victim) as guest:
        for op in (6, 2047, 0xFFFF):
            answer = guest.answer(guest.post(op, bytes(8), 0, REPLY))
            assert answer is not None and answer[0] == NOT_SUPPORTED
        for _ in range(30000):
            guest.post(2047)
        assert guest.call("orion_ping", value=1) == 0
        assert len(guest.log()) < 200_000
        guest.post(wire.op_of("orion_ping"), b"")
        ends(guest, "orion_ping")  # is told after all those lines too


def test_errors_of_one_way_calls_do_not_fill_the_log(victim: Host) -> None:
    with Guest(victim) as guest:
        guest.start_context()
        for _ in range(20000):
            guest.send("cuEventRecord", hEvent=wire.handle("EVENT", 9), hStream=0)
        assert guest.call("cuStreamSynchronize", hStream=0) == 400
        assert guest.call("cuStreamSynchronize", hStream=0) == 0
        assert len(guest.log()) < 200_000


@pytest.mark.parametrize("junk", [b"\0", b"\2", b"\1\1\1\xff", b"ORION/1 HELLO\n\n"])
def test_bytes_that_are_no_wake_ups(victim: Host, junk: bytes) -> None:
    with Guest(victim) as guest:
        assert guest.call("orion_ping", value=1) == 0
        guest.conn.sendall(junk)
        ends(guest, "a byte that is no wake-up")


def test_a_flood_of_wake_ups(victim: Host) -> None:
    with Guest(victim) as guest:
        guest.conn.sendall(b"\1" * (4 << 20))
        assert guest.call("orion_ping", value=1) == 0


def test_words_of_the_host_are_not_believed(victim: Host) -> None:
    """Head, parked words, errors, slots, first line: all writable by the guest, none of them read back."""
    with Guest(victim) as guest:
        guest.start_context()
        pick = random.Random(5)
        for at in (0, 64, 128, 192, 320, 328, 332, 384, layout.SLOTS_OFF, layout.CALLBACKS_OFF):
            guest.memory[guest.block + at : guest.block + at + 32] = pick.randbytes(32)
            sequence = guest.post(wire.op_of("orion_ping"), bytes(8), 1, REPLY)
            guest.wake()
            assert guest.answer(sequence, 1) is not None, guest.log()


def test_bytes_that_change_after_the_check(victim: Host) -> None:
    """A thread flips sizes and addresses of a copy while it is executed: what was checked is what is used."""
    with Guest(victim) as guest:
        guest.start_context()
        device, stop = guest.alloc(4096), threading.Event()
        good = wire.pack("orion_copy", dst=device, src=guest.block + layout.STAGING_OFF, bytes=64, src_side=1)
        bad = wire.pack("orion_copy", dst=device ^ 1 << 40, src=1 << 62, bytes=1 << 40, src_side=1)

        def flip() -> None:
            while not stop.is_set():
                at = guest._line(guest.tail - 1) + 24  # noqa: SLF001
                for payload in (bad, good):
                    guest.memory[at : at + 40] = payload[:40]

        thread = threading.Thread(target=flip)
        thread.start()
        try:
            for _ in range(1500):
                answer = guest.answer(guest.post(wire.op_of("orion_copy"), good, 0, REPLY))
                assert answer is not None and answer[0] in (0, 1, 400), (answer, guest.log())
        finally:
            stop.set()
            thread.join()


def test_forged_acknowledgements_of_host_functions(victim: Host) -> None:
    with Guest(victim) as guest:
        guest.start_context()
        for entry in range(layout.NR_CALLBACKS):
            at = guest.block + layout.CALLBACKS_OFF + entry * layout.CALLBACK_BYTES
            guest.memory[at : at + 64] = b"\xff" * 64
        for _ in range(200):
            assert guest.call("orion_host_func", stream=0, fn=0xDEAD, data=1, kind=0) == 0
        assert guest.call("cuStreamSynchronize", hStream=0) == 0


def test_host_functions_that_nobody_runs_hold_nobody_up(victim: Host) -> None:
    guest = Guest(victim)
    with guest:
        guest.start_context()
        for kind in (0, 1, 7):
            guest.call("orion_host_func", stream=0, fn=1, data=1, kind=kind)
        guest.post(wire.op_of("cuStreamSynchronize"), wire.pack("cuStreamSynchronize", hStream=0), 0, REPLY)
        assert guest.call("orion_ping", 1, value=1) == 0
    start = time.monotonic()
    assert wait_for(lambda: all(c["channel"] != guest.channel for c in victim.status()["channels"]))
    assert time.monotonic() - start < 3


def test_every_slot_has_a_thread_and_no_more(victim: Host) -> None:
    with Guest(victim) as guest:
        for thread in range(layout.NR_SLOTS):
            assert guest.call("orion_ping", thread, value=1) == 0
        guest.post(wire.op_of("orion_ping"), struct.pack("<Q", 1), layout.NR_SLOTS, REPLY)
        ends(guest, "malformed command")


def test_noise_in_the_ring(victim: Host) -> None:
    """Random lines with a right sequence: the first that is no command ends the channel."""
    pick = random.Random(11)
    for _ in range(5):
        with Guest(victim) as guest:
            guest.memory[guest._line(0) + 8 : guest._line(64)] = pick.randbytes(64 * 64 - 8)  # noqa: SLF001
            guest.memory[guest._line(0) : guest._line(0) + 8] = struct.pack("<Q", 1)  # noqa: SLF001
            guest.wake()
            ends(guest, "")
