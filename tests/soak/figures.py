# SPDX-License-Identifier: Apache-2.0
"""What the soak measures: seconds until something was as before, and a neighbour's throughput read from its file."""

from __future__ import annotations

import mmap
import statistics
import struct
from pathlib import Path

BIN_SECONDS, NR_BINS, _HEAD = 0.02, 400000, 24
_SMOOTH = 10       # bins over which throughput is looked at: 0.2 s
_BEFORE = 100      # bins whose median is what it was: 2 s
_AS_BEFORE = 0.7   # of that


class Figures:
    """Seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def lines(self) -> list[str]:
        return [f"{name}: {len(found)} times, median {statistics.median(found):.3f} s, "
                f"99 % {sorted(found)[int(0.99 * (len(found) - 1) + 0.5)]:.3f} s, longest {max(found):.3f} s"
                for name, found in sorted(self.seconds.items())]


class Progress:
    """The file that a neighbour writes (client.c, struct progress)."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

    @property
    def rounds(self) -> int:
        return int(struct.unpack_from("Q", self._map, 0)[0])

    @property
    def wrong(self) -> int:
        return int(struct.unpack_from("Q", self._map, 8)[0])

    def _bin(self, monotonic: float) -> int:
        start_ns = struct.unpack_from("Q", self._map, 16)[0]
        return int((monotonic - start_ns / 1e9) / BIN_SECONDS)

    def _bins(self, first: int, end: int) -> list[int]:
        first, end = max(first, 0), min(end, NR_BINS)
        return list(struct.unpack_from(f"{max(end - first, 0)}I", self._map, _HEAD + 4 * first))

    def recovery(self, begun: float, over: float, until: float) -> float | None:
        """Seconds from `over` to the first 0.2 s with 0.7 of the median throughput of the 2 s before `begun`.

        All on the monotonic clock, of what had been told until `until`; None: not until then, or nothing to compare with.
        """
        first = self._bin(begun)
        before = self._bins(first - _BEFORE, first)
        pieces = [sum(before[i : i + _SMOOTH]) for i in range(0, len(before) - _SMOOTH + 1, _SMOOTH)]
        usual = statistics.median(pieces) if len(pieces) > 3 else 0
        if not usual:
            return None
        start = self._bin(over)
        after = self._bins(start, self._bin(until))
        for i in range(len(after) - _SMOOTH + 1):
            if sum(after[i : i + _SMOOTH]) >= _AS_BEFORE * usual:
                return i * BIN_SECONDS
        return None
