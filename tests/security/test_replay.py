# SPDX-License-Identifier: Apache-2.0
"""What was executed is executed once; what a guest exhausts is its own, and comes back."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import time

import pytest
import wire
from guest import REPLY, Guest, allocate, shake_hands
from host import Host, wait_for

from orion_virt import layout

INVALID_VALUE = 1
PATTERN = struct.pack("<Q", 0x5EED1E575EED1E57)


def line_of(guest: Guest, index: int) -> slice:
    at = guest._line(index)  # noqa: SLF001
    return slice(at, at + layout.LINE)


def test_commands_that_come_again_are_not_executed_again(victim: Host) -> None:
    """Every line of a lap is kept and written back, in the same lap and in the next: memory is allocated as often as it was asked for."""
    with Guest(victim) as guest:
        guest.start_context()
        booked = guest.alloc(1 << 20)
        first = guest.tail
        guest.alloc(1 << 20)
        kept = {i: bytes(guest.memory[line_of(guest, i)]) for i in range(first, guest.tail)}
        for _ in range(3):
            for index, line in kept.items():
                guest.memory[line_of(guest, index)] = line
                guest.wake()
            assert guest.call("orion_ping", value=1) == 0
        total = guest.ask("cuMemGetInfo_v2")
        assert total["total"] - total["free"] == 2 << 20, (booked, total)


def test_a_sequence_of_another_lap_is_not_there(victim: Host) -> None:
    with Guest(victim) as guest:
        assert guest.call("orion_ping", value=1) == 0
        for seq in (guest.tail + 1 + layout.RING_LINES, guest.tail + 1 - layout.RING_LINES & 0xFFFFFFFFFFFFFFFF, 1):
            before = guest.tail
            guest.post(wire.op_of("orion_ping"), bytes(8), 0, REPLY, seq=seq)
            guest.tail = before
            guest.wake()
            time.sleep(0.1)
            assert guest.head() == before
        assert guest.call("orion_ping", value=1) == 0


def test_another_channels_block_is_not_ones_own(victim: Host) -> None:
    """Of one guest: its processes can write each other's blocks, but not have the worker do it."""
    with Guest(victim) as one, Guest(victim) as two:
        one.start_context()
        device = one.alloc(4096)
        staging = two.block + layout.STAGING_OFF
        assert one.call("orion_copy", dst=device, src=staging, bytes=64, src_side=1) == INVALID_VALUE
        assert one.call("orion_copy", dst=staging, src=device, bytes=64, dst_side=1) == INVALID_VALUE
        assert one.call("orion_release", off=two.block, bytes=layout.CHANNEL_BYTES) == INVALID_VALUE
        assert one.call("orion_alias", addr=0x7F1234400000, off=two.block, bytes=4096) == INVALID_VALUE
        assert two.call("orion_ping", value=1) == 0


def test_a_block_that_says_it_is_anothers(victim: Host) -> None:
    """Number and layout in a block's first line are the guest's to overwrite; the host goes by its own."""
    with Guest(victim) as guest:
        head = guest.memory[guest.block : guest.block + 64]
        guest.memory[guest.block : guest.block + 64] = layout.channel_head(guest.channel + 1, layout.CHANNEL_BYTES)
        assert guest.call("orion_ping", value=1) == 0
        guest.memory[guest.block : guest.block + 64] = head
        assert guest.worker()


def test_all_channels_taken_are_all_given_back(victim: Host) -> None:
    """Until the host refuses, with a reason; whoever comes after they went is served."""
    refused = ""
    with contextlib.ExitStack() as stack:
        while not refused and len(victim.status()["channels"]) < 64:
            try:
                conn, _, said = shake_hands(victim, allocation=allocate(victim))
            except AssertionError as error:  # the controller has no vGPU left
                refused = str(error)
                continue
            stack.enter_context(conn)
            refused = said.get("reason", "")
    assert refused
    assert wait_for(lambda: len(victim.status()["channels"]) == 2)
    with Guest(victim) as guest:
        guest.start_context()
        assert guest.alloc(4096)


def test_allocations_that_nobody_shows_hurt_no_channel(make_oriond) -> None:
    """They keep their slots for half a minute, and nothing else."""
    with make_oriond(region_mib=32) as host, Guest(host) as guest:
        with pytest.raises(AssertionError):
            for _ in range(200):
                allocate(host, 1)
        guest.start_context()
        assert guest.alloc(4096) and guest.call("cuCtxSynchronize") == 0


@pytest.mark.parametrize("killed", [False, True])
def test_what_is_granted_holds_nothing_of_before(victim: Host, killed: bool) -> None:
    """Region memory of a process that ended, or whose worker was killed, is empty for the next."""
    with Guest(victim) as first:
        grants = [first.ask("orion_grant", bytes=4 << 20) for _ in range(4)]
        for grant in grants:
            first.memory[grant["off"] : grant["off"] + grant["got"]] = PATTERN * (grant["got"] // 8)
        staging = slice(first.block + layout.STAGING_OFF, first.block + layout.CHANNEL_BYTES)
        first.memory[staging] = PATTERN * ((layout.CHANNEL_BYTES - layout.STAGING_OFF) // 8)
        if killed:
            os.kill(first.worker(), signal.SIGKILL)
            assert wait_for(first.is_over)
    assert wait_for(lambda: all(c["channel"] != first.channel for c in victim.status()["channels"]))
    with Guest(victim) as second:
        for _ in range(4):
            grant = second.ask("orion_grant", bytes=4 << 20)
            assert not any(second.memory[grant["off"] : grant["off"] + grant["got"]])
        control = second.memory[second.block + layout.RING_OFF : second.block + layout.STAGING_OFF]
        assert PATTERN not in control
