# SPDX-License-Identifier: Apache-2.0
"""Makes channels again of the workers that an earlier daemon left, or ends those that cannot be served."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass

from orion_virt.errors import OrionError, ProtocolError, Unavailable
from orion_virt.region.regions import Region, Regions
from orion_virt.server import meeting
from orion_virt.server.channel import Channel
from orion_virt.server.doorbells import Doorbells
from orion_virt.server.groups import Groups, Seat
from orion_virt.server.keeping import Keeping, Kept, Record
from orion_virt.server.meeting import Heard
from orion_virt.server.memory import Memory
from orion_virt.server.pages import Pages
from orion_virt.server.shares import Shares
from orion_virt.server.turns import CardTurns

_log = logging.getLogger("orion.resuming")
Connect = Callable[[str, "tuple[int, ...]"], "socket.socket | None"]


@dataclass(frozen=True)
class Parts:
    """The books in which a channel stands, and what is called at its end."""

    regions: Regions
    shares: Shares
    pages: Pages
    bells: Doorbells
    groups: Groups
    turns: CardTurns
    gone: Callable[[Channel], None]


async def resume_all(keeping: Keeping, parts: Parts, connect: Connect) -> list[tuple[Channel, Heard]]:
    """The channels that go on, to be begun once they are known. Every other worker has ended when this returns, so that what
    it had can be granted anew."""
    for region in parts.regions:
        region.extents.doubt()
    found = keeping.found()
    heard = await asyncio.gather(*(_meet(keeping, kept) for kept in found))
    channels: list[tuple[Channel, Heard]] = []
    for kept, one in zip(found, heard):
        channel = None if one is None else await _resume(kept, one, parts, connect)
        if one is None or channel is None:
            keeping.drop(kept.name)
        else:
            channels.append((channel, one))
    parts.groups.settle()
    parts.shares.settle()
    return channels


async def _meet(keeping: Keeping, kept: Kept) -> Heard | None:
    try:
        return await meeting.meet(keeping, kept, meeting.find(kept))
    except meeting.Gone:
        _log.info("channel %s: its worker has ended while no oriond was there", kept.name)
        return None
    except OrionError as error:
        _log.error("channel %s: worker %d cannot be taken up and was ended: %s", kept.name, kept.pid, error.message)
        return None


async def _resume(kept: Kept, heard: Heard, parts: Parts, connect: Connect) -> Channel | None:
    record = kept.record
    assert record is not None
    taken: list[Memory] = []
    channel = None
    try:
        channel = _channel(record, heard, parts, connect, taken)
        _enter(channel, record, heard, parts)
    except (OrionError, OSError) as error:
        why = error.message if isinstance(error, OrionError) else str(error.strerror)
        await meeting.end(heard, why)
        level = logging.INFO if isinstance(error, Unavailable) else logging.ERROR  # its guest is no more: nothing is wrong
        _log.log(level, "channel %s: worker %d cannot be taken up and was ended: %s", kept.name, kept.pid, why)
        await _undo(record, channel, taken, parts)
        return None
    return channel


def begin(channel: Channel, heard: Heard, ended: Callable[[int], None]) -> None:
    """Listens to the worker from now on, to what it has said meanwhile first."""
    asyncio.get_running_loop().add_reader(channel.worker.pidfd, ended, channel.id)
    channel.begin()
    later, heard.later = heard.later, []
    for raw, fds in later:
        channel.heard(raw, fds)
    heard.close()
    _log.info("channel %d: %s (pid %d) of %s goes on, worker %d", channel.id, channel.hello.comm, channel.hello.pid,
              channel.owner or channel.peer, channel.worker.pid)


def _channel(record: Record, heard: Heard, parts: Parts, connect: Connect, taken: list[Memory]) -> Channel:
    region = _region(record, parts.regions)
    memory = None
    if region is not None:
        memory = Memory(region)
        taken.append(memory)
        for off, n_bytes in heard.extents:
            memory.claim(off, n_bytes)
        if not memory.owns(record.block):
            raise ProtocolError("it has not the block of its channel")
        memory.block = record.block
    conn = connect(record.hello.domain, record.mail) if record.hello.polled else _connection(heard)
    if conn is None:
        raise Unavailable("its client has ended meanwhile")
    try:
        seat = _seat(record, heard, parts.groups)
    except ProtocolError:
        conn.close()
        raise
    bell = parts.bells.resume(region, record.bell) if region is not None and record.bell else None
    channel = Channel(record.channel, record.hello, record.peer, record.allocation, heard.worker, conn, memory, parts.shares,
                      parts.pages, parts.turns, parts.gone, bell=bell, owner=record.owner, seat=seat, is_kept=True,
                      is_resumed=True, log=record.log, ratio=record.ratio, opened_at=record.opened_at)
    channel.rate.resume()
    return channel


def _seat(record: Record, heard: Heard, groups: Groups) -> Seat | None:
    if record.group_row < 0:
        return None
    return groups.resume(record.allocation, record.hello, record.peer, record.group_row, heard.group)


def _region(record: Record, regions: Regions) -> Region | None:
    """Raises Unavailable: it is not that of the channel any more."""
    if not record.hello.shared:
        return None
    region = regions.find(record.hello.domain)
    info = None if region is None else os.fstat(region.fd)
    if region is None or info is None or (info.st_dev, info.st_ino) != record.region or not region.is_current():
        raise Unavailable("its region was removed or replaced meanwhile")
    if region.identity is None or region.identity.generation != record.hello.generation:
        raise Unavailable("its region has a new generation")
    return region


def _connection(heard: Heard) -> socket.socket:
    """Raises ProtocolError for what nobody can hang up."""
    try:
        with select.epoll() as probe:
            probe.register(heard.client, select.EPOLLRDHUP)
        conn = socket.socket(fileno=heard.client)
    except (OSError, ValueError):
        raise ProtocolError("it has no connection of its client") from None
    heard.client = -1
    return conn


def _enter(channel: Channel, record: Record, heard: Heard, parts: Parts) -> None:
    if record.turns:
        parts.turns.resume(channel, record.ratio)
    while heard.shares:
        parts.shares.resume(channel, *heard.shares.pop())
    for raw in heard.pages:
        if channel.memory is None:
            raise ProtocolError("it has pages to share, and no region")
        parts.pages.resume(channel.memory.region, channel.id, raw)
    if record.hello.polled:
        channel.connect(channel.conn)


async def _undo(record: Record, channel: Channel | None, taken: list[Memory], parts: Parts) -> None:
    if channel is not None:
        parts.turns.leave(channel.id)
        parts.shares.gone(channel)
        await parts.pages.gone(channel.id)
        if channel.seat is not None and channel.seat.leave():
            parts.groups.left(record.allocation["uuid"])
        if channel.bell is not None:
            channel.bell.close()
        channel.conn.close()
    for memory in taken:
        await memory.close()
