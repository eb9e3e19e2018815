# SPDX-License-Identifier: Apache-2.0
"""Which channel of a domain has which vector of its doorbell."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

from orion_virt.region import doorbell
from orion_virt.region.regions import Region


@dataclass(frozen=True)
class Bell:
    """The guest stores `value` into its doorbell register, which makes `fd`, an eventfd, readable."""

    value: int
    fd: int
    give_back: Callable[[], None]

    def close(self) -> None:
        """Once; the worker has a descriptor of its own."""
        if self.fd >= 0:
            os.close(self.fd)
        self.give_back()


class Doorbells:
    """For the event loop."""

    def __init__(self) -> None:
        self._busy: set[tuple[str, int]] = set()

    async def take(self, region: Region) -> Bell | None:
        """A vector that no other channel of the domain has; None where the guest is to send bytes."""
        if not region.doorbell:
            return None
        vector = next(n for n in itertools.count() if (region.uuid, n) not in self._busy)
        key = region.uuid, vector
        self._busy.add(key)
        asking = asyncio.ensure_future(asyncio.to_thread(doorbell.take, region.doorbell, vector))
        try:
            fd = await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(lambda done: self._forget(key, done.result()))
            raise
        if fd is None:
            self._forget(key, None)
            return None
        return Bell(doorbell.HOST << 16 | vector, fd, lambda: self._busy.discard(key))

    def resume(self, region: Region, value: int) -> Bell:
        """One that an earlier daemon gave: the worker has its descriptor."""
        key = region.uuid, value & 0xFFFF
        self._busy.add(key)
        return Bell(value, -1, lambda: self._busy.discard(key))

    def _forget(self, key: tuple[str, int], fd: int | None) -> None:
        self._busy.discard(key)
        if fd is not None:
            os.close(fd)
