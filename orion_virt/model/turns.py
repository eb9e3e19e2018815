# SPDX-License-Identifier: Apache-2.0
"""Who may have work on a card: turns of processes by the share of its time that each was promised. No I/O, no clock.

A process that is alone on a card keeps its turn and is never asked for it. When others want the card too, the one
whose time so far, divided by its share, is least runs next; nobody's turn begins before the last one's work is done. So
shares hold whatever the kernels are, results are those of an undivided card, and what a neighbour leaves is used. Times
are seconds of any clock that does not go back; shares are fractions of the card.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

TURN_SECONDS = 0.1  # of a share of 1; whoever slept may make good as much, so that it is next
SHORTEST_SECONDS, LONGEST_SECONDS = 0.004, 0.06
DRAIN_SECONDS = 2.0  # work that lasts longer may wait for somebody else's: the next turn begins beside it
RECENT_SECONDS = 2.0  # so long after another's work, work still comes in small portions: the other may be back
SMALLEST_SHARE = 0.01
_SOON_SECONDS = 1e-5  # what is over then is over now: clocks and sums are rounded


@dataclass(frozen=True)
class Order:
    """What a process is told: begin, or end when its work is done; ``shared``: others want the card, or did a moment ago."""

    process: Hashable
    begin: bool
    shared: bool = False


@dataclass
class _Process:
    share: float
    wants: bool = False
    has: bool = False  # its turn, until it said that its work is done


@dataclass
class _Group:
    """Processes that share memory and may wait for each other's kernels: they have their turn together."""

    processes: dict[Hashable, _Process] = field(default_factory=dict)
    used: float = 0.0  # seconds divided by the share
    active_at: float = float("-inf")  # when it last wanted a turn or had one

    @property
    def share(self) -> float:
        return max(SMALLEST_SHARE, sum(p.share for p in self.processes.values()))

    @property
    def wants(self) -> bool:
        return any(p.wants for p in self.processes.values())

    @property
    def has(self) -> bool:
        return any(p.has for p in self.processes.values())


class Turns:
    """One card's. Every method answers the orders to send now; after each, ``deadline`` says when to call ``tick``."""

    def __init__(self, strict: bool = False) -> None:
        """``strict``: time that nobody was promised stays unused."""
        self._strict = strict
        self._groups: list[_Group] = []
        self._rest = _Group()  # stands for the time that nobody was promised
        self._current: _Group | None = None
        self._shared = False
        self._ending_since: float | None = None
        self._charged_at = 0.0
        self._begun_at = 0.0
        self.deadline: float | None = None

    # ---- what happens ----

    def join(self, process: Hashable, share: float) -> None:
        """A process is there; it has no turn yet."""
        self._groups.append(_Group({process: _Process(share)}, self._used_least()))

    def together(self, a: Hashable, b: Hashable) -> None:
        """Two processes share memory from now on."""
        one, other = self._group(a), self._group(b)
        if one is None or other is None or one is other:
            return
        one.processes |= other.processes
        one.used = max(one.used, other.used)
        self._groups.remove(other)
        if self._current is other:
            self._current = one

    def leave(self, process: Hashable, now: float) -> list[Order]:
        """A process is gone, and its work with it."""
        group = self._group(process)
        if group is None:
            return []
        del group.processes[process]
        if not group.processes:
            self._groups.remove(group)
            if self._current is group:
                self._current = None
        return self._go_on(now)

    def want(self, process: Hashable, now: float) -> list[Order]:
        """A process has work and no turn."""
        group = self._group(process)
        if group is None:
            return []
        self._charge(now)
        group.active_at = now
        if not group.wants and group is not self._current:
            group.used = max(group.used, self._used_least() - TURN_SECONDS)
        group.processes[process].wants = True
        return self._go_on(now)

    def done(self, process: Hashable, now: float) -> list[Order]:
        """The work of a process is done, and it begins none before it is told to."""
        group = self._group(process)
        if group is None:
            return []
        group.processes[process].has = False
        group.active_at = now
        return self._go_on(now)

    def tick(self, now: float) -> list[Order]:
        """The deadline has come."""
        return self._go_on(now)

    # ---- decisions ----

    def _group(self, process: Hashable) -> _Group | None:
        return next((g for g in self._groups if process in g.processes), None)

    def _used_least(self) -> float:
        busy = [g.used for g in (*self._groups, self._rest) if g.wants or g is self._current]
        return min(busy, default=max((g.used for g in self._groups), default=0.0))

    def _waiting(self) -> list[_Group]:
        waiting = [g for g in self._groups if g is not self._current and g.wants]
        if self._strict and self._groups and self._current is not self._rest and self._rest_share() > 0:
            waiting.append(self._rest)
        return waiting

    def _rest_share(self) -> float:
        return 1.0 - sum(g.share for g in self._groups)

    def _share(self, group: _Group) -> float:
        return max(SMALLEST_SHARE, self._rest_share()) if group is self._rest else group.share

    def _go_on(self, now: float) -> list[Order]:
        orders: list[Order] = []
        self._charge(now)
        if self._current is not None:
            orders += self._look_at_current(now)
        if self._current is None:
            orders += self._begin_next(now)
        self.deadline = self._next_look(now)
        return orders

    def _charge(self, now: float) -> None:
        if self._current is not None:
            self._current.used += (now - self._charged_at) / self._share(self._current)
        self._charged_at = now

    def _look_at_current(self, now: float) -> list[Order]:
        current = self._current
        assert current is not None
        if current is self._rest:
            if self._left(now) <= _SOON_SECONDS:
                self._current = None
            return []
        if self._ending_since is not None:
            if not current.has or now - self._ending_since >= DRAIN_SECONDS:
                self._current = None
            return []
        if not current.has:  # it had nothing more to do
            self._current = None
            return []
        waiting, shared = self._waiting(), self._is_shared(current, now)
        orders = [] if self._shared == shared else self._begin(current, shared)
        orders += self._join_in(current)
        if waiting and self._left(now) <= _SOON_SECONDS:
            self._ending_since = now
            orders += [Order(name, False) for name, p in current.processes.items() if p.has]
        return orders

    def _join_in(self, group: _Group) -> list[Order]:
        """Processes of a group whose turn it is begin as they come."""
        orders = []
        for name, process in group.processes.items():
            if process.wants:
                process.wants, process.has = False, True
                orders.append(Order(name, True, self._shared))
        return orders

    def _begin(self, group: _Group, shared: bool) -> list[Order]:
        self._shared = shared
        return [Order(name, True, shared) for name, p in group.processes.items() if p.has]

    def _begin_next(self, now: float) -> list[Order]:
        waiting = self._waiting()
        if not any(g is not self._rest for g in waiting):
            return []
        chosen = min(waiting, key=lambda g: g.used)
        if chosen is self._rest:
            self._rest.used = max(self._rest.used, self._used_least() - TURN_SECONDS)
        self._current, self._ending_since, self._charged_at, self._begun_at = chosen, None, now, now
        self._shared = self._is_shared(chosen, now)
        return self._join_in(chosen)

    def _is_shared(self, group: _Group, now: float) -> bool:
        return self._strict or now < self._alone_from(group)

    def _alone_from(self, group: _Group) -> float:
        """When nobody else has been active for a while, unless somebody is before."""
        others = [g for g in self._groups if g is not group]
        if any(g.wants or g.has for g in others):
            return float("inf")
        return max((g.active_at for g in others), default=float("-inf")) + RECENT_SECONDS

    def _left(self, now: float) -> float:
        """Seconds after which the current turn is over, as long as nothing else happens."""
        current = self._current
        assert current is not None
        share = self._share(current)
        turn = min(max(TURN_SECONDS * share, SHORTEST_SECONDS), LONGEST_SECONDS)
        if current is self._rest:
            return turn - (now - self._begun_at)
        least = min(g.used for g in self._waiting())
        left = (least - current.used) * share + turn
        return max(left, SHORTEST_SECONDS / 2 - (now - self._begun_at))

    def _next_look(self, now: float) -> float | None:
        if self._current is None:
            return None
        if self._ending_since is not None:
            return self._ending_since + DRAIN_SECONDS
        if self._current is not self._rest and not self._waiting():
            return self._alone_from(self._current) if self._shared and not self._strict else None
        return now + max(self._left(now), 0.0)

    def __iter__(self) -> Iterator[Hashable]:
        return (name for group in self._groups for name in group.processes)
