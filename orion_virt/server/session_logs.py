# SPDX-License-Identifier: Apache-2.0
"""One log for each channel: made here, since its worker cannot, and kept in a number that no guest can make grow."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections import deque
from pathlib import Path
from typing import IO

KEPT_OF_ONE, KEPT = 1000, 10000  # of ended channels: of one domain or address, and of all
_log = logging.getLogger("orion.channels")


class SessionLogs:
    """For the event loop. Logs of running channels stay, however many come after them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[int, tuple[Path, str]] = {}
        self._of: dict[str, deque[Path]] = {}
        self._all: deque[tuple[Path, str]] = deque()

    def start(self) -> None:
        """Takes up what earlier daemons left; whose it was is not looked up."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._directory.glob("*.log")):  # their names begin with the time
            self._keep(path, "")

    def make(self, channel: int, who: str, words: str) -> IO[bytes] | None:
        """Open for appending, `words` in its first line; None where it cannot be made: no reason to refuse a client."""
        path = self._directory / f"{time.strftime('%Y%m%d-%H%M%S')}-{channel}-{uuid.uuid4().hex[:8]}.log"
        try:
            log = open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_APPEND, 0o600))
            log.write(f"{words}\n".encode())
        except OSError as error:
            _log.warning("channel %d: no log at %s: %s", channel, path, error.strerror)
            return None
        self._open[channel] = path, who
        return log

    def resume(self, channel: int, path: Path, who: str) -> None:
        """One that an earlier daemon made, of a channel that goes on."""
        with contextlib.suppress(ValueError, KeyError):
            self._all.remove((path, ""))
            self._of[""].remove(path)
        self._open[channel] = path, who

    def ended(self, channel: int) -> None:
        """Its log is one of those of which the oldest go."""
        if (found := self._open.pop(channel, None)) is not None:
            self._keep(*found)

    def _keep(self, path: Path, who: str) -> None:
        mine = self._of.setdefault(who, deque())
        mine.append(path)
        self._all.append((path, who))
        if who and len(mine) > KEPT_OF_ONE:
            self._drop(mine[0], who)
        if len(self._all) > KEPT:
            self._drop(*self._all[0])

    def _drop(self, path: Path, who: str) -> None:
        """The oldest of its owner's."""
        self._all.remove((path, who))
        self._of[who].popleft()
        if not self._of[who]:
            del self._of[who]
        with contextlib.suppress(OSError):
            path.unlink()
