# SPDX-License-Identifier: Apache-2.0
"""What the daemon must know of domains over its own restart: one small JSON file."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger("orion.domains")


@dataclass
class Remembered:
    """``detached``: for good, by command. ``equipped``: have our device in their definition. ``returned``: how often
    the device was given back after somebody else had removed it. ``lives``: of each running domain with a region,
    what tells this run from the next (libvirt's id and the region file's inode). ``tried``: libvirt's id of the run in
    which the device was plugged in, or unplugged, already. ``room``: libvirt's id of a run that began with the device,
    and how many bytes: the firmware made room for so many. ``added``: of each domain the PCI controllers (model and
    index) that libvirt added to its definition for our device. ``prepared``: domains whose region waits for a start.
    ``needs``: why this run of a domain has no device."""

    path: Path
    detached: set[str] = field(default_factory=set)
    equipped: set[str] = field(default_factory=set)
    returned: dict[str, int] = field(default_factory=dict)
    lives: dict[str, list[int]] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)
    room: dict[str, list[int]] = field(default_factory=dict)
    added: dict[str, list[list[str | int]]] = field(default_factory=dict)
    prepared: set[str] = field(default_factory=set)
    needs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Remembered:
        """From the file; one that is missing or broken means nothing is remembered, and the latter is said."""
        try:
            raw = json.loads(path.read_text())
            return cls(path, set(raw["detached"]), set(raw["equipped"]), dict(raw["returned"]), dict(raw["lives"]),
                       dict(raw["tried"]), dict(raw.get("room", {})), dict(raw.get("added", {})),
                       set(raw.get("prepared", [])), dict(raw.get("needs", {})))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s is not readable (%s): domains detached for good must be detached again", path, error)
        return cls(path)

    def save(self) -> None:
        raw = {"detached": sorted(self.detached), "equipped": sorted(self.equipped),
               "returned": self.returned, "lives": self.lives, "tried": self.tried,
               "room": self.room, "added": self.added, "prepared": sorted(self.prepared), "needs": self.needs}
        fresh = self.path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(raw, indent=1))
            fresh.replace(self.path)
        except OSError as error:
            _log.error("%s cannot be written: %s", self.path, error.strerror)

    def forget(self, uuid: str) -> None:
        """A domain that libvirt does not know any more; `detached` stays, it may be defined again."""
        self.forget_definition(uuid)
        self.end_run(uuid)

    def forget_definition(self, uuid: str) -> None:
        """Our device is in it no more, by our own doing."""
        self.equipped.discard(uuid)
        self.returned.pop(uuid, None)
        self.added.pop(uuid, None)

    def end_run(self, uuid: str) -> None:
        """What was true of one run only: libvirt gives its id to another one after a restart of its own."""
        for known in (self.tried, self.room, self.needs):
            known.pop(uuid, None)
