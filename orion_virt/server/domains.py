# SPDX-License-Identifier: Apache-2.0
"""The part of oriond that follows libvirt, and the commands about domains.

Events and the hook's datagrams only say which domain to look at; what is done follows from libvirt's state at that
moment, so that a lost or doubled event does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

from orion_virt import libvirt_uri, paths
from orion_virt.config import ServerConfig
from orion_virt.domain import metadata, shmem
from orion_virt.domain.connection import CONFIG, Connection, View
from orion_virt.errors import Conflict, NotFound, OrionError, ProtocolError, QuotaExceeded, Unavailable
from orion_virt.region.regions import Regions
from orion_virt.server import libvirt_hook, settings, starting
from orion_virt.server.contract import Command, Host
from orion_virt.server.equip import Equipper, call, silent, text_of
from orion_virt.server.reach import guest_rows, people_addresses
from orion_virt.server.remembered import Remembered
from orion_virt.server.waiting import Waiting
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
        self._waiting = Waiting(config.shm_path_base, regions, self._equipper.memory)
        self._withdrawn = False
        self._conn: Connection | None = None
        self._lost = asyncio.Event()
        self._dirty: set[str] = set()
        self._looks: dict[str, asyncio.Task[None]] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._following: asyncio.Task[None] | None = None
        self._why_down = "not connected yet"
        self.commands: dict[str, Command] = {
            "domains": self._list, "attach": self._attach, "detach": self._detach, "reconcile": self._look_at_all,
            "uninstall": self._uninstall, "names": self._names, "set": self._set, "hold": self._hold}

    @property
    def _disabled(self) -> str:
        if not self._config.enable_kvm:
            return "[server] enable_kvm is false"
        return "" if self._config.enable_shm else "[server] enable_shm is false"

    async def start(self) -> None:
        if self._disabled:
            _log.info("libvirt is not followed: %s", self._disabled)
            return
        if not libvirt_hook.is_installed():
            _log.warning("libvirt has no hook of ours: regions are made ahead for domains that oriond has seen; "
                         "`orion-virt hook install` makes them at each start")
        elif stale := libvirt_hook.stale(self._config):
            _log.warning("the hook does not know server.conf as it is (%s): run `orion-virt hook install`", "; ".join(stale))
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        tasks = [*self._looks.values(), *([self._following] if self._following else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._conn is not None:
            self._conn.close()
            self._conn = None
        self._equipper.watch.close()

    async def reconfigure(self, config: ServerConfig) -> None:
        self._config = config
        self._equipper.reconfigure(config)
        if self._conn is not None:
            await self._look_at_every(self._conn)

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
        """Soon, beside other domains: one that libvirt is busy with keeps nobody else waiting."""
        if self._conn is None or self._withdrawn:
            return  # everything is looked at when libvirt is back
        self._dirty.add(uuid)
        if uuid not in self._looks:
            self._looks[uuid] = asyncio.create_task(self._look(uuid))

    def _one(self, uuid: str) -> asyncio.Lock:
        """Held while something is done to this domain."""
        return self._locks.setdefault(uuid, asyncio.Lock())

    def _rebooted(self, uuid: str) -> None:
        self._equipper.rebooted(uuid)
        self._look_at(uuid)

    async def _look_at_every(self, conn: Connection) -> int:
        """Queues every domain that libvirt or we know; returns how many libvirt has. Raises OrionError."""
        listed = await call(conn.uuids)
        for uuid in {*listed, *self._equipper.memory.lives}:
            self._look_at(uuid)
        return len(listed)

    async def _follow(self) -> None:
        """Connects, looks at everything, waits until the connection is gone, and again."""
        loop = asyncio.get_running_loop()

        def from_thread(function: Callable[..., None]) -> Callable[..., None]:
            def hand_over(*args: Any) -> None:
                with contextlib.suppress(RuntimeError):  # we have ended before libvirt's thread
                    loop.call_soon_threadsafe(function, *args)

            return hand_over

        said = ""
        while True:
            self._lost.clear()
            try:
                self._conn = await call(Connection.open, self._uri, from_thread(self._look_at),
                                        from_thread(self.addresses_changed), from_thread(self._rebooted),
                                        from_thread(self._lost.set))
                files, listed = self._waiting.found(), await call(self._conn.uuids)
                self._waiting.sweep(files, await call(self._conn.running), set(listed))
                nr_listed = await self._look_at_every(self._conn)
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

    async def _look(self, uuid: str) -> None:
        """Until nobody has asked for another look meanwhile."""
        try:
            while uuid in self._dirty:
                self._dirty.discard(uuid)
                async with self._one(uuid):
                    if self._conn is not None:
                        await self._reconcile(self._conn, uuid)
        except OrionError as error:
            self._equipper.problem(uuid, uuid, str(error))
        except Exception:  # the outermost frame: one domain must not end the service of the others
            _log.exception("domain %s: something unforeseen", uuid)
        finally:
            del self._looks[uuid]

    async def _reconcile(self, conn: Connection, uuid: str) -> None:
        view: View | None = await call(conn.view, uuid)
        self._equipper.problems.pop(uuid, None)
        if view is None:
            self._host.ceilings.drop(uuid)
            await self._equipper.end(uuid, uuid, "gone", guest_gone=True)
            self._waiting.drop(uuid)
            self._equipper.memory.forget(uuid)
            return
        if not view.active:
            self._host.ceilings.drop(uuid)
            await self._equipper.end(uuid, view.name, "stopped", guest_gone=True)
            self._equipper.memory.end_run(uuid)
        else:
            self._equipper.limit(view)
        try:
            if view.config is not None:
                await self._equipper.define(conn, view)
            if view.active:
                await self._equipper.run(conn, view)
            else:
                await self._prepare(conn, uuid)
        except OrionError as error:
            self._equipper.problem(uuid, view.name, str(error))
            if view.active and isinstance(error, (Unavailable, QuotaExceeded)):  # others may make room
                asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._look_at, uuid)

    async def _prepare(self, conn: Connection, uuid: str) -> None:
        """A domain that is shut off, as its definition is by now."""
        view: View | None = await call(conn.view, uuid)
        if view is not None and not view.active:
            self._waiting.prepare(view)

    # ---- commands ----

    async def _look_at_all(self, request: dict[str, Any]) -> dict[str, Any]:
        """Every domain is looked at again, soon."""
        return {"domains": await self._look_at_every(self._connected())}

    async def _uninstall(self, request: dict[str, Any]) -> dict[str, Any]:
        """Every domain becomes what it was without us; oriond does nothing to domains from then on."""
        from orion_virt.server.withdraw import withdraw  # only here: it knows the daemon

        conn = self._connected()
        self._withdrawn = True
        await asyncio.gather(*self._looks.values(), return_exceptions=True)
        return {"restored": await withdraw(conn, self._equipper, self._waiting), "pid": os.getpid()}

    def _connected(self) -> Connection:
        if self._disabled:
            raise Conflict(f"oriond does not follow libvirt: {self._disabled}",
                           hint="Change server.conf, restart oriond")
        if self._conn is None:
            raise Unavailable(f"oriond has no connection to libvirt: {self._why_down}",
                              hint="See that libvirtd (or virtqemud) runs; oriond connects by itself")
        return self._conn

    async def _resolve(self, conn: Connection, request: dict[str, Any]) -> str:
        name = request.get("domain")
        if not isinstance(name, str) or not name:
            raise NotFound("no domain is named", hint='Send {"domain": "NAME"}')
        return str(await call(conn.resolve, name))

    async def _find(self, conn: Connection, request: dict[str, Any]) -> View:
        view: View | None = await call(conn.view, await self._resolve(conn, request))
        if view is None:
            raise NotFound(f"there is no domain {request['domain']!r}",
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
            "proven": live is not None and self._proven(view.uuid),
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
        """{"domain" or "xml", "size_mib"?, "start"?, "once"?} -> what was done to definition and running domain.

        "xml": a transient domain, which is started. "once": its definition is left alone.
        """
        conn = self._connected()
        if "xml" in request:
            return await self._attach_transient(conn, request)
        async with self._one(await self._resolve(conn, request)):
            view = await self._find(conn, request)
            once = bool(request.get("once"))
            self._permit(view, once)
            size = self._size(request) or self._equipper.wanted_bytes(view.xml)
            config = "unchanged: for this run only"
            if not once:
                config = await self._attach_config(conn, view, size, "size_mib" in request)
            if request.get("start"):
                live = await starting.start(conn, self._equipper, view, size)
            else:
                live = await self._attach_live(conn, view, size)
        return {"domain": view.name, "uuid": view.uuid, "size_mib": size // MIB, "config": config, "live": live,
                "proven": self._proven(view.uuid)}

    async def _attach_transient(self, conn: Connection, request: dict[str, Any]) -> dict[str, Any]:
        uuid, xml = starting.with_device(self._equipper, str(request["xml"]), self._size(request))
        async with self._one(uuid):
            name, live = await starting.start_transient(conn, self._equipper, uuid, xml)
        size = self._regions.get(uuid).size_bytes
        return {"domain": name, "uuid": uuid, "size_mib": size // MIB, "config": "transient domain", "live": live,
                "proven": False}

    def _proven(self, uuid: str) -> bool:
        region = self._regions.find(uuid)
        return region is not None and region.is_proven

    def _permit(self, view: View, once: bool) -> None:
        """An explicit attach takes back an earlier detach (for this run only: passes it by), and nothing else."""
        memory = self._equipper.memory
        if not once:
            memory.detached.discard(view.uuid)
            memory.returned.pop(view.uuid, None)
            memory.save()
        decision = self._equipper.decide(view.xml)
        if not decision.wanted and not any(word in decision.reason for word in ("attach = marked", "detached for good")):
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
        if got < size and view.config is not None:
            return f"attached, {got // MIB} MiB now and {size // MIB} MiB from the next start on"
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
        async with self._one(await self._resolve(conn, request)):
            view = await self._find(conn, request)
            change = await settings.write(conn, view, request)
            await self._reconcile(conn, view.uuid)
            view = await self._find(conn, {"domain": view.uuid})
        return {"domain": view.name, "uuid": view.uuid, **self._settings(view),
                "effects": settings.effects(view, change), "problems": await self._problems(view)}

    async def _detach(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"domain", "persistent"?}: unplugs from the running domain; persistent: from the definition too, for good."""
        conn = self._connected()
        async with self._one(await self._resolve(conn, request)):
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
        return "detached" if await self._equipper.take_from_definition(conn, view) else "was not attached"
