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
    which the device was plugged in, or unplugged, already."""

    path: Path
    detached: set[str] = field(default_factory=set)
    equipped: set[str] = field(default_factory=set)
    returned: dict[str, int] = field(default_factory=dict)
    lives: dict[str, list[int]] = field(default_factory=dict)
    tried: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Remembered:
        """From the file; one that is missing or broken means nothing is remembered, and the latter is said."""
        try:
            raw = json.loads(path.read_text())
            return cls(path, set(raw["detached"]), set(raw["equipped"]), dict(raw["returned"]), dict(raw["lives"]),
                       dict(raw["tried"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s is not readable (%s): domains detached for good must be detached again", path, error)
        return cls(path)

    def save(self) -> None:
        raw = {"detached": sorted(self.detached), "equipped": sorted(self.equipped),
               "returned": self.returned, "lives": self.lives, "tried": self.tried}
        fresh = self.path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(raw, indent=1))
            fresh.replace(self.path)
        except OSError as error:
            _log.error("%s cannot be written: %s", self.path, error.strerror)

    def forget(self, uuid: str) -> None:
        """A domain that libvirt does not know any more; `detached` stays, it may be defined again."""
        self.equipped.discard(uuid)
        self.returned.pop(uuid, None)
        self.tried.pop(uuid, None)
