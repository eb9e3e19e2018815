# SPDX-License-Identifier: Apache-2.0
"""What servers say of their load, in memory alone: the newest of each, and of their cards some minutes back."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orion_virt.controller.store import SILENCE_SECONDS
from orion_virt.errors import ProtocolError

HISTORY_SAMPLES = 180  # of each card: 15 minutes, as a server reports every 5 s
_MAX_CARDS, _MAX_PROCESSES, _MAX_NAMES, _LONGEST = 64, 8192, 4096, 128


@dataclass(frozen=True)
class CardLoad:
    """What of a card is in use, ``busy_percent`` of its time by processes of guests. None: the card does not tell."""

    busy_percent: int
    used_bytes: int
    temperature_celsius: int | None = None
    power_watts: float | None = None


@dataclass(frozen=True)
class ProcessLoad:
    """What a guest process does."""

    pid: int
    process: str
    transport: str
    used_bytes: int
    busy_percent: int
    calls_per_second: int
    bytes_per_second: int


@dataclass(frozen=True)
class Report:
    """``processes``: by the id of their allocation, several of a group."""

    cards: Mapping[int, CardLoad]
    processes: Mapping[str, tuple[ProcessLoad, ...]]
    names: Mapping[str, str] = field(default_factory=dict)  # of domains, by UUID


def parse(data: dict[str, Any]) -> Report:
    """Raises ProtocolError."""
    try:
        cards = {_whole(item["index"]): _card(item) for item in data["gpus"][:_MAX_CARDS]}
        processes: dict[str, tuple[ProcessLoad, ...]] = {}
        for item in data["processes"][:_MAX_PROCESSES]:
            uuid = str(item["allocation"])[:_LONGEST]
            processes[uuid] = (*processes.get(uuid, ()), _process(item))
        names = {str(uuid)[:_LONGEST]: str(name)[:_LONGEST] for uuid, name in list(data["names"].items())[:_MAX_NAMES]}
        return Report(cards, processes, names)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ProtocolError(f"the report is not understood: {error!r}") from error


def _process(item: dict[str, Any]) -> ProcessLoad:
    return ProcessLoad(_whole(item["pid"]), str(item["comm"])[:_LONGEST], str(item.get("transport", ""))[:_LONGEST],
                       *(_whole(item[key]) for key in ("used_bytes", "busy_percent", "calls_per_second", "bytes_per_second")))


def _card(item: dict[str, Any]) -> CardLoad:
    temperature, power = item.get("temperature_celsius"), item.get("power_watts")
    if power is not None and not (math.isfinite(power) and power >= 0):
        raise ValueError(f"power_watts is {power!r}")
    return CardLoad(min(100, _whole(item["busy_percent"])), _whole(item["used_bytes"]), None if temperature is None else _whole(temperature),
                    power)


def _whole(value: Any) -> int:
    if int(value) < 0:
        raise ValueError(f"{value!r} is negative")
    return int(value)


@dataclass
class Reports:
    """For the event loop."""

    clock: Callable[[], float] = time.monotonic
    _newest: dict[str, tuple[float, Report]] = field(default_factory=dict)
    _history: dict[tuple[str, int], deque[tuple[float, int, int]]] = field(default_factory=dict)

    def add(self, server: str, report: Report) -> None:
        """From a registered server."""
        now = self.clock()
        self._newest[server] = now, report
        for index, card in report.cards.items():
            kept = self._history.setdefault((server, index), deque(maxlen=HISTORY_SAMPLES))
            kept.append((now, card.busy_percent, card.used_bytes))

    def keep(self, servers: Mapping[str, object]) -> None:
        """Forgets servers that are not among these."""
        self._newest = {name: found for name, found in self._newest.items() if name in servers}
        self._history = {key: found for key, found in self._history.items() if key[0] in servers}

    def of(self, server: str) -> Report | None:
        """None where it has said nothing lately, or to another controller of the pool."""
        at, report = self._newest.get(server, (0.0, None))
        return report if report is not None and self.clock() - at <= SILENCE_SECONDS else None

    def history(self, server: str, card: int) -> dict[str, list[float]]:
        """Samples of a card: how many seconds ago, percent of its time, bytes."""
        now, kept = self.clock(), self._history.get((server, card), ())
        return {"seconds_ago": [round(now - at, 1) for at, _, _ in kept], "busy_percent": [busy for _, busy, _ in kept],
                "used_bytes": [used for _, _, used in kept]}
