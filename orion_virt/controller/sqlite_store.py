# SPDX-License-Identifier: Apache-2.0
"""The state of one controller in an SQLite file that it alone has open.

Lives are counted in this process's own monotonic time: after a restart everybody has his whole time again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from orion_virt.controller import crash
from orion_virt.controller.store import SECONDS, Changes, Entry, Seen
from orion_virt.errors import Conflict, OrionError, Unavailable

_FORMAT = 1
_TABLE = "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, life TEXT NOT NULL) WITHOUT ROWID"


class SqliteStore:
    """See store.Store. A commit waits for the disk (milliseconds) in the event loop: it is what makes it one step."""

    is_shared = False

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises Conflict when another controller has it, Unavailable when it cannot be used."""
        self._path = path
        self._clock = clock
        self._version = 0
        self._news = asyncio.Event()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
        except (OSError, sqlite3.Error) as error:
            raise self._cannot(error) from error
        try:
            self._entries = self._open()
        except sqlite3.Error as error:
            self._db.close()
            raise self._cannot(error) from error
        now = clock()
        self._ends = {entry.life: now + _seconds(entry.life) for entry in self._entries.values() if entry.life}

    def _open(self) -> dict[str, Entry]:
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"it is of format {found}, this version knows {_FORMAT}")
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(f"PRAGMA user_version = {_FORMAT}")
        self._db.execute(_TABLE)
        self._db.execute("DELETE FROM entries WHERE life LIKE 'controller/%'")  # their connections are gone
        self._db.execute("COMMIT")
        rows = self._db.execute("SELECT key, value, life FROM entries ORDER BY key").fetchall()
        self._path.chmod(0o600)
        return {key: Entry(json.loads(value), life) for key, value, life in rows}

    def _cannot(self, error: Exception) -> OrionError:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return Conflict(f"another orion-controller uses {self._path}",
                            hint="Stop it, or set ORION_STATE to another directory; several controllers share an etcd")
        return Unavailable(f"{self._path} cannot be used: {error}",
                           hint="See that its disk has room. A broken file can be moved away: servers bring back what they serve")

    # ---- store.Store ----

    async def read(self) -> Seen:
        self._expire()
        return Seen(self._version, dict(self._entries))

    async def write(self, seen: Seen, changes: Changes, label: str) -> bool:
        self._expire()
        if seen.version != self._version:
            return False
        self._commit(changes, label)
        now = self._clock()
        for entry in changes.values():
            if entry is not None and entry.life:
                self._ends.setdefault(entry.life, now + _seconds(entry.life))
        return True

    async def renew(self, life: str) -> bool:
        self._expire()
        if life not in self._ends:
            return False
        self._ends[life] = self._clock() + _seconds(life)
        return True

    async def changed(self, seen: Seen, seconds: float) -> None:
        if seen.version != self._version:
            return
        until_end = min(self._ends.values(), default=self._clock() + seconds) - self._clock()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news.wait(), max(0.001, min(seconds, until_end + 0.01)))

    async def close(self) -> None:
        self._db.close()

    # ---- doing it ----

    def _expire(self) -> None:
        now = self._clock()
        ended = {life for life, end in self._ends.items() if now > end}
        if ended:
            self._commit({key: None for key, entry in self._entries.items() if entry.life in ended}, "expire")

    def _commit(self, changes: Changes, label: str) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for key, entry in changes.items():
                if entry is None:
                    self._db.execute("DELETE FROM entries WHERE key = ?", (key,))
                else:
                    self._db.execute("REPLACE INTO entries VALUES (?, ?, ?)", (key, json.dumps(entry.value), entry.life))
            crash.point(label, "begun")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise self._cannot(error) from error
        self._take_over(changes)

    def _take_over(self, changes: Changes) -> None:
        for key, entry in changes.items():
            if entry is None:
                self._entries.pop(key, None)
            else:
                self._entries[key] = entry
        lives = {entry.life for entry in self._entries.values()}
        self._ends = {life: end for life, end in self._ends.items() if life in lives}
        self._version += 1
        self._news.set()
        self._news = asyncio.Event()


def _seconds(life: str) -> int:
    return SECONDS[life.split("/", 1)[0]]
