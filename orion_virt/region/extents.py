# SPDX-License-Identifier: Apache-2.0
"""Which extents of one region are granted: first fit, adjacent extents, state held by the host alone."""

from __future__ import annotations

from orion_virt import layout


class Extents:
    """Allocator over a region of `region_bytes`; offsets and sizes are bytes."""

    def __init__(self, region_bytes: int) -> None:
        # A region of a single extent has its first "extent" behind the header.
        if region_bytes <= layout.EXTENT_BYTES:
            self.first, self.unit, self.nr = layout.HEADER_BYTES, region_bytes - layout.HEADER_BYTES, 1
        else:
            self.first, self.unit = layout.EXTENT_BYTES, layout.EXTENT_BYTES
            self.nr = region_bytes // self.unit - 1
        self._used = bytearray(self.nr)
        self._unknown = bytearray(self.nr)  # may hold what a process left there

    @property
    def nr_used(self) -> int:
        return sum(self._used)

    def take(self, n_bytes: int) -> tuple[int, int] | None:
        """The first free run of `n_bytes` rounded up, as (offset, bytes); None when there is none."""
        nr = -(-n_bytes // self.unit)
        if n_bytes <= 0 or nr > self.nr:
            return None
        at = self._used.find(bytes(nr))
        if at < 0:
            return None
        self._used[at : at + nr] = b"\x01" * nr
        return self.first + at * self.unit, nr * self.unit

    def give_back(self, off: int, n_bytes: int) -> None:
        """Frees a run that `take` returned (or a whole-extent part of one)."""
        at, nr = (off - self.first) // self.unit, n_bytes // self.unit
        if not self.is_used(off, n_bytes):
            raise ValueError(f"extents {at}+{nr} are not granted")
        self._used[at : at + nr] = bytes(nr)

    def doubt(self) -> None:
        """Whatever is free may hold what somebody wrote under an earlier daemon."""
        self._unknown = bytearray(b"\x01" * self.nr)

    def trust(self, off: int, n_bytes: int) -> bool:
        """They are wiped, or about to be; false when they were known to be clean."""
        at, nr = (off - self.first) // self.unit, n_bytes // self.unit
        doubtful = any(self._unknown[at : at + nr])
        self._unknown[at : at + nr] = bytes(nr)
        return doubtful

    def claim(self, off: int, n_bytes: int) -> bool:
        """Takes these very extents; false where they are not whole, or not free."""
        at, rest = divmod(off - self.first, self.unit)
        nr, part = divmod(n_bytes, self.unit)
        if rest or part or at < 0 or nr <= 0 or at + nr > self.nr or any(self._used[at : at + nr]):
            return False
        self._used[at : at + nr] = b"\x01" * nr
        return True

    def is_used(self, off: int, n_bytes: int) -> bool:
        """True when [off, off+n_bytes) is whole granted extents."""
        at, rest = divmod(off - self.first, self.unit)
        nr, part = divmod(n_bytes, self.unit)
        if rest or part or at < 0 or nr <= 0 or at + nr > self.nr:
            return False
        return all(self._used[at : at + nr])
