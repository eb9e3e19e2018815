# SPDX-License-Identifier: Apache-2.0
"""The seeded sequence: which faults together, at which moments, and how the host is set up for them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cases import KINDS, Case
from world import Options

# What happens to the host's side. Beside each of them two clients go wrong.
PLUGS = ("oriond killed", "controller killed", "domain ended", "domain ended with its guest", "crowd", "rude connections", "oriond stopped for a while")


@dataclass
class Event:
    cases: list[Case]
    plug: str
    moment: float  # of the plug, seconds from the event's begin
    number: int    # of clients or connections where the plug is a number of them

    def __str__(self) -> str:
        plug = f"; {self.plug} at {self.moment:.2f}" if self.plug else ""
        return ", ".join(map(str, self.cases)) + plug


class _Deck:
    """Everything once in random order, then again: no kind is left out of a minute by chance."""

    def __init__(self, rng: random.Random, cards: Sequence[str]) -> None:
        self._rng, self._cards, self._left = rng, cards, list[str]()

    def draw(self) -> str:
        if not self._left:
            self._left = self._rng.sample(self._cards, len(self._cards))
        return self._left.pop()


def options(seed: int, driver: str) -> Options:
    """Seeds 1 to 3 have every value between them."""
    return Options(
        own_controller=seed % 2 == 1,
        compute_limits=("off", "on", "strict")[seed % 3],
        worker_user=("", "nobody")[seed // 2 % 2] if driver == "simulated" else "",
        confine=seed % 4 == 2 and driver == "simulated",
        kernel_seconds=5,  # below it a busy machine starves a short kernel of the simulated card
        third=("tcp", "mailbox")[(seed + 1) // 2 % 2],
        driver=driver,
    )


def kinds_for(chosen: Options) -> list[str]:
    """Confined workers of the simulated card cannot reach each other's memory: it is behind a socket."""
    apart = chosen.confine and chosen.driver == "simulated"
    return [name for name, kind in KINDS.items() if not (apart and kind.mode == "widow")]


def events(seed: int, chosen: Options) -> Iterator[Event]:
    """Endless."""
    rng = random.Random(seed)
    kinds = _Deck(rng, kinds_for(chosen))
    plugs = _Deck(rng, PLUGS)
    for at in range(1 << 62):
        plug = plugs.draw() if at % 2 else ""
        cases = [Case(kind := kinds.draw(), rng.choice(KINDS[kind].ways), rng.uniform(0, 0.3), rng.uniform(0, 0.3),
                      rng.uniform(0, 0.4), beside=plug) for _ in range(rng.choice((1, 2, 3)) if not plug else 2)]
        yield Event(cases, plug, rng.uniform(0, 0.9), rng.randrange(16, 24))
