# SPDX-License-Identifier: Apache-2.0
"""Extents of a region in one hand: a channel's, or those of a piece that several channels share."""

from __future__ import annotations

import asyncio
import logging
import os

from orion_virt import layout
from orion_virt.errors import ProtocolError, QuotaExceeded
from orion_virt.region import file
from orion_virt.region.regions import Region
from orion_virt.units import MIB

_log = logging.getLogger("orion.channel")


class Memory:
    """Holds a descriptor of its own, so that it outlives the region's removal."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.fd = os.dup(region.fd)
        self._owned: set[int] = set()
        self.block = -1

    async def take_block(self, channel_id: int) -> int:
        """Grants, reserves and prepares the channel block; returns its offset."""
        off, n_bytes = await self.grant(layout.CHANNEL_BYTES if self.region.extents.nr > 1 else 1)
        self.block = off
        file.wipe(self.fd, off, layout.STAGING_OFF)
        os.pwrite(self.fd, layout.channel_head(channel_id, n_bytes), off)
        return off

    async def grant(self, n_bytes: int) -> tuple[int, int]:
        """Adjacent extents with real memory behind them. Raises QuotaExceeded or Unavailable."""
        extents = self.region.extents
        run = extents.take(n_bytes)
        if run is None:
            raise QuotaExceeded(
                f"domain {self.region.uuid}: no {n_bytes // MIB or 1} MiB in one piece left in its region "
                f"({extents.nr_used} of {extents.nr} extents are used)",
                hint="Raise [server-shm] shm_buffer_size or the domain's `region` setting, and power-cycle the domain",
            )
        try:
            await asyncio.to_thread(file.reserve, self.fd, *run)
            if extents.trust(*run):
                await asyncio.to_thread(file.wipe, self.fd, *run)
        except BaseException:
            extents.give_back(*run)
            raise
        self._owned.update(self._starts(*run))
        return run

    def claim(self, off: int, n_bytes: int) -> None:
        """Extents that were granted by an earlier daemon. Raises ProtocolError where they are somebody else's, or none."""
        if not self.region.extents.claim(off, n_bytes):
            raise ProtocolError(f"it claims 0x{off:x}+0x{n_bytes:x} of its region, which is not its own")
        self.region.extents.trust(off, n_bytes)
        self._owned.update(self._starts(off, n_bytes))

    def owns(self, off: int) -> bool:
        return off in self._owned

    def let_go(self) -> None:
        """All stays granted: another daemon takes it up."""
        self._owned.clear()
        os.close(self.fd)

    async def release(self, off: int, n_bytes: int) -> None:
        """Wipes and frees what was granted before. Raises ProtocolError for anything else."""
        starts = self._starts(off, n_bytes)
        if not self.region.extents.is_used(off, n_bytes) or not starts <= self._owned or self.block in starts:
            raise ProtocolError(f"release of 0x{off:x}+0x{n_bytes:x}, which is not granted")
        self._owned -= starts
        await self._free(off, n_bytes)

    async def _free(self, off: int, n_bytes: int) -> None:
        try:
            await asyncio.to_thread(file.wipe, self.fd, off, n_bytes)
        except OSError as error:
            _log.warning("domain %s: extents cannot be wiped: %s", self.region.uuid, error)
        self.region.extents.give_back(off, n_bytes)

    async def close(self) -> None:
        """Gives everything back."""
        unit = self.region.extents.unit
        while self._owned:
            await self._free(self._owned.pop(), unit)
        os.close(self.fd)

    def _starts(self, off: int, n_bytes: int) -> set[int]:
        return set(range(off, off + n_bytes, self.region.extents.unit))
