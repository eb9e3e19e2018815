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
import uuid as uuids
from pathlib import Path
from typing import Any

from orion_virt import layout
from orion_virt.config import ServerConfig
from orion_virt.errors import Conflict, Forbidden, NotFound, Unavailable
from orion_virt.region.regions import Region, Regions
from orion_virt.server.accounts import Accounts
from orion_virt.server.channel import Channel
from orion_virt.server.hangup import HangupWatch
from orion_virt.server.hello import Asker, Hello
from orion_virt.server.memory import Memory
from orion_virt.server.pages import Pages
from orion_virt.server.shares import Shares
from orion_virt.server.workers import Pool, user_ids

_log = logging.getLogger("orion.channels")


class Channels:
    """For the event loop."""

    def __init__(self, config: ServerConfig, regions: Regions, accounts: Accounts, pool: Pool, log_dir: Path) -> None:
        self._config = config
        self._regions = regions
        self._accounts = accounts
        self._pool = pool
        self._log_dir = log_dir
        self._ids = itertools.count(1)
        self._live: dict[int, Channel] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._hangup = HangupWatch()
        self._shares, self._pages = Shares(), Pages()

    def start(self) -> None:
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

    async def open(self, hello: Hello, region: Region | None, conn: socket.socket, peer: str) -> Channel:
        """Confirms the allocation, prepares the block, takes a worker. Undoes all of it when a step fails."""
        allocation = await self._accounts.confirm(hello.allocation)
        memory: Memory | None = None
        try:
            channel_id = next(self._ids)
            if region is not None:
                memory = Memory(region)
                await memory.take_block(channel_id)
            worker = self._pool.take(hello.env, lambda: self._ended(channel_id))
        except BaseException:
            if memory is not None:
                await memory.close()
            self._release(allocation["uuid"])
            raise
        channel = Channel(channel_id, hello, peer, allocation, worker, conn, memory, self._shares, self._pages, self._gone)
        self._live[channel_id] = channel
        return channel

    def hand_over(self, channel: Channel) -> None:
        """Gives connection and region to the worker. Raises Unavailable; the channel then ends by itself."""
        fds = [channel.conn.fileno()]
        if channel.memory is not None:
            fds.append(channel.memory.fd)
        try:
            channel.worker.start_channel(self._start_message(channel), fds)
        except Unavailable:
            channel.worker.kill()
            raise
        channel.begin()
        self._hangup.add(channel.conn, channel.kill_soon)
        _log.info(
            "channel %d: %s (pid %d) of %s over %s, allocation %s, worker %d",
            channel.id,
            channel.hello.comm,
            channel.hello.pid,
            channel.domain or channel.peer,
            "shared memory" if channel.hello.shared else "TCP",
            channel.allocation["uuid"],
            channel.worker.pid,
        )

    def _start_message(self, channel: Channel) -> dict[str, Any]:
        uid, gid = user_ids(self._config.worker_user)
        memory = channel.memory
        return {
            "channel": channel.id,
            "domain": channel.domain,
            "transport": "shm" if channel.hello.shared else "tcp",
            "base": channel.hello.base,
            "block": memory.block if memory else 0,
            "region_bytes": memory.region.size_bytes if memory else layout.CHANNEL_BYTES,
            "devices": [{"ordinal": v["card"], "memory": v["memory_bytes"]} for v in channel.allocation["vgpus"]],
            "log": str(self._session_log(channel, uid, gid)),
            "uid": uid,
            "gid": gid,
            "env": dict(channel.hello.env),
        }

    def _session_log(self, channel: Channel, uid: int, gid: int) -> Path:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        path = self._log_dir / f"{stamp}-{channel.id}-{uuids.uuid4().hex[:8]}.log"
        with contextlib.suppress(OSError):  # no log is no reason to refuse a client
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchown(fd, uid, gid)
            os.close(fd)
        return path

    # ---- ending ----

    def _ended(self, channel_id: int) -> None:
        channel = self._live[channel_id]
        self._hangup.remove(channel.conn)
        channel.worker_ended()

    def _gone(self, channel: Channel) -> None:
        self._release(channel.allocation["uuid"], channel)

    def _release(self, uuid: str, channel: Channel | None = None) -> None:
        task = asyncio.create_task(self._release_now(uuid, channel))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release_now(self, uuid: str, channel: Channel | None) -> None:
        await self._accounts.release(uuid)
        if channel is None:
            return
        del self._live[channel.id]
        channel.ended.set()
        why = layout.CLOSE_WORDS[channel.closed] + (f": {channel.reason}" if channel.reason else "")
        level = logging.INFO if channel.closed == layout.CLOSED_BY_GUEST else logging.WARNING
        _log.log(level, "channel %d: ended, %s; client exits with allocation ID %s", channel.id, why, uuid)

    def close(self, uuid: str | None, reason: str) -> list[Channel]:
        """Ends the channels of a domain (None: all); returns those that end."""
        found = [c for c in self._live.values() if uuid is None or c.domain == uuid]
        for channel in found:
            channel.stop(reason)
        return found

    async def stop(self, reason: str) -> None:
        """Ends everything and waits until all is given back."""
        for channel in self.close(None, reason):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(channel.ended.wait(), 10)
        await asyncio.gather(*self._releases, return_exceptions=True)
        self._hangup.close()

    # ---- questions ----

    def __len__(self) -> int:
        return len(self._live)

    def of(self, uuid: str | None) -> list[Channel]:
        return [c for c in self._live.values() if uuid is None or c.domain == uuid]

    def allocations(self) -> list[dict[str, Any]]:
        """Live ones, as the controller gave them."""
        return [c.allocation for c in self._live.values()]
