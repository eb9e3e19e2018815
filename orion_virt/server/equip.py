# SPDX-License-Identifier: Apache-2.0
"""Brings one domain to what it should be: its definition, its running device, its region and header."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lxml import etree

from orion_virt import paths
from orion_virt.config import ServerConfig
from orion_virt.domain import address, apparmor, controllers, definition, metadata, shmem
from orion_virt.domain.connection import CONFIG, LIVE, Connection, View
from orion_virt.errors import Conflict, NotFound, OrionError, QuotaExceeded
from orion_virt.hook import label
from orion_virt.region import doorbell, header
from orion_virt.region.regions import Region, Regions
from orion_virt.server import libvirt_hook
from orion_virt.server.contract import Host
from orion_virt.server.process import Watch
from orion_virt.server.reach import Reach
from orion_virt.server.remembered import Remembered
from orion_virt.units import MIB

_log = logging.getLogger("orion.domains")
NVIDIA = "0x10de"
HOOK = libvirt_hook.script()
SOCKET_BYTES = 107  # a path that the kernel takes
LARGEST_MIB = 1 << 20  # of a region
SMALLEST_BYTES = 2 * MIB
UNPLUG_SECONDS = 5.0
CLOSE_SECONDS = 10.0


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """A blocking libvirt call, off the event loop."""
    return await asyncio.to_thread(function, *args)


class Equipper:
    """All methods run in the daemon's event loop, for each domain one at a time."""

    def __init__(self, config: ServerConfig, regions: Regions, host: Host, memory: Remembered) -> None:
        self._config = config
        self._regions = regions
        self._host = host
        self.memory = memory
        self.problems: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self.reach = Reach(config, host)
        self.watch = Watch(self._qemu_ended)
        self._ending: set[asyncio.Task[None]] = set()

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
            await self.take_from_definition(conn, view)
            _log.info("domain %s: the device is taken out of its definition: %s", view.name, decision.reason)
        elif own is None and decision.wanted and self._may_give(view):
            await self.add_to_definition(conn, view, self.wanted_bytes(view.config))
        elif own is not None:
            self.memory.equipped.add(view.uuid)
            await self._change_model(conn, view, own)
        self.memory.save()

    async def add_to_definition(self, conn: Connection, view: View, size_bytes: int) -> None:
        rings = self._wants_doorbell(view)
        await call(conn.attach_device, view.uuid, shmem.device_xml(view.uuid, size_bytes, rings), CONFIG)
        self.memory.equipped.add(view.uuid)
        _log.info("domain %s: a region device of %d MiB%s is in its definition", view.name, size_bytes // MIB,
                  " with a doorbell, with which libvirt cannot save or migrate it," if rings else "")
        now = await call(conn.view, view.uuid)
        if now is None or now.config is None or view.config is None:
            return
        added = controllers.keys(now.config) - controllers.keys(view.config)
        if added:  # q35 has no slot for it without a bridge
            known = self.memory.added.setdefault(view.uuid, [])
            known.extend(list(key) for key in sorted(added) if list(key) not in known)

    async def take_from_definition(self, conn: Connection, view: View) -> bool:
        """Makes the definition what it was before us, controllers included. False: the device was not in it."""
        own = None if view.config is None else shmem.own_element(view.config)
        if own is not None:
            with contextlib.suppress(NotFound):
                await call(conn.detach_device, view.uuid, text_of(own), CONFIG)
        now = await call(conn.view, view.uuid)
        added = {(str(model), int(index)) for model, index in self.memory.added.get(view.uuid, [])}
        if now is not None and now.config is not None:
            for element in controllers.unused(now.config, added):
                try:
                    await call(conn.detach_device, view.uuid, text_of(element), CONFIG)
                except OrionError as error:
                    _log.warning("domain %s keeps the controller %s %s: %s", view.name, element.get("model"),
                                 element.get("index"), error.message)
        self.memory.forget_definition(view.uuid)
        self.memory.save()
        return own is not None

    def _wants_doorbell(self, view: View) -> bool:
        """QEMU would not start without the doorbell's server, which is the hook's to start."""
        assert view.config is not None
        if not metadata.read(view.config).doorbell:
            return False
        longest = paths.doorbell_socket(view.uuid, LARGEST_MIB)
        if HOOK.exists() and len(str(longest)) <= SOCKET_BYTES:
            return True
        why = f"{longest.parent} is too long a path for a socket" if HOOK.exists() else (
            f"libvirt's hook, which starts the doorbell's server, is missing: {HOOK} (orion-virt hook install)")
        self.problem(view.uuid, view.name, f"doorbell='yes' has no effect: {why}")
        return False

    async def _change_model(self, conn: Connection, view: View, own: etree._Element) -> None:
        """What the metadata says of size and doorbell counts, whoever wrote it: the next start gets the other device.

        Where it says nothing of a size, any is in order.
        """
        assert view.config is not None
        found = shmem.find_own(view.config)
        assert found is not None
        size = self.wanted_bytes(view.config)
        if found.size_bytes and not metadata.read(view.config).region:
            size = found.size_bytes
        wanted = etree.fromstring(shmem.device_xml(view.uuid, size, self._wants_doorbell(view))).find("server")
        if (found.size_bytes or size, found.server) == (size, "" if wanted is None else wanted.get("path")):
            return
        await call(conn.detach_device, view.uuid, text_of(own), CONFIG)
        await self.add_to_definition(conn, view, size)

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

    def limit(self, view: View) -> None:
        """What processes of a running domain may have; before its region's header lets anybody in."""
        assert view.live is not None
        limits = metadata.ceiling(metadata.read(view.live))
        self._host.ceilings.put(view.uuid, limits, [nic.mac for nic in address.interfaces(view.live)])

    async def run(self, conn: Connection, view: View) -> None:
        """A running domain gets its device, region and header; idempotent."""
        assert view.live is not None
        if shmem.find_own(view.live) is None and not await self._first_plug(conn, view):
            return
        region = self._adopt(view)
        await self._begin_life(view, region)
        self.watch.follow(view.uuid, view.name, self.memory.lives[view.uuid])
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
        if self.decide(view.live).wanted:
            return await self.plug(conn, view, self.wanted_bytes(view.live)) > 0
        self._may_not_plug(view)
        return False

    def _may_not_plug(self, view: View) -> None:
        """Nothing more is plugged in by itself while this run of the domain lasts."""
        self.memory.tried[view.uuid] = view.id
        self.memory.save()

    def _adopt(self, view: View) -> Region:
        """A region that neither we nor the hook made is never used: who made it may do with it what he wants."""
        cure = "Shut the domain down and start it again"
        try:
            region = self._regions.adopt(view.uuid)
        except NotFound as error:
            raise NotFound(f"needs a power cycle: {error.message}, although the domain runs with it (somebody removed "
                           "the file)", hint=cure) from error
        except Conflict as error:
            raise Conflict(f"needs a power cycle: {error.message} (QEMU made it, or somebody else; with the hook, "
                           "`orion-virt hook install`, no domain starts so)", hint=cure) from error
        own = None if view.live is None else shmem.find_own(view.live)
        if own is not None and own.size_bytes not in (0, region.size_bytes):  # 0: a doorbell's server that is not ours
            self._regions.forget(view.uuid)
            raise Conflict(f"needs a power cycle: its device shows {own.size_bytes // MIB} MiB of a region of "
                           f"{region.size_bytes // MIB} MiB", hint=cure)
        return region

    def _repeat(self, view: View) -> None:
        """Keeps showing why this run of the domain has no device."""
        said = self.memory.needs.get(view.uuid)
        if said is not None:
            self.problem(view.uuid, view.name, said)

    def _needs_power_cycle(self, view: View, why: str) -> int:
        self.memory.needs[view.uuid] = f"needs a power cycle to get its region: {why}"
        self.memory.save()
        self._repeat(view)
        return 0

    async def _begin_life(self, view: View, region: Region) -> None:
        """A start, a restore or a migration: whatever the region holds is old, its secret too."""
        life = [view.id, os.fstat(region.fd).st_ino]
        if self.memory.lives.get(view.uuid) == life:
            return
        await self._close_channels(view.uuid, "the guest began anew", guest_gone=True)
        region.identity, region.server_addrs = None, ()
        self.memory.lives[view.uuid] = life
        self.memory.prepared.discard(view.uuid)
        if self.memory.tried.get(view.uuid) != view.id:  # it was there when the firmware looked for devices
            self.memory.room[view.uuid] = [view.id, region.size_bytes]
        self.memory.save()

    def rebooted(self, uuid: str) -> None:
        """The guest's programs ended without a word: the next look at the domain begins a new life of its region."""
        if uuid in self.memory.lives:
            self.memory.lives[uuid] = []

    async def _fill_header(self, conn: Connection, view: View, region: Region) -> None:
        addresses = await self.reach.update(conn, view)
        controller = self._host.controller_addr(addresses[0]) if addresses else ""
        bell = await self._doorbell(view)
        wanted = (tuple(addresses), controller, bell)
        assert view.live is not None
        region.defaults = metadata.defaults(metadata.read(view.live))
        # A restore writes the saved header back while the domain is active already: what counts is what the file says.
        found = header.read(region.fd)
        should = (region.identity, region.defaults, True)
        ours = found is not None and (header.identity(found), header.defaults(found), header.has_mailbox(found)) == should
        if ours and (region.server_addrs, region.controller_addr, region.doorbell) == wanted:
            return
        if ours and region.doorbell == bell:
            self._regions.change_addresses(view.uuid, addresses, controller)
        else:
            self._regions.prepare_header(view.uuid, addresses, controller, bell)
        _log.info("domain %s: region of %d MiB ready, server %s, controller %s%s", view.name, region.size_bytes // MIB,
                  ", ".join(addresses) or "through the region alone", controller or "through the region alone",
                  ", doorbell" if bell else "")

    async def _doorbell(self, view: View) -> str:
        """Where the server behind the running device's doorbell answers; "" where there is none, or it does not ring."""
        assert view.live is not None
        own = shmem.find_own(view.live)
        why = await silent(own)
        if why:
            self.problem(view.uuid, view.name, why)
        return doorbell.control_of(own.server) if own is not None and own.server and not why else ""

    async def plug(self, conn: Connection, view: View, wanted_bytes: int, fresh: bool = False) -> int:
        """Hot-plugs the device; returns the bytes it got, 0 where the domain needs a power cycle.

        ``fresh``: the domain was started paused, so that its firmware is still to come.
        """
        assert view.live is not None
        if not fresh:
            self._may_not_plug(view)
        run, room = self.memory.room.get(view.uuid, [0, 0])
        n_bytes, reason = definition.live_bytes(view.live, wanted_bytes, room if run == view.id else 0, fresh)
        while n_bytes >= SMALLEST_BYTES:
            try:
                self._regions.create(view.uuid, n_bytes)
                break
            except QuotaExceeded as error:
                n_bytes, reason = n_bytes // 2, str(error)
        if n_bytes < SMALLEST_BYTES:
            return self._needs_power_cycle(view, reason)
        try:
            await self._permit(view)
            await call(conn.attach_device, view.uuid, shmem.device_xml(view.uuid, n_bytes), LIVE)
        except OrionError as error:
            self._regions.remove(view.uuid)
            return self._needs_power_cycle(view, error.message)
        self.memory.needs.pop(view.uuid, None)
        _log.info("domain %s: a region of %d MiB is plugged in (%s); only a guest that connects proves that it sees it",
                  view.name, n_bytes // MIB, reason)
        return n_bytes

    async def _permit(self, view: View) -> None:
        """libvirt tells neither AppArmor nor SELinux of a device that is plugged in."""
        assert view.live is not None
        region = self._regions.get(view.uuid)
        await call(apparmor.allow, view.live, str(region.path))
        wanted = label.context(view.live)
        if wanted and label.is_on():
            try:
                label.apply(region.fd, wanted)
            except OSError as error:
                raise Conflict(f"{region.path} cannot be labelled {wanted}: {error.strerror}",
                               hint="See ausearch -m avc -ts recent") from error

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

    async def _close_channels(self, uuid: str, why: str, guest_gone: bool = False) -> int:
        """Ends a domain's workers and waits for them: they use the region's descriptor."""
        closed = self._host.close_channels(uuid, why, guest_gone)
        deadline = asyncio.get_running_loop().time() + CLOSE_SECONDS
        while self._host.channels(uuid) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.05)
        return closed

    def _qemu_ended(self, uuid: str, name: str, life: list[int]) -> None:
        """By its pidfd, whether libvirt has noticed, is busy, or is not there."""
        if self.memory.lives.get(uuid) == life:
            self._host.close_channels(uuid, "its QEMU has ended", guest_gone=True)
            task = asyncio.get_running_loop().create_task(self.end(uuid, name, "ended", guest_gone=True))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def end(self, uuid: str, name: str, why: str, guest_gone: bool = False) -> None:
        """The domain runs no more, or without its device: its workers, region and file go."""
        self.reach.forget(uuid)
        if self.memory.lives.pop(uuid, None) is None:
            return
        self.watch.forget(uuid)
        closed = await self._close_channels(uuid, f"the domain has {why}", guest_gone)
        try:
            self._regions.remove(uuid)
        except NotFound:
            pass
        self.problems.pop(uuid, None)
        self.memory.save()
        _log.info("domain %s has %s; %d channels ended, its region is removed", name, why, closed)


async def silent(own: shmem.Shmem | None, config: shmem.Shmem | None = None) -> str:
    """Why a running device's doorbell does not ring; "" where it does, or is not wanted."""
    if own is None or not own.server:
        return "its doorbell comes with the next power cycle" if own and config and config.server else ""
    why = await call(doorbell.check, doorbell.control_of(own.server))
    return f"its doorbell is out of use until the next power cycle ({why}); guests send packets instead" if why else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def text_of(element: etree._Element) -> str:
    return etree.tostring(element, encoding="unicode")
