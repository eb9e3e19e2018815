# SPDX-License-Identifier: Apache-2.0
"""Brings one domain to what it should be: its definition, its running device, its region and header."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lxml import etree

from orion_virt.config import ServerConfig
from orion_virt.domain import definition, metadata, shmem
from orion_virt.domain.connection import CONFIG, LIVE, Connection, View
from orion_virt.errors import Conflict, NotFound, OrionError, QuotaExceeded
from orion_virt.region import header
from orion_virt.region.regions import Region, Regions
from orion_virt.server.contract import Host
from orion_virt.server.remembered import Remembered
from orion_virt.units import MIB

_log = logging.getLogger("orion.domains")
NVIDIA = "0x10de"
SMALLEST_BYTES = 2 * MIB
UNPLUG_SECONDS = 5.0
CLOSE_SECONDS = 10.0


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """A blocking libvirt call, off the event loop."""
    return await asyncio.to_thread(function, *args)


class Equipper:
    """All methods run in the daemon's event loop, one domain at a time."""

    def __init__(self, config: ServerConfig, regions: Regions, host: Host, memory: Remembered) -> None:
        self._config = config
        self._regions = regions
        self._host = host
        self.memory = memory
        self.problems: dict[str, str] = {}
        self._said: dict[str, str] = {}

    def reconfigure(self, config: ServerConfig) -> None:
        self._config = config

    # ---- decisions ----

    def decide(self, domain: etree._Element) -> definition.Decision:
        policy = definition.Policy(self._config.libvirt_attach, self._config.libvirt_exclude,
                                   frozenset(self.memory.detached))
        nvidia = any(_read(path) == NVIDIA for path in definition.host_devices(domain))
        return definition.decide(domain, policy, nvidia)

    def wanted_bytes(self, domain: etree._Element) -> int:
        marked = metadata.read(domain).marked
        n_bytes = definition.region_bytes(domain, self._config.region_bytes(marked))
        while n_bytes > max(self._regions.budget_bytes, SMALLEST_BYTES):
            n_bytes //= 2
        return n_bytes

    def problem(self, uuid: str, name: str, text: str) -> None:
        """Shows something in `list`, and says it in the log where it is new."""
        self.problems[uuid] = text
        if self._said.get(uuid) != text:
            self._said[uuid] = text
            _log.warning("domain %s: %s", name, text)

    # ---- the definition ----

    async def define(self, conn: Connection, view: View) -> None:
        """Puts the device into the definition, or takes ours out, as settings and metadata want it."""
        assert view.config is not None
        for error in metadata.read(view.config).errors:
            self.problem(view.uuid, view.name, f"metadata: {error}; the default is used")
        await self._drop_foreign(conn, view)
        decision, own = self.decide(view.config), shmem.own_element(view.config)
        if own is not None and not decision.wanted and view.uuid in self.memory.equipped:
            await call(conn.detach_device, view.uuid, text_of(own), CONFIG)
            _log.info("domain %s: the device is taken out of its definition: %s", view.name, decision.reason)
            self.memory.forget(view.uuid)
        elif own is None and decision.wanted and self._may_give(view):
            await self.add_to_definition(conn, view, self.wanted_bytes(view.config))
        elif own is not None:
            self.memory.equipped.add(view.uuid)
        self.memory.save()

    async def add_to_definition(self, conn: Connection, view: View, size_bytes: int) -> None:
        await call(conn.attach_device, view.uuid, shmem.device_xml(view.uuid, size_bytes), CONFIG)
        self.memory.equipped.add(view.uuid)
        _log.info("domain %s: a region device of %d MiB is in its definition", view.name, size_bytes // MIB)

    def _may_give(self, view: View) -> bool:
        """False where somebody else removed the device twice: no tug of war."""
        if view.uuid not in self.memory.equipped:
            return True
        if self.memory.returned.get(view.uuid, 0) >= 1:
            self.problem(view.uuid, view.name, "something keeps removing the device from its definition; it is not "
                         f"given back again (orion-virt attach {view.name} does it)")
            return False
        self.memory.returned[view.uuid] = 1
        return True

    async def _drop_foreign(self, conn: Connection, view: View) -> None:
        assert view.config is not None
        for element in shmem.find_foreign(view.config):
            await call(conn.detach_device, view.uuid, text_of(element), CONFIG)
            _log.warning("domain %s: %s is another domain's region (a clone?), removed from its definition",
                         view.name, element.get("name"))

    # ---- the running domain ----

    async def run(self, conn: Connection, view: View) -> None:
        """A running domain gets its device, region and header; idempotent."""
        assert view.live is not None
        if shmem.find_own(view.live) is None and not await self._first_plug(conn, view):
            return
        region = self._adopt(view)
        await self._begin_life(view, region)
        await self._fill_header(conn, view, region)

    async def _first_plug(self, conn: Connection, view: View) -> bool:
        """Plugs the device in, once in each run of the domain: who unplugs it later means it."""
        assert view.live is not None
        if view.uuid in self.memory.lives:
            self._may_not_plug(view)
            await self.end(view.uuid, view.name, "lost its device")
        if self.memory.tried.get(view.uuid) == view.id:
            self._repeat(view)
            return False
        self._may_not_plug(view)
        return self.decide(view.live).wanted and await self.plug(conn, view, self.wanted_bytes(view.live)) > 0

    def _may_not_plug(self, view: View) -> None:
        """Nothing more is plugged in by itself while this run of the domain lasts."""
        self.memory.tried[view.uuid] = view.id
        self.memory.save()

    def _adopt(self, view: View) -> Region:
        try:
            return self._regions.adopt(view.uuid)
        except NotFound as error:
            raise NotFound(f"{error.message}, although the domain runs with it",
                           hint="Somebody removed the file; shut the domain down and start it again") from error
        except Conflict as error:
            raise Conflict(error.message, hint="Was it made without our hook? Install it (hooks/qemu.d/50-orion-virt), "
                           "then shut the domain down and start it again") from error

    def _repeat(self, view: View) -> None:
        """Keeps showing why this run of the domain has no device."""
        said = self._said.get(view.uuid, "")
        if "power cycle" in said:
            self.problem(view.uuid, view.name, said)

    async def _begin_life(self, view: View, region: Region) -> None:
        """A start, a restore or a migration: whatever the region holds is old, its secret too."""
        life = [view.id, os.fstat(region.fd).st_ino]
        if self.memory.lives.get(view.uuid) == life:
            return
        await self._close_channels(view.uuid, "the domain was started again")
        region.identity, region.server_addrs = None, ()
        self.memory.lives[view.uuid] = life
        self.memory.save()

    async def _fill_header(self, conn: Connection, view: View, region: Region) -> None:
        addresses = await self._server_addrs(conn, view)
        if not addresses:
            self.problem(view.uuid, view.name, "no network of it reaches this host; give it a NIC on a libvirt network "
                         "or bridge, or name an address: gateway= in its metadata, or [server] bind_addr")
        controller = self._host.controller_addr(addresses[0]) if addresses else ""
        wanted = (tuple(addresses), controller)
        # A restore writes the saved header back while the domain is active already: what counts is what the file says.
        found = header.read(region.fd)
        ours = found is not None and header.identity(found) == region.identity
        if ours and (region.server_addrs, region.controller_addr) == wanted:
            return
        self._regions.prepare_header(view.uuid, addresses, controller)
        _log.info("domain %s: region of %d MiB ready, server %s, controller %s", view.name, region.size_bytes // MIB,
                  ", ".join(addresses) or "-", controller or "-")

    async def _server_addrs(self, conn: Connection, view: View) -> list[str]:
        """"ip:port" for the header: what is configured, else the gateway of the guest's network."""
        assert view.live is not None
        if self._config.bind_addr:
            return self._host.server_addrs()
        found = await call(conn.gateway, view.live, metadata.read(view.live).gateway)
        if found is None:
            return []
        listened = await self._host.listen_on(found.listen)
        return [listened.replace(found.listen, found.address) if found.listen != found.address else listened]

    async def plug(self, conn: Connection, view: View, wanted_bytes: int) -> int:
        """Hot-plugs the device; returns the bytes it got, 0 where the domain needs a power cycle."""
        assert view.live is not None
        n_bytes, reason = definition.live_bytes(view.live, wanted_bytes)
        while n_bytes >= SMALLEST_BYTES:
            try:
                self._regions.create(view.uuid, n_bytes)
                break
            except QuotaExceeded as error:
                n_bytes, reason = n_bytes // 2, str(error)
        if n_bytes < SMALLEST_BYTES:
            self.problem(view.uuid, view.name, f"needs a power cycle to get its region: {reason}")
            return 0
        try:
            await call(conn.attach_device, view.uuid, shmem.device_xml(view.uuid, n_bytes), LIVE)
        except OrionError as error:
            self._regions.remove(view.uuid)
            self.problem(view.uuid, view.name, f"needs a power cycle to get its region: {error.message}")
            return 0
        _log.info("domain %s: a region of %d MiB is plugged in (%s); only a guest that connects proves that it sees it",
                  view.name, n_bytes // MIB, reason)
        return n_bytes

    async def unplug(self, conn: Connection, view: View) -> bool:
        """Takes the device out of a running domain; Conflict when the guest does not let go of it."""
        element = None if view.live is None else shmem.own_element(view.live)
        if element is None:
            return False
        self._may_not_plug(view)
        await self._close_channels(view.uuid, "the domain was detached")
        await call(conn.detach_device, view.uuid, text_of(element), LIVE)
        deadline = asyncio.get_running_loop().time() + UNPLUG_SECONDS
        while asyncio.get_running_loop().time() < deadline:
            now = await call(conn.view, view.uuid)
            if now is None or now.live is None or shmem.find_own(now.live) is None:
                await self.end(view.uuid, view.name, "been detached")
                return True
            await asyncio.sleep(0.1)
        self._regions.new_generation(view.uuid)
        raise Conflict(f"the guest of {view.name} does not release the device",
                       hint="It goes when the domain shuts down")

    async def _close_channels(self, uuid: str, why: str) -> int:
        """Ends a domain's workers and waits for them: they use the region's descriptor."""
        closed = self._host.close_channels(uuid, why)
        deadline = asyncio.get_running_loop().time() + CLOSE_SECONDS
        while self._host.channels(uuid) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        return closed

    async def end(self, uuid: str, name: str, why: str) -> None:
        """The domain runs no more, or without its device: its workers, region and file go."""
        if self.memory.lives.pop(uuid, None) is None:
            return
        closed = await self._close_channels(uuid, f"the domain has {why}")
        try:
            self._regions.remove(uuid)
        except NotFound:
            pass
        self.problems.pop(uuid, None)
        self.memory.save()
        _log.info("domain %s has %s; %d channels ended, its region is removed", name, why, closed)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def text_of(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode")
