# SPDX-License-Identifier: Apache-2.0
"""Turns on a card, played with a clock of their own: shares, idle time, latency, and who never says that it is done."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import pytest

from orion_virt.model.turns import DRAIN_SECONDS, LONGEST_SECONDS, RECENT_SECONDS, Turns

MESSAGE = 0.0003  # seconds between worker and daemon


@dataclass
class Tenant:
    """Submits kernels as long as it may, two ahead; ``pause``: seconds between bursts of one kernel."""

    share: float
    kernel: float
    pause: float = 0.0
    until: float = 1e9
    ran: float = 0.0
    waits: list[float] = field(default_factory=list)
    may: bool = False
    wanted_at: float = 0.0
    free_at: float = 0.0


class Card:
    """Plays tenants on one card until `end`."""

    def __init__(self, tenants: dict[str, Tenant], strict: bool = False) -> None:
        self.tenants, self.turns = tenants, Turns(strict)
        self.events: list[tuple[float, int, str, str]] = []
        self.count, self.now, self.on_card, self.overlaps = 0, 0.0, "", 0
        for name, tenant in tenants.items():
            self.turns.join(name, tenant.share)
            self.later(0.0, "want", name)

    def later(self, seconds: float, what: str, name: str = "") -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + seconds, self.count, what, name))

    def obey(self, orders) -> None:
        for order in orders:
            self.later(MESSAGE, "begin" if order.begin else "end", order.process)
        if self.turns.deadline is not None:
            self.later(max(0.0, self.turns.deadline - self.now), "tick")

    def play(self, end: float) -> None:
        while self.events and self.events[0][0] < end:
            self.now, _, what, name = heapq.heappop(self.events)
            if what == "tick":
                if self.turns.deadline is not None and self.now >= self.turns.deadline - 1e-9:
                    self.obey(self.turns.tick(self.now))
                continue
            getattr(self, what)(name, self.tenants[name])

    def want(self, name: str, tenant: Tenant) -> None:
        if self.now < tenant.until:
            tenant.wanted_at = self.now
            self.later(MESSAGE, "asked", name)

    def asked(self, name: str, tenant: Tenant) -> None:
        self.obey(self.turns.want(name, self.now))

    def begin(self, name: str, tenant: Tenant) -> None:
        if not tenant.may:
            tenant.may = True
            tenant.waits.append(self.now - tenant.wanted_at)
            self.later(0.0, "kernel", name)

    def kernel(self, name: str, tenant: Tenant) -> None:
        if not tenant.may:
            self.later(0.0, "drained", name)
            return
        self.overlaps += any(t.free_at > self.now + 1e-9 for t in self.tenants.values() if t is not tenant)
        tenant.free_at = self.now + tenant.kernel
        tenant.ran += tenant.kernel
        if tenant.pause or self.now >= tenant.until:
            tenant.may = False
            self.later(tenant.kernel + tenant.pause, "want", name)
            self.later(tenant.kernel, "drained", name)
        else:
            self.later(tenant.kernel, "kernel", name)

    def end(self, name: str, tenant: Tenant) -> None:
        if tenant.may:
            tenant.may = False
            self.later(MESSAGE, "want", name)

    def drained(self, name: str, tenant: Tenant) -> None:
        self.obey(self.turns.done(name, self.now))


@pytest.mark.parametrize("kernels", [(0.0001, 0.0001), (0.05, 0.0001), (0.0001, 0.05), (0.05, 0.02), (0.003, 0.007)])
@pytest.mark.parametrize("shares", [(0.3, 0.7), (0.1, 0.9), (0.5, 0.5)])
def test_shares_of_two(shares: tuple[float, float], kernels: tuple[float, float]) -> None:
    tenants = {"a": Tenant(shares[0], kernels[0]), "b": Tenant(shares[1], kernels[1])}
    card = Card(tenants)
    card.play(2)
    before = {name: t.ran for name, t in tenants.items()}
    card.play(12)
    got = [(t.ran - before[name]) / 10 for name, t in tenants.items()]
    assert got == pytest.approx(shares, abs=0.02)
    assert card.overlaps == 0


def test_shares_of_three() -> None:
    tenants = {"a": Tenant(0.25, 0.05), "b": Tenant(0.25, 0.0002), "c": Tenant(0.5, 0.01)}
    card = Card(tenants)
    card.play(12)
    assert [t.ran / 12 for t in tenants.values()] == pytest.approx([0.25, 0.25, 0.5], abs=0.025)


def test_time_of_an_idle_neighbour_is_used_and_given_back() -> None:
    tenants = {"busy": Tenant(0.2, 0.001), "ends": Tenant(0.8, 0.001, until=5.0)}
    card = Card(tenants)
    card.play(5)
    assert tenants["busy"].ran == pytest.approx(1.0, abs=0.1)
    card.play(10)
    assert tenants["busy"].ran == pytest.approx(6.0, abs=0.15)
    tenants["ends"].until = 1e9
    card.later(0, "want", "ends")
    card.play(15)
    assert tenants["busy"].ran == pytest.approx(7.0, abs=0.25)  # what it used alone is not held against it


def test_alone_it_is_never_asked_to_end() -> None:
    turns = Turns()
    turns.join("a", 0.1)
    assert [(o.begin, o.shared) for o in turns.want("a", 0.0)] == [(True, False)]
    assert turns.deadline is None
    assert turns.tick(100.0) == []


def test_a_light_tenant_waits_for_no_more_than_what_runs() -> None:
    tenants = {"heavy": Tenant(0.5, 0.002), "light": Tenant(0.5, 0.001, pause=0.05)}
    card = Card(tenants)
    card.play(10)
    waits = sorted(tenants["light"].waits[5:])
    assert waits[-1] < 0.01 and tenants["heavy"].ran > 9.4


def test_strict_leaves_unpromised_time_unused() -> None:
    tenants = {"a": Tenant(0.3, 0.001)}
    card = Card(tenants, strict=True)
    card.play(10)
    assert tenants["a"].ran == pytest.approx(3.0, abs=0.2)
    tenants = {"a": Tenant(0.3, 0.001), "b": Tenant(0.2, 0.005)}
    card = Card(tenants, strict=True)
    card.play(10)
    assert [t.ran for t in tenants.values()] == pytest.approx([3.0, 2.0], abs=0.25)


def test_the_next_begins_beside_work_that_does_not_end() -> None:
    turns = Turns()
    turns.join("stuck", 0.5)
    turns.join("other", 0.5)
    turns.want("stuck", 0.0)
    turns.want("other", 0.0)
    assert any(not o.begin and o.process == "stuck" for o in turns.tick(LONGEST_SECONDS + 0.01))
    assert turns.tick(1.0) == []
    assert [(o.process, o.begin) for o in turns.tick(LONGEST_SECONDS + DRAIN_SECONDS + 0.02)] == [("other", True)]
    assert [o.begin for o in turns.want("stuck", 3.0) if o.process == "stuck"] in ([], [True])


def test_processes_that_share_memory_have_their_turn_together() -> None:
    turns = Turns()
    for name in ("a", "b", "c"):
        turns.join(name, 0.25)
    turns.together("a", "b")
    assert [o.process for o in turns.want("a", 0.0)] == ["a"]
    assert [o.process for o in turns.want("b", 0.0)] == ["b"]
    assert turns.want("c", 0.0) == [] or all(o.shared for o in turns.want("c", 0.0))
    ends = {o.process for o in turns.tick(LONGEST_SECONDS + 0.01) if not o.begin}
    assert ends == {"a", "b"}
    assert turns.done("a", 0.1) == []
    assert [(o.process, o.begin) for o in turns.done("b", 0.1)] == [("c", True)]


def test_one_that_leaves_lets_the_next_begin() -> None:
    turns = Turns()
    turns.join("a", 0.5)
    turns.join("b", 0.5)
    turns.want("a", 0.0)
    turns.want("b", 0.001)
    assert [(o.process, o.begin) for o in turns.leave("a", 0.002)] == [("b", True)]
    assert list(turns) == ["b"]
    assert turns.want("a", 0.003) == turns.done("a", 0.003) == []


def test_for_a_while_after_anothers_work_portions_stay_small() -> None:
    turns = Turns()
    for name in ("a", "b"):
        turns.join(name, 0.5)
    turns.want("b", 0.0)
    turns.done("b", 0.5)
    assert [(o.process, o.shared) for o in turns.want("a", 1.0)] == [("a", True)]
    assert turns.deadline == pytest.approx(0.5 + RECENT_SECONDS)
    assert [(o.process, o.begin, o.shared) for o in turns.tick(turns.deadline + 0.001)] == [("a", True, False)]
    assert turns.deadline is None
