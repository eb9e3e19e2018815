# SPDX-License-Identifier: Apache-2.0
"""The controller's state: registered servers and live allocations, in memory, behind one lock."""

from __future__ import annotations

import logging
import threading
import time
import uuid as uuids
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orion_virt.errors import Conflict, NotFound, QuotaExceeded
from orion_virt.model import placement
from orion_virt.model.allocation import Allocation
from orion_virt.model.gpu import Card, CardLoad, ServerLoad

SILENCE_SECONDS = 16.0  # a server that is silent this long is taken out
RELEASE_WAIT_SECONDS = 1.0  # a process that follows another finds its vGPU, whose release is on its way

_log = logging.getLogger("orion.controller")


@dataclass
class Server:
    """A registered server. `name` is the address it registered under."""

    name: str
    port: int
    boot: str
    addresses: tuple[str, ...]
    cards: tuple[Card, ...]
    seen: float


class Pool:
    """All public methods are safe from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._servers: dict[str, Server] = {}
        self._allocations: dict[str, Allocation] = {}

    # ---- servers ----

    def register(self, server: Server, allocations: Sequence[Allocation] = ()) -> None:
        """A server is there (again) with these live allocations; what it had in an earlier life is gone."""
        with self._changed:
            known = self._servers.get(server.name)
            if known is not None and known.boot != server.boot:
                self._drop(server.name, "is registered anew")
            server.seen = self._clock()
            self._servers[server.name] = server
            for allocation in allocations:
                self._allocations[allocation.uuid] = allocation.confirmed()
            self._changed.notify_all()
        _log.info("server %s:%d registered %d GPU", server.name, server.port, len(server.cards))

    def keep_alive(self, name: str, boot: str) -> None:
        """Raises NotFound when the server must register again."""
        with self._changed:
            self._sweep()
            server = self._servers.get(name)
            if server is None or server.boot != boot:
                raise NotFound(f"server {name} is not registered", hint="Send status=on")
            server.seen = self._clock()

    def unregister(self, name: str) -> None:
        with self._changed:
            self._drop(name, "left")
            self._changed.notify_all()

    def _drop(self, name: str, why: str) -> None:
        if self._servers.pop(name, None) is None:
            return
        gone = [a.uuid for a in self._allocations.values() if a.server == name]
        for uuid in gone:
            del self._allocations[uuid]
        _log.info("server %s %s; %d allocations ended with it", name, why, len(gone))

    def _sweep(self) -> None:
        now = self._clock()
        for server in list(self._servers.values()):
            if now - server.seen > SILENCE_SECONDS:
                self._drop(server.name, f"was silent for {SILENCE_SECONDS:.0f} s")
        for allocation in list(self._allocations.values()):
            if allocation.is_due(now):
                del self._allocations[allocation.uuid]
                _log.info("allocation %s expired: nobody confirmed it", allocation.uuid)

    # ---- allocations ----

    def grant(self, count: int, memory_bytes: int | None) -> tuple[Allocation, Server]:
        """Grants whole or raises QuotaExceeded with the reason; waits a moment for a release on its way."""
        deadline = time.monotonic() + RELEASE_WAIT_SECONDS
        with self._changed:
            while True:
                self._sweep()
                decision = placement.place(self._load(), count, memory_bytes)
                if isinstance(decision, placement.Grant):
                    return self._book(decision)
                left = deadline - time.monotonic()
                if decision.hopeless or not self._allocations or left <= 0:
                    raise QuotaExceeded(decision.reason)
                self._changed.wait(left)

    def _book(self, grant: placement.Grant) -> tuple[Allocation, Server]:
        allocation = Allocation(str(uuids.uuid4()), grant.vgpus, self._clock())
        self._allocations[allocation.uuid] = allocation
        _log.info("allocation %s granted: %d vGPU of %s", allocation.uuid, len(grant.vgpus), allocation.server)
        return allocation, self._servers[allocation.server]

    def confirm(self, uuid: str, server: str) -> Allocation:
        """Raises NotFound (unknown or expired) or Conflict (confirmed before, or another server's)."""
        with self._changed:
            self._sweep()
            allocation = self._find(uuid)
            if server and allocation.server != server:
                raise Conflict(f"allocation {uuid} is of server {allocation.server}, not {server}")
            if allocation.state.value != "granted":
                raise Conflict(f"allocation {uuid} is in use already")
            self._allocations[uuid] = allocation.confirmed()
            _log.info("allocation %s confirmed", uuid)
            return self._allocations[uuid]

    def release(self, uuid: str) -> None:
        """Raises NotFound when it is not live."""
        with self._changed:
            self._find(uuid)
            del self._allocations[uuid]
            self._changed.notify_all()
            _log.info("allocation %s released", uuid)

    def _find(self, uuid: str) -> Allocation:
        allocation = self._allocations.get(uuid)
        if allocation is None:
            raise NotFound(f"allocation {uuid} does not exist", hint="It was released, expired, or never granted")
        return allocation

    # ---- questions ----

    def _load(self) -> list[ServerLoad]:
        loads = []
        for server in self._servers.values():
            cards = {card.index: CardLoad(card) for card in server.cards}
            for allocation in self._allocations.values():
                for vgpu in allocation.vgpus if allocation.server == server.name else ():
                    if vgpu.card in cards:
                        cards[vgpu.card] = cards[vgpu.card].with_vgpu(vgpu)
            loads.append(ServerLoad(server.name, tuple(cards.values())))
        return loads

    def counts(self) -> tuple[int, int]:
        """(all, free) vGPU slots."""
        with self._changed:
            self._sweep()
            cards = [load for server in self._load() for load in server.cards]
        return sum(load.card.slots for load in cards), sum(load.nr_free for load in cards)

    def servers(self) -> list[Server]:
        with self._changed:
            self._sweep()
            return list(self._servers.values())

    def allocations(self) -> list[Allocation]:
        with self._changed:
            self._sweep()
            return list(self._allocations.values())
