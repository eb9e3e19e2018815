# SPDX-License-Identifier: Apache-2.0
"""Sums over the life of this oriond, of channels that have ended too. Nothing here grows with the number of clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orion_virt import errors, layout

if TYPE_CHECKING:
    from orion_virt.server.channel import Channel

NOBODY = "none"  # in place of a domain's UUID: clients over TCP of which nothing is known
MAX_DOMAINS = 1024  # beyond that the sums of those that were silent for longest are forgotten: their series end
ENDS = {layout.CLOSED_BY_GUEST: "guest", layout.CLOSED_PROTOCOL: "malformed", layout.CLOSED_WORKER: "worker",
        layout.CLOSED_SERVER: "server", layout.CLOSED_LIMIT: "kernel"}
REFUSALS: dict[type[errors.OrionError], str] = {
    errors.Conflict: "state", errors.QuotaExceeded: "limit", errors.NotFound: "not_found", errors.Forbidden: "forbidden",
    errors.ProtocolError: "malformed", errors.Unavailable: "unavailable", errors.ConfigError: "configuration",
}
WAYS = ("shared memory", "shared memory with a doorbell", "shared memory alone", "TCP")
Place = tuple[int, int]
"""(card, slot) of the first vGPU of an allocation, by which it is told from others."""


@dataclass
class Sums:
    """What processes did."""

    calls: int = 0
    copied_bytes: int = 0
    gpu_seconds: float = 0.0

    def add(self, channel: Channel) -> None:
        calls, copied = channel.rate.counts
        self.calls += calls
        self.copied_bytes += copied
        self.gpu_seconds += sum(channel.gpu_seconds.values())


def domain_of(channel: Channel) -> str:
    """Proven, so that no client makes up labels."""
    return channel.owner or NOBODY


def place_of(channel: Channel) -> Place:
    first = channel.allocation["vgpus"][0]
    return first["card"], first["slot"]


class Tally:
    """For the event loop."""

    def __init__(self) -> None:
        self._domains: dict[str, Sums] = {}  # the one that ended last comes last
        self._places: dict[Place, Sums] = {}
        self._cards: dict[int, float] = {}
        self.ways = Counter(dict.fromkeys(WAYS, 0))
        self.ends = Counter(dict.fromkeys(ENDS.values(), 0))
        self.refusals = Counter(dict.fromkeys([*REFUSALS.values(), "other"], 0))

    def opened(self, way: str) -> None:
        self.ways[way] += 1

    def refused(self, kind: type[errors.OrionError]) -> None:
        """A handshake that led to no channel."""
        self.refusals[next((REFUSALS[base] for base in kind.__mro__ if base in REFUSALS), "other")] += 1

    def ended(self, channel: Channel) -> None:
        self.ends[ENDS.get(channel.closed, "worker")] += 1
        domain = domain_of(channel)
        sums = self._domains.pop(domain, None) or Sums()
        self._domains[domain] = sums
        sums.add(channel)
        self._places.setdefault(place_of(channel), Sums()).add(channel)
        for card, seconds in channel.gpu_seconds.items():
            self._cards[card] = self._cards.get(card, 0.0) + seconds
        if len(self._domains) > MAX_DOMAINS:
            del self._domains[next(iter(self._domains))]

    def domains(self, live: Iterable[Channel]) -> dict[str, Sums]:
        """By UUID, what live channels did so far included."""
        found = {domain: Sums(**vars(sums)) for domain, sums in self._domains.items()}
        for channel in live:
            found.setdefault(domain_of(channel), Sums()).add(channel)
        return found

    def places(self, live: Iterable[Channel]) -> dict[Place, Sums]:
        """By the first vGPU of each allocation."""
        found = {place: Sums(**vars(sums)) for place, sums in self._places.items()}
        for channel in live:
            found.setdefault(place_of(channel), Sums()).add(channel)
        return found

    def gpu_seconds(self, live: Iterable[Channel]) -> dict[int, float]:
        """By card."""
        found = dict(self._cards)
        for channel in live:
            for card, seconds in channel.gpu_seconds.items():
                found[card] = found.get(card, 0.0) + seconds
        return found
