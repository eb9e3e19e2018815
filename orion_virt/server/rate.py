# SPDX-License-Identifier: Apache-2.0
"""Throughput of a channel from what its worker counts, for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

STALE_SECONDS = 2.5  # a worker tells once a second what has changed: after this, nothing has


class Rate:
    """Two counters that only grow, and their growth a second between the last two times they were told."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock()
        self._counts = (0, 0)
        self._rates = (0.0, 0.0)

    def resume(self) -> None:
        """The next word is of all that was counted before, in no known time."""
        self._at = float("-inf")

    def note(self, commands: int, n_bytes: int) -> None:
        now = self._clock()
        if self._at == float("-inf"):
            self._at, self._counts = now, (commands, n_bytes)
            return
        seconds = min(max(now - self._at, 1e-3), STALE_SECONDS)  # what went before a pause is not spread over it
        before, self._counts, self._at = self._counts, (commands, n_bytes), now
        self._rates = (max(0, commands - before[0]) / seconds, max(0, n_bytes - before[1]) / seconds)

    @property
    def counts(self) -> tuple[int, int]:
        """Calls that reached the host, bytes that copies carried, in all."""
        return self._counts

    def describe(self) -> dict[str, Any]:
        """Calls that reached the host, bytes that copies carried; both in all and a second."""
        rates = self._rates if self._clock() - self._at <= STALE_SECONDS else (0.0, 0.0)
        return {
            "calls": self._counts[0],
            "copied_bytes": self._counts[1],
            "calls_per_second": round(rates[0]),
            "bytes_per_second": round(rates[1]),
        }
