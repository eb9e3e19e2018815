# SPDX-License-Identifier: Apache-2.0
"""All channels of this daemon: opening one step by step, undoing a half-opened one, and counting."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from orion_virt import credential, layout, paths
from orion_virt.config import ServerConfig
from orion_virt.errors import Conflict, Forbidden, NotFound, QuotaExceeded, Unavailable
from orion_virt.model import ceiling
from orion_virt.region.regions import Region, Regions
from orion_virt.server import hangup, identity, resuming
from orion_virt.server.accounts import Accounts
from orion_virt.server.ceilings import Ceilings
from orion_virt.server.channel import Channel
from orion_virt.server.doorbells import Bell, Doorbells
from orion_virt.server.groups import Groups, Seat
from orion_virt.server.hello import Asker, Hello
from orion_virt.server.keeping import Keeping, Record, started
from orion_virt.server.memory import Memory
from orion_virt.server.pages import Pages
from orion_virt.server.session_logs import SessionLogs
from orion_virt.server.shares import Shares
from orion_virt.server.tally import Tally
from orion_virt.server.turns import CardTurns
from orion_virt.server.workers import Pool

RELEASE_WAIT_SECONDS = 1.0  # a process that follows another finds its vGPUs, whose release is on its way

_log = logging.getLogger("orion.channels")


class Channels:
    """For the event loop."""

    def __init__(self, config: ServerConfig, regions: Regions, accounts: Accounts, pool: Pool, log_dir: Path,
                 ceilings: Ceilings) -> None:
        self.keeping = Keeping(paths.workers())
        self.mail_place: Callable[[str, socket.socket], tuple[int, ...]] = lambda domain, conn: ()  # see mailbox.py
        self._config = config
        self._regions = regions
        self._accounts = accounts
        self._pool = pool
        self._logs = SessionLogs(log_dir)
        self._ceilings = ceilings
        self._ids = itertools.count(1)
        self._live: dict[int, Channel] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._hangup = hangup.HangupWatch()
        self._shares, self._pages, self._bells, self._groups = Shares(), Pages(), Doorbells(), Groups()
        self.turns = self._turns = CardTurns(config.compute_limits, config.vgpu_count)
        self.tally = Tally()
        self._held: dict[str, float] = {}  # domain -> until when (monotonic) it gets no channel

    def start(self) -> None:
        self._logs.start()
        self._hangup.start()

    def reconfigure(self, config: ServerConfig) -> None:
        """For clients that come from now on."""
        self._config = config

    # ---- opening ----

    def region_of(self, hello: Hello | Asker) -> Region | None:
        """The region that a HELLO or USAGE names; None over TCP. Raises NotFound, Conflict, Forbidden."""
        if not hello.shared:
            return None
        if not self._config.enable_shm:
            raise Forbidden("shared memory is switched off", hint="Set enable_shm = true in the host's server.conf")
        region = self._regions.find(hello.domain)
        if region is None or region.identity is None:
            raise NotFound(
                f"domain {hello.domain} has no region at this server",
                hint="On the host: `orion-virt list`, then `orion-virt attach DOMAIN`",
            )
        if not region.is_current():
            raise Conflict("the region's file was replaced", hint="Power-cycle the domain")
        if region.identity.generation != hello.generation:
            raise Conflict("the region has a new generation since it was read", hint="Start the program again")
        return region

    def proven(self, region: Region) -> None:
        """A handshake over it has shown that its guest sees it."""
        self._regions.prove(region.uuid)

    async def open(self, hello: Hello, region: Region | None, conn: socket.socket, peer: str) -> Channel:
        """Confirms the allocation, prepares the block, takes a worker. Undoes all of it when a step fails."""
        allocation = await self._accounts.confirm(hello.allocation, _holder(hello, region, peer))
        memory: Memory | None = None
        seat: Seat | None = None
        bell: Bell | None = None
        try:
            seat = self._groups.enter(allocation, hello, peer)
            owner = await self._ceilings.owner(hello, peer)
            channel_id = next(self._ids)
            if region is not None:
                memory = Memory(region)
                await memory.take_block(channel_id)
                bell = await self._bells.take(region) if hello.rings else None
            await self._permit(owner, allocation)  # the last that waits: two at once must not both find the last vGPU
            ratio = self._ratio(owner, hello.ratio)
            self._turns.check(ratio, allocation["vgpus"])
            worker = self._pool.take(hello.env, lambda: self._ended(channel_id))
        except BaseException:
            if bell is not None:
                bell.close()
            if memory is not None:
                await memory.close()
            self._release(allocation["uuid"], seat)
            raise
        channel = Channel(channel_id, hello, peer, allocation, worker, conn, memory, self._shares, self._pages,
                          self._turns, self._gone, bell=bell, owner=owner, seat=seat)
        channel.ratio = ratio
        self._live[channel_id] = channel
        self._turns.join(channel, ratio)
        self.tally.opened(_way(channel))
        return channel

    def _ratio(self, owner: str, asked: int) -> int:
        """Percent of a card's time for each vGPU; 0: the server's default. Raises QuotaExceeded over the domain's ceiling."""
        most = self._ceilings.of(owner).compute
        if most is None or not self._turns.are_on:
            return asked
        if asked > most:
            raise QuotaExceeded(f"{asked} % of a card's time asked for, this domain's vGPUs may have {most} % each",
                                hint=f"Set ORION_RATIO={most} or less; on the host: orion-virt set DOMAIN --compute PERCENT")
        return asked or most

    async def _permit(self, owner: str, allocation: dict[str, Any]) -> None:
        """Raises QuotaExceeded where the domain's ceilings forbid this allocation, Conflict while it is held."""
        asked = [int(vgpu["memory_bytes"]) for vgpu in allocation["vgpus"]]
        deadline = time.monotonic() + RELEASE_WAIT_SECONDS
        while True:
            if self._held.get(owner, 0) > time.monotonic():
                raise Conflict("this domain is being saved or migrated", hint="Start the program again after that")
            others = [c for c in self._live.values() if owner and c.owner == owner]
            in_use = sum(len(held["vgpus"]) for held in _once(others) if held["uuid"] != allocation["uuid"])
            found = ceiling.refusal(self._ceilings.of(owner), asked, in_use)
            if found is None:
                return
            ending = [c for c in others if c.is_ending]
            left = deadline - time.monotonic()
            if not found.passes or not ending or left <= 0:
                raise QuotaExceeded(found.reason, hint=found.remedy)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ending[0].ended.wait(), left)

    def hand_over(self, channel: Channel) -> None:
        """Gives connection and region to the worker. Raises Unavailable; the channel then ends by itself."""
        fds = [channel.conn.fileno()]
        if channel.memory is not None:
            fds.append(channel.memory.fd)
        if channel.bell is not None:
            fds.append(channel.bell.fd)
        if channel.seat is not None:
            fds.append(channel.seat.fd)
        log = self._session_log(channel)
        listener = self._keep(channel, "" if log is None else str(log.name))
        try:
            path = "" if log is None else log.name
            fds += [end.fileno() for end in (listener, log) if end is not None]
            channel.worker.start_channel(self._start_message(channel) | {"log": path}, fds)
        except Unavailable:
            channel.worker.kill()
            raise
        finally:
            for end in (listener, log):
                if end is not None:
                    end.close()
        channel.begin()
        self._watch(channel)
        _log.info(
            "channel %d: %s (pid %d) of %s over %s, allocation %s, worker %d",
            channel.id,
            channel.hello.comm,
            channel.hello.pid,
            channel.owner or channel.domain or channel.peer,
            _way(channel),
            channel.allocation["uuid"],
            channel.worker.pid,
        )

    def _watch(self, channel: Channel) -> None:
        self._hangup.add(channel.conn, channel.client_gone, guest=channel.hello.shared)

    def _start_message(self, channel: Channel) -> dict[str, Any]:
        uid, gid = identity.of(self._config.worker_user, channel.proven_domain or channel.allocation["uuid"], self._pool.confined)
        memory = channel.memory
        group = {} if channel.seat is None else {"group_row": channel.seat.row}
        return group | {
            "channel": channel.id,
            "domain": channel.domain,
            "transport": "shm" if channel.hello.shared else "tcp",
            "doorbell": channel.bell is not None,
            "polled": channel.hello.polled,
            "base": channel.hello.base,
            "block": memory.block if memory else 0,
            "region_bytes": memory.region.size_bytes if memory else layout.CHANNEL_BYTES,
            "devices": [{"ordinal": v["card"], "memory": v["memory_bytes"], "context": v["booked_bytes"] - v["memory_bytes"]}
                        for v in channel.allocation["vgpus"]],
            "uid": uid,
            "gid": gid,
            "env": dict(channel.hello.env),
            "turns": int(self._turns.are_on),
            "keep": self._config.keep_workers if channel.is_kept else 0,
            "kernel_seconds": self._config.longest_kernel,
        }

    def _keep(self, channel: Channel, log: str) -> socket.socket | None:
        """Writes down what the next daemon has to know of the channel; where its worker will wait for that one."""
        if not self._config.keep_workers:
            return None
        memory, place = channel.memory, self.mail_place(channel.domain, channel.conn) if channel.hello.polled else ()
        info = os.fstat(memory.fd) if memory else None
        record = Record(channel.id, channel.worker.pid, started(channel.worker.pid), channel.hello, channel.peer, channel.owner,
                        channel.allocation, channel.ratio, self._turns.are_on, channel.opened_at, memory.block if memory else 0,
                        (info.st_dev, info.st_ino) if info else (), place, channel.bell.value if channel.bell else 0,
                        channel.seat.row if channel.seat else -1, log)
        try:
            listener = self.keeping.put(record)
        except OSError as error:
            _log.warning("channel %d will not outlive this oriond: %s: %s", channel.id, paths.workers(), error.strerror)
            return None
        channel.is_kept = True
        return listener

    def _session_log(self, channel: Channel) -> IO[bytes] | None:
        said, who = channel.hello, _who(channel)
        words = f"channel {channel.id}: {said.comm} (pid {said.pid}, client {said.build}) of {who}"
        return self._logs.make(channel.id, who, words)

    # ---- ending ----

    def _ended(self, channel_id: int) -> None:
        channel = self._live[channel_id]
        self._hangup.remove(channel.conn)
        self._turns.leave(channel_id)
        channel.worker_ended()

    def _gone(self, channel: Channel) -> None:
        self._release(channel.allocation["uuid"], channel.seat, channel)

    def _release(self, uuid: str, seat: Seat | None, channel: Channel | None = None) -> None:
        """Of a group the last one releases; a refused one releases nothing that others have."""
        if seat is None:
            mine = not any(c is not channel and c.allocation["uuid"] == uuid for c in self._live.values())
        elif mine := seat.leave():
            self._groups.left(uuid)
        task = asyncio.create_task(self._release_now(uuid if mine else "", channel))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release_now(self, uuid: str, channel: Channel | None) -> None:
        if uuid:
            await self._accounts.release(uuid)
        if channel is None:
            return
        del self._live[channel.id]
        self.keeping.drop(channel.id)
        self.tally.ended(channel)
        self._logs.ended(channel.id)
        channel.ended.set()
        why = layout.CLOSE_WORDS[channel.closed] + (f": {channel.reason}" if channel.reason else "")
        level = logging.INFO if channel.closed == layout.CLOSED_BY_GUEST else logging.WARNING
        _log.log(level, "channel %d: ended, %s; client exits with allocation ID %s", channel.id, why,
                 channel.allocation["uuid"])

    def hold(self, uuid: str, seconds: float) -> list[Channel]:
        """Ends what the domain has, over TCP too, and opens nothing for so long; 0 seconds: from now on again."""
        self._held = {held: until for held, until in self._held.items() if until > time.monotonic() and held != uuid}
        if not seconds:
            return []
        self._held[uuid] = time.monotonic() + seconds
        found = self.owned(uuid)
        for channel in found:
            channel.stop("the domain is being saved or migrated")
        return found

    def owned(self, uuid: str) -> list[Channel]:
        """Of a domain, over TCP too."""
        return [c for c in self._live.values() if c.owner == uuid]

    def close(self, uuid: str | None, reason: str, guest_gone: bool = False) -> list[Channel]:
        """Ends the channels of a domain (None: all); returns those that end. At once where the guest is gone."""
        found = [c for c in self._live.values() if uuid is None or c.domain == uuid]
        for channel in found:
            if guest_gone:
                channel.abandon(reason)
            else:
                channel.stop(reason)
        return found

    async def stop(self, reason: str, leave: bool = False) -> dict[str, set[int]]:
        """Ends everything and waits until all is given back. ``leave``: but for what the next daemon can take up; of each
        domain the slots of its mailbox through which such clients came."""
        kept = [c for c in self._live.values() if leave and c.is_kept and not c.is_ending]
        ending = [c for c in self._live.values() if c not in kept]
        for channel in ending:
            channel.stop(reason)
        for channel in ending:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(channel.ended.wait(), 10)
        await asyncio.gather(*self._releases, return_exceptions=True)
        places: dict[str, set[int]] = {}
        for channel in kept:
            places.setdefault(channel.domain, set()).update(self.mail_place(channel.domain, channel.conn)[:1])
            self._hangup.remove(channel.conn)
            await channel.let_go()
        self._pages.let_go()
        self._shares.let_go()
        self._groups.let_go()
        self._hangup.close()
        if kept:
            _log.info("%d programs of guests go on; their workers end unless an oriond is there again in %d s", len(kept),
                      self._config.keep_workers)
        return places

    # ---- what an earlier daemon left ----

    async def resume(self, connect: Callable[[str, tuple[int, ...]], socket.socket | None]) -> None:
        """Takes up its workers, before anything is granted. ``connect``: to a client of a domain's mailbox, by its place."""
        self._ids = itertools.count(1 + max((int(kept.name) for kept in self.keeping.found() if kept.name.isdigit()), default=0))
        parts = resuming.Parts(self._regions, self._shares, self._pages, self._bells, self._groups, self._turns, self._gone)
        found = await resuming.resume_all(self.keeping, parts, connect)
        self._live = {channel.id: channel for channel, _ in found}
        for channel, heard in found:
            self._watch(channel)
            self._logs.resume(channel.id, Path(channel.log), _who(channel))
            resuming.begin(channel, heard, self._ended)

    # ---- questions ----

    def __len__(self) -> int:
        return len(self._live)

    def of(self, uuid: str | None) -> list[Channel]:
        return [c for c in self._live.values() if uuid is None or c.domain == uuid]

    def allocations(self) -> list[dict[str, Any]]:
        """Live ones, as the controller gave them; those of groups once."""
        return _once(self._live.values())


def _once(channels: Iterable[Channel]) -> list[dict[str, Any]]:
    """Their allocations; one that a group shares once."""
    return list({c.allocation["uuid"]: c.allocation for c in channels}.values())


def _holder(hello: Hello, region: Region | None, peer: str) -> dict[str, Any]:
    """Who shows an allocation, for the controller: a domain where the region proved it, else an address."""
    proven = {} if region is None or region.identity is None else {
        "domain": hello.domain, "owner": credential.owner_key(region.identity.token)}
    return {"client": peer, "process": hello.comm, "pid": hello.pid} | proven


def _who(channel: Channel) -> str:
    """Whose session log it is; `orion-virt logs` looks for it."""
    return f"domain {channel.owner}" if channel.owner else channel.peer


def _way(channel: Channel) -> str:
    """How its commands travel, for the log."""
    if channel.hello.polled:
        return "shared memory alone"
    if channel.bell:
        return "shared memory with a doorbell"
    return "shared memory" if channel.hello.shared else "TCP"
