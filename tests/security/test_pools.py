# SPDX-License-Identifier: Apache-2.0
"""Pools that keep what they freed: no way round the limit."""

from __future__ import annotations

import struct

import wire
from guest import DEVICE_BYTES, Guest
from host import Host

RELEASE_THRESHOLD, RESERVED_NOW = 4, 5


def test_what_pools_keep_stays_below_the_limit(victim: Host) -> None:
    """Fills one pool after the other, frees each into itself, and looks at what they hold together."""
    with Guest(victim) as guest:
        guest.start_context()
        pools = [wire.handle("MEMPOOL", 1 + i) for i in range(4)]
        for pool in pools:
            props = struct.pack("<4i", 1, 0, 1, 0) + bytes(72)
            guest.ask("cuMemPoolCreate", pool=pool, poolProps=props)
            guest.ask("orion_pool_attribute", pool=pool, attribute=RELEASE_THRESHOLD, set=1, value=1 << 62)
        for _ in range(2):
            for pool in pools:
                taken = [guest.ask("cuMemAllocFromPoolAsync", bytesize=DEVICE_BYTES // 4, pool=pool)["dptr"] for _ in range(4)]
                for pointer in taken:
                    assert guest.call("cuMemFreeAsync", dptr=pointer) == 0
                assert guest.call("cuStreamSynchronize", hStream=0) == 0
                held = sum(guest.ask("orion_pool_attribute", pool=p, attribute=RESERVED_NOW)["got"] for p in pools)
                assert held <= DEVICE_BYTES + (64 << 20)
