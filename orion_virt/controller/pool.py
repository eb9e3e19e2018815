# SPDX-License-Identifier: Apache-2.0
"""What a controller does: servers come and go, vGPUs are granted, confirmed, released. The state is in a store."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
import uuid as uuids
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from orion_virt.controller import crash, records
from orion_virt.controller.doors import is_loopback
from orion_virt.controller.reports import Reports
from orion_virt.controller.stats import Stats
from orion_virt.controller.store import SILENCE_SECONDS, Changes, Entry, Seen, Store
from orion_virt.errors import Conflict, Forbidden, NotFound, ProtocolError, QuotaExceeded, Unavailable
from orion_virt.model import pool as model
from orion_virt.model.allocation import Allocation, Holder
from orion_virt.model.allocation import State as Stage
from orion_virt.model.placement import Grant, Refusal
from orion_virt.model.pool import Request, Reservation, Server, State, Waiter

RELEASE_WAIT_SECONDS = 1.0  # a process that follows another finds its vGPU, whose release is on its way
WAIT_MAX_SECONDS = 86400
WAITERS_MAX = 64  # of one domain, or one address

_log = logging.getLogger("orion.controller")
_Result = TypeVar("_Result")
_Told = TypeVar("_Told")
Plan = Callable[[State], "tuple[dict[str, Entry | None], _Result]"]


class Pool:
    """For one event loop. Methods raise Unavailable when the store cannot be used."""

    def __init__(self, store: Store, host: str = "") -> None:
        """``host``: by which servers of this machine are known from those of others, over a restart too."""
        self._store = store
        self.host = host
        self.stats, self.reports = Stats(), Reports()
        self._id = uuids.uuid4().hex
        self._keeper: asyncio.Task[None] | None = None
        self._queued = 0

    async def start(self) -> None:
        """A store that does not answer yet may do so later."""
        try:
            await self._store.read()
        except Unavailable as error:
            _log.warning("%s", error)
        self._keeper = asyncio.create_task(self._keep_places(), name="places in the queue")

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._store.close()

    async def _keep_places(self) -> None:
        while True:
            await asyncio.sleep(SILENCE_SECONDS / 4)
            if self._queued:
                with contextlib.suppress(Unavailable):  # the next turn comes in time
                    await self._store.renew(f"controller/{self._id}")

    async def _change(self, label: str, plan: Plan[_Result]) -> _Result:
        """Applies what `plan` makes of the newest state; again when another was quicker."""
        while True:
            seen = await self._store.read()
            changes, result = plan(records.state_of(seen.entries))
            if not changes or await self._write(seen, changes, label):
                return result

    async def _write(self, seen: Seen, changes: Changes, label: str) -> bool:
        crash.point(label, "decided")
        done = await self._store.write(seen, changes, label)
        if done:
            crash.point(label, "kept")
        return done

    # ---- servers ----

    async def register(self, server: Server, allocations: Sequence[Allocation] = (), opening: Collection[str] = ()) -> None:
        """A server is there (again): `allocations` are all that it serves, `opening` those that it is about to.

        What it has beyond these ends, but for grants that nobody has shown yet: a program waits for a server that is restarted.
        Raises ProtocolError for a name that tells no host from others where there may be others.
        """
        if self._store.is_shared and is_loopback(server.name):
            raise ProtocolError(f"a pool of hosts cannot know this one as {server.name}",
                                hint="Set [server] pool_addr in server.conf to the address by which others reach it")
        kept = {a.uuid: a for a in allocations}
        doubled = model.collisions(server, list(kept.values()))

        def plan(state: State) -> tuple[dict[str, Entry | None], int]:
            changes: dict[str, Entry | None] = {records.server_key(server.name): records.server_entry(server)}
            known = state.servers.get(server.name)
            same = known is not None and known.boot == server.boot
            good = {uuid: _again(state, a) for uuid, a in kept.items() if uuid not in doubled}
            taken = {(v.card, v.slot) for a in good.values() for v in a.vgpus}
            ended = 0
            for uuid, old in state.allocations.items():
                waits = old.state is Stage.GRANTED and known is not None and known.cards == server.cards or same and uuid in opening
                if old.server != server.name or uuid in good or waits and not taken & {(v.card, v.slot) for v in old.vgpus}:
                    continue
                changes[records.allocation_key(uuid)] = None
                ended += 1
            return changes | {records.allocation_key(u): records.allocation_entry(a) for u, a in good.items()}, ended

        ended = await self._change("register", plan)
        await self._store.renew(records.server_key(server.name))
        for uuid in doubled:
            _log.error("server %s says that it serves allocation %s, in slots that are another's or do not exist", server.name, uuid)
        _log.info("server %s:%d registered %d GPU, %d allocations; %d ended", server.name, server.port, len(server.cards),
                  len(kept) - len(doubled), ended)

    async def keep_alive(self, name: str, boot: str, now: Server | None = None) -> None:
        """``now``: what the server is like now. Raises NotFound when it must register again."""
        known = (await self.state()).servers.get(name)
        if known is None or known.boot != boot or not await self._store.renew(records.server_key(name)):
            raise NotFound(f"server {name} is not registered", hint="Send status=on")
        if now is not None and now != known:
            entry = records.server_entry(now)
            await self._change("register", lambda state: ({records.server_key(name): entry} if name in state.servers else {}, None))

    async def unregister(self, name: str) -> None:
        def plan(state: State) -> tuple[dict[str, Entry | None], int]:
            gone = [records.allocation_key(a.uuid) for a in state.allocations.values() if a.server == name]
            known = [records.server_key(name)] if name in state.servers else []
            return dict.fromkeys(known + gone), len(gone)

        ended = await self._change("unregister", plan)
        _log.info("server %s left; %d allocations ended with it", name, ended)

    # ---- allocations ----

    async def grant(self, request: Request, wait_seconds: float | None = None) -> tuple[Allocation, Server]:
        """Grants whole or raises QuotaExceeded with the reason. Who waits is served in the order of coming (model.decide).

        Without `wait_seconds` it waits a moment, where that can help: for a release on its way, or a server that starts.
        """
        with self.stats.request() as outcome:
            found = await self._grant(dataclasses.replace(request, host=self.host), wait_seconds)
            outcome.append("shared" if found[0].joining else "granted")
            return found

    async def _grant(self, request: Request, wait_seconds: float | None) -> tuple[Allocation, Server]:
        deadline = time.monotonic() + (RELEASE_WAIT_SECONDS if wait_seconds is None else wait_seconds)
        ticket: int | None = None
        try:
            while True:
                seen, outcome = await self._try_grant(request, ticket)
                if not isinstance(outcome, Refusal):
                    ticket = None  # it went with the grant
                    return outcome
                left = deadline - time.monotonic()
                idle = wait_seconds is None and {key.split("/", 1)[0] for key in seen.entries} & {"server", "allocation"} == {"server"}
                if outcome.hopeless or left <= 0 or idle:
                    self.stats.refused(outcome.kind)
                    refusal = QuotaExceeded(outcome.reason)
                    refusal.final = outcome.hopeless
                    raise refusal
                if ticket is None:
                    ticket = await _whole(self._enqueue(request), self._dequeue)
                else:
                    await self._store.changed(seen, left)
        finally:
            if ticket is not None:
                await _whole(self._dequeue(ticket), _nothing)

    async def _try_grant(self, request: Request, ticket: int | None) -> tuple[Seen, tuple[Allocation, Server] | Refusal]:
        while True:
            seen = await self._store.read()
            state = records.state_of(seen.entries)
            found = _found(state, request, ticket)
            if isinstance(found, Refusal):
                return seen, found
            allocation, undo = found
            changes: dict[str, Entry | None] = {} if ticket is None else {records.waiter_key(ticket): None}
            changes[records.allocation_key(allocation.uuid)] = records.allocation_entry(allocation)
            if await _whole(self._write(seen, changes, "grant"), functools.partial(self._take_back, uuid=undo)):
                self._queued -= ticket is not None
                _log.info("allocation %s %s %s: %d vGPU of %s", allocation.uuid, "shared with" if allocation.joining else "granted to",
                          request.client.domain or request.client.address, len(allocation.vgpus), allocation.server)
                return seen, (allocation, state.servers[allocation.server])

    async def _take_back(self, granted: bool, uuid: str) -> None:
        if granted and uuid:
            await self.release(uuid)

    async def _enqueue(self, request: Request) -> int:
        def plan(state: State) -> tuple[dict[str, Entry | None], int]:
            if sum(w.request.client == request.client for w in state.waiters.values()) >= WAITERS_MAX:
                self.stats.refused("too_many_waiting")
                raise QuotaExceeded(f"{WAITERS_MAX} processes of this client wait for vGPUs already")
            ticket = max(state.waiters, default=0) + 1
            return {records.waiter_key(ticket): records.waiter_entry(Waiter(ticket, request), self._id)}, ticket

        ticket = await self._change("wait", plan)
        self._queued += 1
        return ticket

    async def _dequeue(self, ticket: int) -> None:
        self._queued -= 1
        key = records.waiter_key(ticket)
        await self._change("wait", lambda state: ({key: None} if ticket in state.waiters else {}, None))

    async def confirm(self, uuid: str, server: str, holder: Holder) -> Allocation:
        """Raises NotFound (unknown or expired), Conflict (confirmed before, or another server's), Forbidden (another's)."""
        def plan(state: State) -> tuple[dict[str, Entry | None], Allocation]:
            allocation = _find(state, uuid)
            if server and allocation.server != server:
                raise Conflict(f"allocation {uuid} is of server {allocation.server}, not {server}")
            if not state.admits(allocation, holder.client):
                raise Forbidden(f"allocation {uuid} was granted to another client", hint=_OTHER_CLIENT)
            if allocation.state is not Stage.GRANTED and not allocation.joining:
                raise Conflict(f"allocation {uuid} is in use already")
            confirmed = allocation.confirmed(holder)
            return {records.allocation_key(uuid): records.allocation_entry(confirmed)}, confirmed

        confirmed = await self._change("confirm", plan)
        _log.info("allocation %s confirmed", uuid)
        return confirmed

    async def release(self, uuid: str) -> None:
        """Raises NotFound when it is not live."""
        def plan(state: State) -> tuple[dict[str, Entry | None], None]:
            left = _find(state, uuid).released()
            return {records.allocation_key(uuid): None if left is None else records.allocation_entry(left)}, None

        await self._change("release", plan)
        _log.info("allocation %s released", uuid)

    # ---- reservations ----

    async def reserve(self, reservation: Reservation) -> None:
        """In place of what was reserved for that domain. Raises QuotaExceeded where the pool could never keep it."""
        def plan(state: State) -> tuple[dict[str, Entry | None], None]:
            why_not = model.never(state, reservation)
            if why_not:
                raise QuotaExceeded(why_not)
            return {records.reservation_key(reservation.domain): records.reservation_entry(reservation)}, None

        await self._change("reserve", plan)
        _log.info("%d vGPU are reserved for domain %s", reservation.vgpus, reservation.domain)

    async def unreserve(self, domain: str) -> None:
        """Raises NotFound."""
        def plan(state: State) -> tuple[dict[str, Entry | None], None]:
            if domain not in state.reservations:
                raise NotFound(f"nothing is reserved for domain {domain}")
            return {records.reservation_key(domain): None}, None

        await self._change("reserve", plan)
        _log.info("nothing is reserved for domain %s any more", domain)

    # ---- questions ----

    async def state(self) -> State:
        return records.state_of((await self._store.read()).entries)


_OTHER_CLIENT = ("A client and what it asked the controller for belong together: update the guest's client (install-client), or "
                 "let ORION_CONTROLLER and ORION_SERVER be addresses of the same network")


async def _whole(work: Awaitable[_Told], undo: Callable[[_Told], Awaitable[None]]) -> _Told:
    """Does it to the end even when the client leaves meanwhile; what came of it is then undone."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await undo(await task)
        raise


async def _nothing(_: object) -> None:
    return


def _found(state: State, request: Request, ticket: int | None) -> tuple[Allocation, str] | Refusal:
    """What the request gets; and the id of what is to be released where its client has gone meanwhile ("": nothing)."""
    shared = model.joined(state, request)
    if isinstance(shared, Refusal):
        return shared
    if shared is not None:
        return dataclasses.replace(shared, joining=shared.joining + 1), ""
    decision = model.decide(state, request, ticket)
    if not isinstance(decision, Grant):
        return decision
    made = Allocation(str(uuids.uuid4()), decision.vgpus, time.time(), request.client, group=request.group,
                      asked_at=request.host)
    return made, made.uuid


def _find(state: State, uuid: str) -> Allocation:
    allocation = state.allocations.get(uuid)
    if allocation is None or allocation.server not in state.servers:
        raise NotFound(f"allocation {uuid} does not exist", hint="It was released, expired, or never granted")
    return allocation


def _again(state: State, told: Allocation) -> Allocation:
    """What a server tells of an allocation; who asked for it only the state knows."""
    known = state.allocations.get(told.uuid)
    if known is None:
        return told.confirmed(told.holder)
    return known if known.state is Stage.CONFIRMED else known.confirmed(told.holder)
