# SPDX-License-Identifier: Apache-2.0
"""A guest names the address at which the worker maps region memory a second time: only a free one, and only its own memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from guest import Guest
from host import Host
from test_addresses import foreign_extent, libc_of

from orion_virt import layout

EXTENT = layout.EXTENT_BYTES
INVALID_VALUE, NOT_SUPPORTED, NOT_REGISTERED = 1, 801, 713
FREE = 0x7E1234560000
MAX = 0xFFFFFFFFFFFFFFFF


@pytest.fixture
def own(victim: Host):
    """A guest with a context and one extent."""
    with Guest(victim) as guest:
        guest.start_context()
        yield guest, guest.ask("orion_grant", bytes=EXTENT)["off"]


def mapped(guest: Guest, address: int) -> bool:
    return any(line.startswith(f"{address:x}-") for line in Path(f"/proc/{guest.worker()}/maps").read_text().splitlines())


def test_region_memory_is_seen_at_the_address(own) -> None:
    guest, off = own
    assert guest.call("orion_alias", addr=FREE, off=off + 8192, bytes=16384) == 0
    assert guest.call("cuMemsetD8_v2", dstDevice=FREE + 5, uc=0x5A, N=100) == 0
    assert guest.memory[off + 8192 + 4 : off + 8192 + 106] == b"\0" + b"\x5a" * 100 + b"\0"
    assert guest.call("cuMemsetD8_v2", dstDevice=FREE + 16380, uc=1, N=5) == INVALID_VALUE
    assert guest.call("cuMemsetD8_v2", dstDevice=FREE - 1, uc=1, N=2) == INVALID_VALUE
    assert guest.call("orion_unalias", addr=FREE + 4096) == NOT_REGISTERED
    assert guest.call("orion_unalias", addr=FREE) == 0
    assert guest.call("orion_unalias", addr=FREE) == NOT_REGISTERED
    assert guest.call("cuMemsetD8_v2", dstDevice=FREE, uc=1, N=1) == INVALID_VALUE
    assert not mapped(guest, FREE)


def test_what_is_not_the_clients_is_refused(own) -> None:
    guest, off = own
    base = layout.BASES[0]
    for address, at, n_bytes in [
        (FREE, foreign_extent(guest), 4096), (FREE, 0, 4096), (FREE, off, EXTENT + 4096), (FREE, off + EXTENT, 4096),
        (FREE, off, 0), (FREE, off, 100), (FREE, off + 1, 4096), (FREE + 1, off, 4096), (FREE, MAX - 4095, 4096),
        (FREE, off, MAX - 4095), (MAX - 4095, off, 4096), (1 << 47, off, 4096), ((1 << 47) - 4096, off, 8192),
        (0, off, 4096), (4096, off, 4096), (base + off, off, 4096), (base - 4096, off, 8192),
        (0x2AB800000000, off, 4096), (0x300000000000 - 4096, off, 8192),
    ]:  # fmt: skip
        assert guest.call("orion_alias", addr=address, off=at, bytes=n_bytes) == INVALID_VALUE, (hex(address), at, n_bytes)


def test_the_workers_own_memory_stays(own) -> None:
    guest, off = own
    before = Path(f"/proc/{guest.worker()}/maps").read_text()
    for address in (libc_of(guest.worker()), layout.BASES[1], layout.BASES[2] + (1 << 30)):
        assert guest.call("orion_alias", addr=address, off=off, bytes=4096) in (INVALID_VALUE, NOT_SUPPORTED), hex(address)
    assert guest.call("orion_alias", addr=FREE, off=off, bytes=8192) == 0
    assert guest.call("orion_alias", addr=FREE, off=off + 8192, bytes=4096) == NOT_SUPPORTED
    assert guest.call("orion_alias", addr=FREE + 4096, off=off, bytes=4096) == NOT_SUPPORTED
    assert guest.call("orion_unalias", addr=FREE) == 0
    assert {line.split()[0] for line in before.splitlines() if "libc" in line} <= {
        line.split()[0] for line in Path(f"/proc/{guest.worker()}/maps").read_text().splitlines()
    }


def test_no_alias_outlives_the_grant(own) -> None:
    guest, off = own
    other = guest.ask("orion_grant", bytes=EXTENT)["off"]
    assert guest.call("orion_alias", addr=FREE, off=off, bytes=4096) == 0
    assert guest.call("orion_alias", addr=FREE + EXTENT, off=off + EXTENT - 4096, bytes=4096) == 0
    assert guest.call("orion_alias", addr=FREE + 2 * EXTENT, off=other, bytes=4096) == 0
    assert guest.call("orion_release", off=off, bytes=EXTENT) == 0
    assert [mapped(guest, FREE + i * EXTENT) for i in range(3)] == [False, False, True]
    assert guest.call("orion_alias", addr=FREE, off=off, bytes=4096) == INVALID_VALUE


def test_all_aliases_together_are_no_larger_than_the_region(own) -> None:
    guest, off = own
    region = guest.host.region.stat().st_size
    results = [guest.call("orion_alias", addr=FREE + i * EXTENT, off=off, bytes=EXTENT) for i in range(region // EXTENT + 2)]
    assert results.count(0) == region // EXTENT and results[-1] == INVALID_VALUE
