# SPDX-License-Identifier: Apache-2.0
"""The part of oriond that follows libvirt, and the commands about domains.

Events and the hook's datagrams only say which domain to look at; what is done follows from libvirt's state at that
moment, so that a lost or doubled event does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from orion_virt import libvirt_uri, paths
from orion_virt.config import ServerConfig
from orion_virt.domain import address, metadata, shmem
from orion_virt.domain.connection import CONFIG, Connection, View
from orion_virt.errors import Conflict, NotFound, OrionError, ProtocolError, Unavailable
from orion_virt.region.regions import Regions
from orion_virt.server import settings
from orion_virt.server.contract import Command, Host
from orion_virt.server.equip import Equipper, call, silent, text_of
from orion_virt.server.reach import guest_rows, people_addresses
from orion_virt.server.remembered import Remembered
from orion_virt.units import MIB, power_of_two_at_least

_log = logging.getLogger("orion.domains")
RETRY_SECONDS = 2.0
AGAIN_SECONDS = 10.0
HOLD_SECONDS = 3600


class Domains:
    """Follows libvirt for the daemon; see contract.DomainsPart."""

    def __init__(self, config: ServerConfig, regions: Regions, host: Host) -> None:
        self._config = config
        self._regions = regions
        self._host = host
        self._uri = libvirt_uri.chosen(config.libvirt_uri)
        self._equipper = Equipper(config, regions, host, Remembered.load(paths.state() / "domains.json"))
        self._conn: Connection | None = None
        self._lost = asyncio.Event()
        self._dirty: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._one = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._why_down = "not connected yet"
        self.commands: dict[str, Command] = {"domains": self._list, "attach": self._attach, "detach": self._detach,
                                             "names": self._names, "set": self._set,
                                             "hold": self._hold}

    @property
    def _disabled(self) -> str:
        if not self._config.enable_kvm:
            return "[server] enable_kvm is false"
        return "" if self._config.enable_shm else "[server] enable_shm is false"

    async def start(self) -> None:
        if self._disabled:
            _log.info("libvirt is not followed: %s", self._disabled)
            return
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._work())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    async def reconfigure(self, config: ServerConfig) -> None:
        self._config = config
        self._equipper.reconfigure(config)
        if self._conn is not None:
            await self._look_at_all(self._conn)

    def hook(self, op: str, uuid: str, name: str) -> None:
        _log.debug("hook: %s of %s (%s)", op, name, uuid)
        self._look_at(uuid)

    def look_again(self, uuid: str) -> None:
        self._look_at(uuid)

    def addresses_changed(self) -> None:
        for uuid in self._equipper.memory.lives:
            self._look_at(uuid)

    def links_changed(self) -> None:
        for uuid in self._equipper.reach.in_doubt():
            self._look_at(uuid)

    def neighbour(self, mac: str) -> None:
        for uuid in self._equipper.reach.concerned_by(mac):
            self._look_at(uuid)

    # ---- following ----

    def _look_at(self, uuid: str) -> None:
        if uuid not in self._queued:
            self._queued.add(uuid)
            self._dirty.put_nowait(uuid)

    async def _look_at_all(self, conn: Connection) -> int:
        """Queues every domain that libvirt or we know; returns how many libvirt has. Raises OrionError."""
        listed = await call(conn.uuids)
        for uuid in {*listed, *self._equipper.memory.lives}:
            self._look_at(uuid)
        return len(listed)

    async def _follow(self) -> None:
        """Connects, looks at everything, waits until the connection is gone, and again."""
        loop = asyncio.get_running_loop()
        said = ""
        while True:
            self._lost.clear()
            try:
                self._conn = await call(Connection.open, self._uri,
                                        lambda uuid: loop.call_soon_threadsafe(self._look_at, uuid),
                                        lambda: loop.call_soon_threadsafe(self.addresses_changed),
                                        lambda: loop.call_soon_threadsafe(self._lost.set))
                nr_listed = await self._look_at_all(self._conn)
            except OrionError as error:
                self._disconnect(str(error))
                if said != str(error):
                    said = str(error)
                    _log.warning("%s; trying again every %g s", said, RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            said = ""
            _log.info("libvirt %s: %d domains", self._uri, nr_listed)
            await self._lost.wait()
            _log.warning("libvirt %s is gone; domains go on, we connect again when it is back", self._uri)
            self._disconnect("libvirt went away")

    def _disconnect(self, why: str) -> None:
        self._why_down = why
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    async def _work(self) -> None:
        while True:
            uuid = await self._dirty.get()
            self._queued.discard(uuid)
            if self._conn is None:
                continue  # everything is looked at when libvirt is back
            try:
                async with self._one:
                    await self._reconcile(self._conn, uuid)
            except OrionError as error:
                self._equipper.problem(uuid, uuid, str(error))
            except Exception:  # the outermost frame: one domain must not end the service of the others
                _log.exception("domain %s: something unforeseen", uuid)

    async def _reconcile(self, conn: Connection, uuid: str) -> None:
        view: View | None = await call(conn.view, uuid)
        self._equipper.problems.pop(uuid, None)
        if view is None:
            self._host.ceilings.drop(uuid)
            await self._equipper.end(uuid, uuid, "gone")
            self._equipper.memory.forget(uuid)
            return
        if not view.active:
            self._host.ceilings.drop(uuid)
            await self._equipper.end(uuid, view.name, "stopped")
        elif view.live is not None:  # before the region's header lets anybody in
            limits = metadata.ceiling(metadata.read(view.live))
            self._host.ceilings.put(uuid, limits, [nic.mac for nic in address.interfaces(view.live)])
        try:
            if view.config is not None:
                await self._equipper.define(conn, view)
            if view.active:
                await self._equipper.run(conn, view)
        except OrionError as error:
            self._equipper.problem(uuid, view.name, str(error))
            if view.active and isinstance(error, Unavailable):
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._look_at, uuid)

    # ---- commands ----

    def _connected(self) -> Connection:
        if self._disabled:
            raise Conflict(f"oriond does not follow libvirt: {self._disabled}",
                           hint="Change server.conf, restart oriond")
        if self._conn is None:
            raise Unavailable(f"oriond has no connection to libvirt: {self._why_down}",
                              hint="See that libvirtd (or virtqemud) runs; oriond connects by itself")
        return self._conn

    async def _find(self, conn: Connection, request: dict[str, Any]) -> View:
        name = request.get("domain")
        if not isinstance(name, str) or not name:
            raise NotFound("no domain is named", hint='Send {"domain": "NAME"}')
        uuid = await call(conn.resolve, name)
        view = await call(conn.view, uuid)
        if view is None:
            raise NotFound(f"there is no domain {name!r}",
                           hint="`virsh list --all` shows the domains that libvirt knows")
        return view

    async def _names(self, request: dict[str, Any]) -> dict[str, Any]:
        """For completion and `top`: nothing but the names."""
        found: dict[str, str] = await call(self._connected().names)
        return {"names": sorted(found.values()), "by_uuid": found}

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        conn = self._connected()
        found = []
        for uuid in await call(conn.uuids):
            view = await call(conn.view, uuid)
            if view is not None:
                found.append(await self._describe(conn, view))
        return {"domains": sorted(found, key=lambda d: d["name"]), "used_mib": self._regions.used_bytes // MIB,
                "budget_mib": self._regions.budget_bytes // MIB}

    async def _describe(self, conn: Connection, view: View) -> dict[str, Any]:
        region = self._regions.find(view.uuid) if view.active else None
        config = None if view.config is None else shmem.find_own(view.config)
        live = None if view.live is None else shmem.find_own(view.live)
        decision = self._equipper.decide(view.xml)
        rows = await guest_rows(conn, view.live) if view.live is not None else []
        return {
            "name": view.name, "uuid": view.uuid, "state": "running" if view.active else "shut off",
            "device": "live" if live else "defined" if config else "none",
            "size_mib": (live or config).size_bytes // MIB if (live or config) else 0,  # type: ignore[union-attr]
            "server_addrs": list(region.server_addrs) if region else [],
            "controller_addr": region.controller_addr if region else "",
            "addresses": people_addresses(rows), "domifaddr": rows, **self._equipper.reach.describe(view.uuid),
            "channels": len(self._host.channels(view.uuid)), "usage": self._host.usage_of(view.uuid),
            "wanted": decision.wanted, "reason": decision.reason,
            "doorbell": bool((live or config) and (live or config).server),  # type: ignore[union-attr]
            "problems": await self._problems(view), **self._settings(view),
        }

    async def _problems(self, view: View) -> list[str]:
        devices = [None if xml is None else shmem.find_own(xml) for xml in (view.live, view.config)]
        errors = {e: "" for xml in (view.live, view.config) if xml is not None for e in metadata.read(xml).errors}
        known = await silent(*devices) or self._equipper.problems.get(view.uuid)
        return [p for p in (known, *self._equipper.reach.problems(view.uuid), *errors) if p]

    @staticmethod
    def _settings(view: View) -> dict[str, Any]:
        """Those in force, and those of the next start (None: there is none, the domain is transient)."""
        return {"settings": metadata.values_of(view.xml if view.live is None else view.live),
                "next_settings": None if view.config is None else metadata.values_of(view.config)}

    async def _attach(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"domain", "size_mib"?} -> what was done to the definition and to the running domain."""
        conn = self._connected()
        async with self._one:
            view = await self._find(conn, request)
            self._permit(view)
            size = self._size(request) or self._equipper.wanted_bytes(view.xml)
            config = await self._attach_config(conn, view, size, "size_mib" in request)
            live = await self._attach_live(conn, view, size)
        return {"domain": view.name, "uuid": view.uuid, "size_mib": size // MIB, "config": config, "live": live}

    def _permit(self, view: View) -> None:
        """An explicit attach takes back an earlier detach, and nothing else."""
        memory = self._equipper.memory
        memory.detached.discard(view.uuid)
        memory.returned.pop(view.uuid, None)
        memory.save()
        decision = self._equipper.decide(view.xml)
        if not decision.wanted and "attach = marked" not in decision.reason:
            raise Conflict(f"{view.name} is not attached: {decision.reason}", hint="Change that first")

    @staticmethod
    def _size(request: dict[str, Any]) -> int:
        size = request.get("size_mib")
        if size is None:
            return 0
        if not isinstance(size, int) or not 2 <= size <= 1 << 20:
            raise Conflict(f"size_mib {size!r} is not valid", hint="Accepted: 2 to 1048576 (MiB)")
        return power_of_two_at_least(size * MIB)

    async def _attach_config(self, conn: Connection, view: View, size: int, sized: bool) -> str:
        if view.config is None:
            return "transient domain"
        own, element = shmem.find_own(view.config), shmem.own_element(view.config)
        if sized or not metadata.read(view.config).marked and self._config.libvirt_attach == "marked":
            await self._mark(conn, view, size if sized else None)
        if own is not None and element is not None:
            if not sized or own.size_bytes == size:
                self._equipper.memory.equipped.add(view.uuid)
                return "already attached"
            await call(conn.detach_device, view.uuid, text_of(element), CONFIG)
        await self._equipper.add_to_definition(conn, view, size)
        self._equipper.memory.save()
        return "resized" if own is not None else "attached"

    async def _mark(self, conn: Connection, view: View, size: int | None) -> None:
        """Writes size and marking where the owner's other settings are."""
        assert view.config is not None
        values = metadata.values_of(view.config) | {"enabled": "yes"}
        if size:
            values["region"] = str(size // MIB)
        await call(conn.set_metadata, view.uuid, metadata.fragment(values), CONFIG)

    async def _attach_live(self, conn: Connection, view: View, size: int) -> str:
        if view.live is None:
            return "not running"
        own = shmem.find_own(view.live)
        if own is not None:
            has = f"has {own.size_bytes // MIB} MiB until it shuts down"
            return "already attached" if own.size_bytes == size else has
        got = await self._equipper.plug(conn, view, size)
        if not got:
            return self._equipper.problems.get(view.uuid, "needs a power cycle")
        fresh = await call(conn.view, view.uuid)
        if fresh is not None and fresh.live is not None:
            await self._equipper.run(conn, fresh)
        return f"attached, {got // MIB} MiB"

    async def _hold(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"domain", "seconds", "force"?}: for a save or migration, which saves no GPU's state; 0 seconds ends it."""
        seconds = request.get("seconds")
        if not isinstance(seconds, (int, float)) or not 0 <= seconds <= HOLD_SECONDS:
            raise ProtocolError(f"seconds = {seconds!r} is not valid", hint=f"Accepted: 0 to {HOLD_SECONDS}")
        view = await self._find(self._connected(), request)
        found = self._host.processes_of(view.uuid)
        if seconds and found and not request.get("force"):
            who = ", ".join(f"{p['comm']} (pid {p['pid']})" for p in found[:8])
            count = f"{len(found)} CUDA process{'' if len(found) == 1 else 'es'}"
            raise Conflict(f"{count} of {view.name} would end: {who}",
                           hint="What is on the GPU cannot be saved or migrated. End them first, or say --force")
        await self._host.hold(view.uuid, seconds)
        return {"domain": view.name, "uuid": view.uuid, "uri": self._uri,
                "state": "running" if view.active else "shut off", "ended": found if seconds else []}

    async def _set(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"domain", "values"?, "unset"?, "live"?, "config"?} -> the settings, and when each change takes effect."""
        conn = self._connected()
        async with self._one:
            view = await self._find(conn, request)
            change = await settings.write(conn, view, request)
            await self._reconcile(conn, view.uuid)
            view = await self._find(conn, {"domain": view.uuid})
        return {"domain": view.name, "uuid": view.uuid, **self._settings(view),
                "effects": settings.effects(view, change), "problems": await self._problems(view)}

    async def _detach(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"domain", "persistent"?}: unplugs from the running domain; persistent: from the definition too, for good."""
        conn = self._connected()
        async with self._one:
            view = await self._find(conn, request)
            persistent = bool(request.get("persistent"))
            if not view.active and not persistent:
                raise Conflict(f"{view.name} is not running", hint="--persistent takes the device out of its definition")
            config = "unchanged: it comes back at the next start"
            if persistent:
                config = await self._detach_config(conn, view)
            live = "not running"
            if view.active:
                live = "detached" if await self._equipper.unplug(conn, view) else "was not attached"
        return {"domain": view.name, "uuid": view.uuid, "config": config, "live": live}

    async def _detach_config(self, conn: Connection, view: View) -> str:
        memory = self._equipper.memory
        memory.detached.add(view.uuid)
        memory.forget(view.uuid)
        memory.save()
        element = None if view.config is None else shmem.own_element(view.config)
        if element is None:
            return "was not attached"
        with contextlib.suppress(NotFound):
            await call(conn.detach_device, view.uuid, text_of(element), CONFIG)
        return "detached"
