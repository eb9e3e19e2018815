# SPDX-License-Identifier: Apache-2.0
"""Whatever servers, clients and clocks do, in whatever order: no slot and no byte is granted twice."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from controllers import MIB

from orion_virt.controller.pool import Pool
from orion_virt.controller.sqlite_store import SqliteStore
from orion_virt.errors import OrionError
from orion_virt.model.allocation import Client, Holder
from orion_virt.model.allocation import State as Stage
from orion_virt.model.gpu import Card
from orion_virt.model.pool import Request, Reservation, Server, State

CARDS = (Card(0, "c", 8000 * MIB, 4, 100 * MIB), Card(1, "c", 4000 * MIB, 3))
CLIENTS = [Client("10.0.0.1"), Client("10.1.0.5", "ann's"), Client("10.1.0.6", "bob's"), Client("10.1.0.7")]
STEPS = 400


class Chaos:
    """A pool, and steps that it takes by dice."""

    def __init__(self, path, seed):
        self.dice, self.path, self.now = random.Random(seed), path, [0.0]
        self.pool = self.opened()
        self.boots = {"10.0.0.1": 1, "10.0.0.2": 1}
        self.refused = self.done = 0

    def opened(self):
        return Pool(SqliteStore(self.path, lambda: self.now[0]), "here")

    def server(self, name):
        return Server(name, 9960, str(self.boots[name]), (name,), CARDS, {"ann": "ann's"} if name == "10.0.0.1" else {"bob": "bob's"},
                      "here")

    def some(self, state, stage=None):
        found = [a for a in state.live() if stage in (None, a.state)]
        return self.dice.choice(found) if found else None

    async def register(self, state):
        """With what it serves, less one that ended unheard, now and then in a new life."""
        name = self.dice.choice(list(self.boots))
        served = [a for a in state.live() if a.server == name and a.state is Stage.CONFIRMED][self.dice.randint(0, 1):]
        if self.dice.random() < 0.3:
            self.boots[name] += 1
            served = []
        await self.pool.register(self.server(name), served)

    async def beat(self, state):
        for name in self.boots:
            await self.pool.keep_alive(name, str(self.boots[name]), self.server(name))

    async def unregister(self, state):
        await self.pool.unregister(self.dice.choice(list(self.boots)))

    async def grant(self, state):
        memory = self.dice.choice([None, 1 * MIB, 900 * MIB, 3000 * MIB])
        request = Request(self.dice.randint(1, 5), memory, self.dice.choice(CLIENTS), group=self.dice.choice(["", "", "job"]))
        await self.pool.grant(request, 0)

    async def confirm(self, state):
        if (found := self.some(state, Stage.GRANTED)) is not None:
            await self.pool.confirm(found.uuid, found.server, Holder(replace(found.client, domain="")))

    async def release(self, state):
        if (found := self.some(state)) is not None:
            await self.pool.release(found.uuid)

    async def reserve(self, state):
        domain = self.dice.choice(["ann", "bob"])
        if domain in state.reservations:
            await self.pool.unreserve(domain)
        else:
            await self.pool.reserve(Reservation(domain, self.dice.randint(1, 9), self.dice.choice([None, 500 * MIB])))

    async def wait(self, state):
        self.now[0] += self.dice.choice([1, 5, 10, 31])

    async def restart(self, state):
        await self.pool.stop()
        self.pool = self.opened()
        assert await self.pool.state() == state

    async def step(self):
        act = self.dice.choice([self.register, *[self.beat] * 4, self.unregister, *[self.grant] * 6, *[self.confirm] * 3,
                                *[self.release] * 2, self.reserve, self.wait, self.restart])
        try:
            await act(await self.pool.state())
            self.done += 1
        except OrionError:
            self.refused += 1
        check(await self.pool.state())


def check(state: State) -> None:
    total, free = state.counts()
    slots = [(v.server, v.card, v.slot) for a in state.live() for v in a.vgpus]
    assert len(slots) == len(set(slots)) and len(slots) + free == total == 7 * len(state.servers)
    for load in (card for server in state.loads() for card in server.cards):
        assert load.used_bytes <= load.card.total_bytes and len(load.used_slots) <= load.card.slots
    assert not state.waiters


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_granted_twice(tmp_path, seed):
    async def run():
        chaos = Chaos(tmp_path / "controller.db", seed)
        for _ in range(STEPS):
            await chaos.step()
        await chaos.pool.stop()
        return chaos

    chaos = asyncio.run(run())
    assert chaos.done > STEPS / 4 and chaos.refused > 10
