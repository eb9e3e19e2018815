# SPDX-License-Identifier: Apache-2.0
"""What is granted, given all that a controller knows: reservations, the queue, the client's own host."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from orion_virt.model import pool
from orion_virt.model.allocation import Allocation, Client, Holder
from orion_virt.model.gpu import Card, VGpu
from orion_virt.model.placement import Grant, Refusal
from orion_virt.model.pool import Request, Reservation, Server, State, Waiter

MIB = 1 << 20
ANN, BOB = Client("10.0.0.5", owner="ann's"), Client("10.0.0.6", owner="bob's")
SERVER = Server("10.0.0.1", 9960, "b", ("10.0.0.1",), (Card(0, "c", 8000 * MIB, 4), Card(1, "c", 8000 * MIB, 4)),
                {"ann": "ann's", "bob": "bob's"})  # fmt: skip
_ids = itertools.count()


def held(*places: tuple[int, int], by: Client = BOB, server: str = "10.0.0.1") -> Allocation:
    return Allocation(str(next(_ids)), tuple(VGpu(server, card, slot, 1, 1) for card, slot in places), 0, by)


def state(*allocations: Allocation, servers=(SERVER,), reserved=(), waiters=()) -> State:
    return State({s.name: s for s in servers}, {a.uuid: a for a in allocations}, {r.domain: r for r in reserved},
                 {w.ticket: w for w in waiters})


def granted(decision) -> int:
    assert isinstance(decision, Grant), decision
    return len(decision.vgpus)


def refused(decision) -> str:
    assert isinstance(decision, Refusal) and not decision.hopeless, decision
    return decision.reason


def test_what_is_reserved_only_its_domain_gets():
    now = state(held(*[(0, i) for i in range(4)]), reserved=[Reservation("ann", 3, 100 * MIB)])
    assert "3 vGPU are reserved for other domains" in refused(pool.decide(now, Request(2, MIB, BOB)))
    assert granted(pool.decide(now, Request(1, MIB, BOB))) == 1
    assert granted(pool.decide(now, Request(4, MIB, ANN))) == 4


@pytest.mark.parametrize("client", [Client("10.0.0.5"), Client("10.0.0.5", owner="guessed"), Client()])
def test_who_drops_or_feigns_its_identity_gets_no_more(client):
    now = state(servers=(replace(SERVER, host="here"),), reserved=[Reservation("ann", 8, MIB)])
    assert "8 vGPU are reserved for other domains" in refused(pool.decide(now, Request(1, MIB, client, host="here")))


def test_what_the_domain_has_counts():
    now = state(held((0, 0), (0, 1), by=ANN), reserved=[Reservation("ann", 3, MIB)])
    assert now.taken_by("ann") == 2 and now.reserved_for("ann") == 1
    assert granted(pool.decide(now, Request(5, MIB, BOB))) == 5
    assert isinstance(pool.decide(now, Request(6, MIB, BOB)), Refusal)


def test_memory_is_reserved_with_the_slots():
    now = state(reserved=[Reservation("ann", 1, 5000 * MIB)])
    decision = pool.decide(now, Request(1, 5000 * MIB, BOB))
    assert isinstance(decision, Grant) and decision.vgpus[0].card == 0  # kept from the last card on
    assert isinstance(pool.decide(state(held((0, 0)), reserved=[Reservation("ann", 2, 8000 * MIB)]), Request(1, MIB, BOB)), Grant)
    assert isinstance(pool.decide(state(reserved=[Reservation("ann", 2, 8000 * MIB)]), Request(1, MIB, BOB)), Refusal)


def test_reserving_more_than_there_is():
    now = state(reserved=[Reservation("ann", 6)])
    assert "there are 8, 6 of them are reserved already" in pool.never(now, Reservation("bob", 3))
    assert not pool.never(now, Reservation("ann", 8)) and not pool.never(now, Reservation("bob", 2))


def test_who_came_first_is_served_first():
    now = state(waiters=[Waiter(3, Request(7, MIB)), Waiter(5, Request(1, MIB)), Waiter(6, Request(1, MIB))])
    assert "2 of those who wait (ORION_WAIT) came before" in refused(pool.decide(now, Request(1, MIB, BOB)))
    assert "1 of those who wait" in refused(pool.decide(now, Request(2, MIB, BOB), ticket=5))
    assert granted(pool.decide(now, Request(8, MIB, BOB), ticket=3)) == 8 and granted(pool.decide(now, Request(1, MIB), ticket=5)) == 1


def test_who_waits_for_more_than_there_is_holds_nobody_back():
    now = state(held((0, 0)), waiters=[Waiter(3, Request(8, MIB)), Waiter(4, Request(2, 5000 * MIB))])
    assert granted(pool.decide(now, Request(5, MIB, BOB))) == 5
    assert "1 of those who wait" in refused(pool.decide(now, Request(6, MIB, BOB)))


def test_a_reservation_needs_no_queue():
    now = state(waiters=[Waiter(1, Request(6, MIB, BOB))], reserved=[Reservation("ann", 2, MIB)])
    assert granted(pool.decide(now, Request(2, MIB, ANN))) == 2
    assert "1 of those who wait" in refused(pool.decide(now, Request(3, MIB, ANN)))


def test_the_clients_own_host_comes_first():
    shut = Server("10.0.0.9", 9960, "b", ("127.0.0.1", "192.168.122.1"), SERVER.cards, {"dora": "dora's"}, "there")
    only = state(servers=(shut,))
    assert "listens where this client could reach it" in refused(pool.decide(only, Request(1, MIB, Client("9.9.9.9"), host="here")))
    for request in (Request(1, MIB, Client("9.9.9.9"), host="there"), Request(1, MIB, Client("10.0.0.9"), host="here"),
                    Request(1, MIB, Client("9.9.9.9", owner="dora's"), host="here"),
                    Request(1, MIB, Client("9.9.9.9", owner="not known yet"), host="there")):
        assert granted(pool.decide(only, request)) == 1
    assert refused(pool.decide(state(servers=(replace(shut, addresses=("10.0.0.9",)),)),
                               Request(1, MIB, Client("9.9.9.9", owner="not known yet"), host="here")))
    far = Server("10.0.0.0", 9960, "b", ("10.0.0.0",), SERVER.cards, {"carl": "carl's"})
    now = state(servers=(far, SERVER))
    here = replace(SERVER, host="here")
    by_address = pool.decide(now, Request(1, MIB, Client("10.0.0.1")))  # translated by its host
    by_host = pool.decide(state(servers=(far, here)), Request(1, MIB, Client("9.9.9.9"), host="here"))
    by_domain = pool.decide(state(servers=(far, here)), Request(1, MIB, Client("9.9.9.9", owner="carl's"), host="here"))
    assert isinstance(by_host, Grant) and by_host.vgpus[0].server == "10.0.0.1"
    assert isinstance(by_address, Grant) and by_address.vgpus[0].server == "10.0.0.1"
    assert isinstance(by_domain, Grant) and by_domain.vgpus[0].server == "10.0.0.0"
    assert granted(pool.decide(state(held(*[(c, i) for c in (0, 1) for i in range(4)]), servers=(far, SERVER)),
                               Request(1, MIB, Client("9.9.9.9"), host="here"))) == 1
    full = state(held(*[(c, i) for c in (0, 1) for i in range(4)], server="10.0.0.0"), servers=(far, SERVER))
    assert isinstance(pool.decide(full, Request(1, MIB, Client("9.9.9.9", owner="carl's"))), Refusal)


def test_a_group_has_one_allocation():
    shared = replace(held((0, 0), (0, 1), by=ANN), group="job")
    now = state(shared, held((0, 2), by=ANN))
    assert pool.joined(now, Request(2, 1, ANN, group="job")) == shared == pool.joined(now, Request(2, None, ANN, group="job"))
    assert pool.joined(now, Request(2, 1, ANN)) is pool.joined(now, Request(2, 1, ANN, group="other")) is None
    assert pool.joined(now, Request(2, 1, Client("10.0.0.5"), group="job")) is pool.joined(now, Request(2, 1, BOB, group="job")) is None
    wrong = pool.joined(now, Request(1, 1, ANN, group="job"))
    assert isinstance(wrong, Refusal) and wrong.hopeless and "shares 2 vGPU" in wrong.reason


def test_who_is_on_the_way_keeps_a_group_alive():
    first = replace(held((0, 0), by=ANN), group="job").confirmed(Holder(ANN, "first", 1))
    left = replace(first, joining=1).released()
    assert left is not None and (left.state.value, left.joining, left.holder) == ("granted", 0, Holder())
    assert first.released() is None
    assert replace(first, joining=1).confirmed(Holder(ANN, "second", 2)) == first


def test_what_a_server_that_is_gone_had_counts_for_nothing():
    now = state(held((0, 0), server="10.9.9.9"))
    assert now.counts() == (8, 8) and now.live() == []


@pytest.mark.parametrize(("asked", "shown", "allowed"), [
    (Client("10.0.0.5"), Client("10.0.0.5"), True), (Client("10.0.0.5"), Client("10.0.0.6"), False),
    (ANN, Client("10.0.0.77", "ann's", "ann"), True), (ANN, Client("10.0.0.5", "bob's", "bob"), False),
    (ANN, Client("10.0.0.5"), False), (Client("10.0.0.5", domain="ann"), Client("x", "ann's", "ann"), True),
    (Client("10.0.0.5", domain="ann"), Client("10.0.0.5", "bob's", "bob"), False),
    (Client("10.0.0.1"), Client("10.0.0.6", "bob's", "bob"), True), (ANN, Client(), True),
])  # fmt: skip
def test_whose_an_allocation_is(asked, shown, allowed):
    assert held((0, 0), by=asked).is_of(shown, ("10.0.0.1",)) is allowed


def test_a_client_of_another_host_comes_translated():
    asked, served = Server("10.0.0.2", 9960, "b", ("192.168.122.1",), (), {}, "there"), replace(SERVER, host="here")
    now, far = state(servers=(asked, served)), replace(held((0, 0), by=Client("192.168.122.50")), asked_at="there")
    assert now.admits(far, Client("10.0.0.2")) and now.admits(far, Client("192.168.122.50"))
    assert not now.admits(far, Client("10.0.0.3")) and not now.admits(replace(far, asked_at="here"), Client("10.0.0.2"))
    assert not now.admits(replace(far, client=ANN), Client("10.0.0.2"))


def test_slots_that_are_claimed_twice_or_do_not_exist():
    good, twice, beyond = held((0, 0)), held((0, 0), (0, 1)), held((0, 100))
    assert pool.collisions(SERVER, [good, twice, beyond, held((5, 0)), held((1, 1), (1, 1))])[:2] == [twice.uuid, beyond.uuid]
    assert pool.collisions(SERVER, [good, held((0, 1))]) == []


def test_the_domain_is_the_holders_when_it_is_known():
    assert held((0, 0), by=Client("a")).confirmed(Holder(Client("a", "o", "ann"), "x", 1)).domain == "ann"
