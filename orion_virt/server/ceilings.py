# SPDX-License-Identifier: Apache-2.0
"""The ceilings of running domains, and which domain a client belongs to: enforced here, since no guest is trusted."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from orion_virt.model.ceiling import Ceiling
from orion_virt.server.hello import Hello

_log = logging.getLogger("orion.ceilings")
NEIGHBOUR_SECONDS = 5


@dataclass(frozen=True)
class _Entry:
    ceiling: Ceiling
    macs: tuple[str, ...]


class Ceilings:
    """For the event loop. Kept in a file: after a restart guests may connect before libvirt answers."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, _Entry] = {}
        self._load()

    def put(self, uuid: str, ceiling: Ceiling, macs: Sequence[str]) -> None:
        """A running domain's ceilings from now on, and its NICs, by which it is known over TCP."""
        entry = _Entry(ceiling, tuple(mac.lower() for mac in macs))
        if self._entries.get(uuid) == entry:
            return
        for other, old in list(
            self._entries.items()
        ):  # a NIC is whose it was last; a domain may have gone without our seeing it
            if other != uuid and set(old.macs) & set(entry.macs):
                self._entries[other] = _Entry(old.ceiling, tuple(set(old.macs) - set(entry.macs)))
        self._entries[uuid] = entry
        self._save()

    def drop(self, uuid: str) -> None:
        """The domain runs no more."""
        if self._entries.pop(uuid, None) is not None:
            self._save()

    def of(self, uuid: str) -> Ceiling:
        entry = self._entries.get(uuid)
        return Ceiling() if entry is None else entry.ceiling

    async def owner(self, hello: Hello, peer: str) -> str:
        """The domain that a client belongs to: proven by its region, over TCP by its NIC; "" where nothing tells."""
        if hello.shared:
            return hello.domain
        if not self._entries:
            return ""
        mac = await asyncio.to_thread(neighbour, peer)
        return next((uuid for uuid, entry in self._entries.items() if mac and mac in entry.macs), "")

    def _load(self) -> None:
        try:
            raw = json.loads(self._path.read_text())
            self._entries = {uuid: _Entry(Ceiling(*numbers), tuple(macs)) for uuid, (numbers, macs) in raw.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _log.warning("%s is not readable (%s): ceilings hold again when libvirt answers", self._path, error)

    def _save(self) -> None:
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps({uuid: [astuple(e.ceiling), e.macs] for uuid, e in self._entries.items()}))
            fresh.replace(self._path)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._path, error.strerror)


def neighbour(ip: str) -> str:
    """The link-layer address behind an IP address of this host's networks; "" where it is not known. Blocks."""
    try:
        done = subprocess.run(
            ["ip", "-j", "neigh", "show", "to", ip], capture_output=True, timeout=NEIGHBOUR_SECONDS, check=False
        )
        found = json.loads(done.stdout or b"[]")
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return ""
    return next((str(entry["lladdr"]).lower() for entry in found if entry.get("lladdr")), "")
