# SPDX-License-Identifier: Apache-2.0
"""What a store of the controller's state must do: small entries, changed all or none, and only by who saw the newest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orion_virt.model.allocation import CONFIRM_SECONDS

SILENCE_SECONDS = 16  # a server, or a controller with clients in its queue, that is silent so long is taken out

SECONDS = {"server": SILENCE_SECONDS, "grant": CONFIRM_SECONDS, "controller": SILENCE_SECONDS}
"""How long a life lasts that nobody renews, by the first word of its name."""


@dataclass(frozen=True)
class Entry:
    """``life`` ("server/NAME", "grant/UUID", "controller/ID"): the entry goes when that is not renewed; "": it stays."""

    value: Any  # for JSON
    life: str = ""


Changes = Mapping[str, Entry | None]
"""By key; None deletes."""


@dataclass(frozen=True)
class Seen:
    """Everything, at one moment. ``version`` and ``hidden`` are the store's own."""

    version: int
    entries: Mapping[str, Entry]
    hidden: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """For one event loop. Every method raises Unavailable when the store cannot be used now."""

    is_shared: bool
    """Whether other controllers may use it."""

    async def read(self) -> Seen: ...

    async def write(self, seen: Seen, changes: Changes, label: str) -> bool:
        """All changes, or none and False where somebody else was quicker. A new life begins with its first entry.

        What it has answered True for survives the end of this process. ``label`` names the crash point.
        """
        ...

    async def renew(self, life: str) -> bool:
        """False when it has ended already."""
        ...

    async def changed(self, seen: Seen, seconds: float) -> None:
        """Returns when something is different from what was seen, or time is up."""
        ...

    async def close(self) -> None: ...
