# SPDX-License-Identifier: Apache-2.0
"""All that a controller knows at one moment, and what it decides from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from orion_virt.model import placement
from orion_virt.model.allocation import Allocation, Client
from orion_virt.model.gpu import Card, CardLoad, ServerLoad, VGpu
from orion_virt.model.placement import Decision, Grant, Refusal
from orion_virt.units import MIB


MAX_SLOTS = 100  # of a card


@dataclass(frozen=True)
class Server:
    """A registered server. ``name`` is the address it registered under, ``owners`` its domains by their keys.

    ``host``: of the controller on the same machine, which registered it; "" where it came from another machine.
    """

    name: str
    port: int
    boot: str
    addresses: tuple[str, ...]
    cards: tuple[Card, ...]
    owners: Mapping[str, str] = field(default_factory=dict)
    host: str = ""


@dataclass(frozen=True)
class Reservation:
    """Slots that nobody but one domain gets. ``memory_bytes`` of each; None: each card's default."""

    domain: str
    vgpus: int
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Request:
    """``host``: of the controller that was asked, which is the client's own. ``group``: "" or the name of the group of
    the same client's processes that share one allocation."""

    count: int
    memory_bytes: int | None = None
    client: Client = Client()
    host: str = ""
    group: str = ""


@dataclass(frozen=True)
class Waiter:
    """A request in the queue; tickets grow."""

    ticket: int
    request: Request


@dataclass(frozen=True)
class State:
    """Immutable. Allocations of a server that is not (any more) registered count for nothing."""

    servers: Mapping[str, Server] = field(default_factory=dict)
    allocations: Mapping[str, Allocation] = field(default_factory=dict)
    reservations: Mapping[str, Reservation] = field(default_factory=dict)
    waiters: Mapping[int, Waiter] = field(default_factory=dict)

    def live(self) -> list[Allocation]:
        """The oldest first."""
        return sorted((a for a in self.allocations.values() if a.server in self.servers), key=lambda a: (a.granted_at, a.uuid))

    def loads(self) -> list[ServerLoad]:
        return [self._load_of(server) for _, server in sorted(self.servers.items())]

    def _load_of(self, server: Server) -> ServerLoad:
        cards = {card.index: CardLoad(card) for card in server.cards}
        for allocation in self.allocations.values():
            for vgpu in allocation.vgpus if allocation.server == server.name else ():
                if vgpu.card in cards:
                    cards[vgpu.card] = cards[vgpu.card].with_vgpu(vgpu)
        return ServerLoad(server.name, tuple(cards.values()))

    def counts(self) -> tuple[int, int]:
        """(all, free) vGPU slots; what is reserved and not taken is free."""
        cards = [load for server in self.loads() for load in server.cards]
        return sum(load.card.slots for load in cards), sum(load.nr_free for load in cards)

    def admits(self, allocation: Allocation, shown_by: Client) -> bool:
        """Whether this client may have the allocation; its server is registered."""
        server = self.servers[allocation.server]
        there = [s for s in self.servers.values() if allocation.asked_at not in ("", server.host) and s.host == allocation.asked_at]
        return allocation.is_of(shown_by, server.addresses, tuple(a for s in there for a in (s.name, *s.addresses)))

    def domain_of(self, client: Client) -> tuple[str, str]:
        """(domain, its server) of a client; empty where they are not known."""
        for server in self.servers.values():
            for domain, owner in server.owners.items():
                if domain == client.domain or client.owner and owner == client.owner:
                    return domain, server.name
        return client.domain, ""

    def taken_by(self, domain: str) -> int:
        """vGPUs that a domain has."""
        return sum(len(a.vgpus) for a in self.live() if domain and self.domain_of_allocation(a) == domain)

    def domain_of_allocation(self, allocation: Allocation) -> str:
        """Empty where nothing proved one."""
        return allocation.domain or self.domain_of(allocation.client)[0]

    def reserved_for(self, domain: str) -> int:
        """vGPUs that a domain may still take of what is reserved for it."""
        found = self.reservations.get(domain)
        return max(0, found.vgpus - self.taken_by(domain)) if found else 0


def decide(state: State, request: Request, ticket: int | None = None) -> Decision:
    """Grants whole or refuses with the reason. ``ticket``: the request's own place in the queue.

    Those who came before are served first, as far as they can be: one who waits for more than there is holds nobody back.
    """
    served = state
    for waiter in sorted(state.waiters.values(), key=lambda w: w.ticket):
        if ticket is None or waiter.ticket < ticket:
            served = _if_served(served, waiter)
    decision = _decide_alone(served, request)
    before = len(served.allocations) - len(state.allocations)
    if isinstance(decision, Refusal) and before and isinstance(_decide_alone(state, request), Grant):
        return Refusal(f"{request.count} vGPU must wait: {before} of those who wait (ORION_WAIT) came before", False, "queue")
    return decision


def _if_served(state: State, waiter: Waiter) -> State:
    decision = _decide_alone(state, waiter.request)
    if isinstance(decision, Refusal):
        return state
    taken = Allocation(f"waiter {waiter.ticket}", decision.vgpus, 0.0, waiter.request.client)
    return replace(state, allocations={**state.allocations, taken.uuid: taken})


def _decide_alone(state: State, request: Request) -> Decision:
    """As if nobody waited."""
    domain, home = state.domain_of(request.client)
    loads = [load for load in state.loads() if (load.name == home if home else _reaches(state.servers[load.name], request))]
    if state.servers and not loads:
        return Refusal(_OUT_OF_REACH, False, "unreachable")
    held = _without_reserved(state, loads, domain)
    decision = placement.place(_near_first(state, held, request), request.count, request.memory_bytes)
    return _explained(state, loads, request, decision, domain) if isinstance(decision, Refusal) else decision


def joined(state: State, request: Request) -> Allocation | Refusal | None:
    """The allocation of the request's group, where it has one already."""
    same = [a for a in state.live() if request.group and a.group == request.group and _is_same(a.client, request.client)]
    if not same:
        return None
    vgpus = same[0].vgpus
    if request.count != len(vgpus) or request.memory_bytes not in (None, vgpus[0].memory_bytes):
        return Refusal(f"group {request.group} shares {len(vgpus)} vGPU of {vgpus[0].memory_bytes // MIB} MiB: ask for as much, or "
                       "name another ORION_GROUP", True, "group")
    return same[0]


def _is_same(one: Client, other: Client) -> bool:
    """The same domain; where neither is known by proof, the same address."""
    if one.owner or other.owner or one.domain or other.domain:
        return (one.owner, one.domain) == (other.owner, other.domain)
    return bool(one.address) and one.address == other.address


_OUT_OF_REACH = ("no server listens where this client could reach it: its own host's is not registered, and those of others "
                 "listen at no address of the pool (pool_addr and bind_addr in their server.conf)")


def _is_own(server: Server, request: Request) -> bool:
    return bool(request.host) and server.host == request.host


def _reaches(server: Server, request: Request) -> bool:
    """Whether the client can come to the server: on its own host, or, unless it has a region there, where that listens for others."""
    listens = server.name in server.addresses and not request.client.owner
    return listens or _is_own(server, request) or request.client.address == server.name


def _near_first(state: State, loads: list[ServerLoad], request: Request) -> list[ServerLoad]:
    """The client's own host, whose shared memory it has, before others: addresses of gateways are the same on many."""
    def is_far(load: ServerLoad) -> tuple[bool, bool]:
        server = state.servers[load.name]
        return not _is_own(server, request), request.client.address not in (server.name, *server.addresses)

    return sorted(loads, key=is_far)


def _without_reserved(state: State, loads: list[ServerLoad], asker: str) -> list[ServerLoad]:
    """The loads as if every other domain had taken what is reserved for it, from the last card backwards."""
    for domain in sorted(state.reservations):
        for _ in range(state.reserved_for(domain) if domain != asker else 0):
            loads = _one_less(loads, state.reservations[domain], state.domain_of(Client(domain=domain))[1])
    return loads


def _one_less(loads: list[ServerLoad], reserved: Reservation, home: str) -> list[ServerLoad]:
    for at in reversed(range(len(loads))):
        server = loads[at]
        if home and server.name != home:
            continue
        for index in reversed(range(len(server.cards))):
            vgpu = placement.next_slot(server.name, server.cards[index], reserved.memory_bytes)
            if vgpu is not None:
                cards = (*server.cards[:index], server.cards[index].with_vgpu(vgpu), *server.cards[index + 1 :])
                return [*loads[:at], replace(server, cards=cards), *loads[at + 1 :]]
    return loads  # all is taken now; it takes effect as slots come back


def _explained(state: State, loads: list[ServerLoad], request: Request, refusal: Refusal, domain: str) -> Refusal:
    """A refusal that only reservations cause says so."""
    if not state.reservations or isinstance(placement.place(loads, request.count, request.memory_bytes), Refusal):
        return refusal
    held = sum(state.reserved_for(name) for name in state.reservations if name != domain)
    return Refusal(f"{refusal.reason}; {held} vGPU are reserved for other domains", False, "reserved")


def never(state: State, reservation: Reservation) -> str:
    """Why the pool could never keep this reservation; empty when it could."""
    slots, _ = state.counts()
    others = sum(r.vgpus for r in state.reservations.values() if r.domain != reservation.domain)
    if others + reservation.vgpus > slots:
        return f"{reservation.vgpus} vGPU cannot be reserved: there are {slots}, {others} of them are reserved already"
    return ""


def collisions(server: Server, allocations: list[Allocation]) -> list[str]:
    """UUIDs of allocations that claim a slot of this server which one before them has."""
    seen: set[tuple[int, int]] = set()
    bad = []
    for allocation in allocations:
        slots = {(v.card, v.slot) for v in allocation.vgpus}
        if seen & slots or len(slots) < len(allocation.vgpus) or not _exist(server, allocation.vgpus):
            bad.append(allocation.uuid)
        else:
            seen |= slots
    return bad


def _exist(server: Server, vgpus: tuple[VGpu, ...]) -> bool:
    """What began under a larger vgpu_count goes on."""
    cards = {card.index for card in server.cards}
    return all(v.card in cards and 0 <= v.slot < MAX_SLOTS for v in vgpus)
