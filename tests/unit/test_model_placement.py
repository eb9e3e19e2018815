# SPDX-License-Identifier: Apache-2.0
"""Placement packs first and grants whole or not at all."""

import pytest

from orion_virt.model.gpu import Card, CardLoad, ServerLoad
from orion_virt.model.placement import Grant, Refusal, place

MIB = 1 << 20


def servers(*sizes, slots=4, base=0, used=()):
    cards = [CardLoad(Card(i, "c", size * MIB, slots, base * MIB)) for i, size in enumerate(sizes)]
    for index, slot, memory in used:
        cards[index] = CardLoad(cards[index].card, cards[index].used_slots | {slot}, cards[index].used_bytes + memory * MIB)
    return [ServerLoad("s", tuple(cards))]


def where(decision):
    assert isinstance(decision, Grant), decision
    return [(vgpu.card, vgpu.slot) for vgpu in decision.vgpus]


@pytest.mark.parametrize(
    ("pool", "count", "memory", "expected"),
    [
        (servers(16000, 16000), 2, 7999, [(0, 0), (0, 1)]),
        (servers(16000, 16000), 2, 12000, [(0, 0), (1, 0)]),
        (servers(16000, 16000), 8, 4000, [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]),
        (servers(16000, used=[(0, 0, 100), (0, 2, 100)]), 2, 1, [(0, 1), (0, 3)]),
        (servers(16000, 16000, base=500), 2, 7900, [(0, 0), (1, 0)]),
        (servers(100) + servers(16000), 1, 5000, [(0, 0)]),
    ],
)
def test_packs(pool, count, memory, expected):
    assert where(place(pool, count, memory * MIB)) == expected


def test_default_memory_fills_the_card_exactly():
    pool = servers(16000, slots=4, base=500)
    decision = place(pool, 4, None)
    assert [v.memory_bytes // MIB for v in decision.vgpus] == [3500] * 4
    assert sum(v.booked_bytes for v in decision.vgpus) == 16000 * MIB


def test_never_over_two_servers():
    decision = place(servers(8000) + servers(8000), 2, 5000 * MIB)
    assert isinstance(decision, Refusal) and decision.hopeless


def test_refusal_says_what_is_free():
    decision = place(servers(8000, used=[(0, 0, 6000)]), 1, 5000 * MIB)
    assert isinstance(decision, Refusal) and not decision.hopeless
    assert "3 of 4 vGPU and 2000 of 8000 MiB free" in decision.reason


@pytest.mark.parametrize(("count", "memory"), [(0, 1), (33, 1), (1, 0)])
def test_bounds(count, memory):
    assert isinstance(place(servers(8000), count, memory), Refusal)
