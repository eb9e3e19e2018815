# SPDX-License-Identifier: Apache-2.0
"""oriond: puts the parts together, starts them in order and stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import uuid as uuids
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from orion_virt import config as configs
from orion_virt import credential, layout, libvirt_uri, paths
from orion_virt.config import LogConfig, ServerConfig, join_addr, split_addr
from orion_virt.domain import host_network, metadata
from orion_virt.domain.netlink import Watch
from orion_virt.errors import Conflict, OrionError, ProtocolError, Unavailable
from orion_virt.gpu import snapshot
from orion_virt.gpu.inventory import Inventory
from orion_virt.region import huge
from orion_virt.region.regions import Regions
from orion_virt.server.accounts import Accounts
from orion_virt.server.ceilings import Ceilings
from orion_virt.server.channels import Channels
from orion_virt.server.contract import Command, DomainsPart
from orion_virt.server.embedded import EmbeddedController, is_loopback
from orion_virt.server.errand import Errands
from orion_virt.server.guests import Guests
from orion_virt.server.listening import Listening, is_here
from orion_virt.server.mailbox import Mailboxes
from orion_virt.server.metrics import Exporter
from orion_virt.server.monitoring import Monitoring
from orion_virt.server.names import Names
from orion_virt.server.reload import merge
from orion_virt.server.report import report
from orion_virt.server.sensors import sensors_of
from orion_virt.server.sockets import ControlSocket, HookSocket
from orion_virt.server import identity, usage
from orion_virt.server.systemd import notify, reloading
from orion_virt.server.usage import Usage
from orion_virt.server.workers import Pool
from orion_virt.units import MIB

_BEAT_SECONDS = 10.0
_CONTROLLER_SECONDS = 15.0  # for our own controller to start
LOOPBACK = "127.0.0.1"
_WILDCARDS = ("0.0.0.0", "::")
_PAGEABLE_ACCESS = 88  # CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS
_log = logging.getLogger("orion.daemon")


def _warn_of_pageable_access(inventory: Inventory) -> None:
    if not inventory.simulated and any(gpu.attributes.get(_PAGEABLE_ACCESS) for gpu in inventory.gpus):
        _log.warning(
            "the card reads ordinary host memory (PAGEABLE_MEMORY_ACCESS): a guest's kernel can read its worker's heap; "
            "`options nvidia-uvm uvm_disable_hmm=1` in /etc/modprobe.d switches it off"
        )


class Lock:
    """One oriond for each run directory."""

    def __init__(self) -> None:
        directory = paths.run()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(directory / "oriond.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise Unavailable(
                f"{directory} cannot be used: {error.strerror}", hint="Run as root, or set ORION_RUN to a directory of yours"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise Conflict(
                f"another oriond (pid {pid}) runs with {directory}", hint="Stop it, or set ORION_RUN to another directory"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._fd)


class Daemon:
    """The whole of oriond, in one event loop. Also the `Host` of the libvirt part."""

    def __init__(self, config: ServerConfig, inventory: Inventory, secret: str,
                 controller: EmbeddedController | None = None) -> None:
        self.config = config
        self.inventory = inventory
        self.boot_id = os.urandom(16)
        snap = snapshot.build(inventory, config.vgpu_count)
        self.regions = Regions(config, self.boot_id, snap, paths.state() / "regions.json")
        self.accounts = Accounts(config.controller_addr, secret, self._registration, config.controller_tls_ca,
                                 lambda: report(self))
        self.pool = Pool(inventory.driver_path, not inventory.simulated if config.confine is None else config.confine)
        self.ceilings = Ceilings(paths.state() / "ceilings.json")
        sessions = paths.log() / "session"
        self.channels_part = Channels(config, self.regions, self.accounts, self.pool, sessions, self.ceilings)
        self.usage = Usage(inventory, self.channels_part, sensors_of(inventory))
        self.guests = Guests(config.listen_port, self.channels_part, self.usage, snap, self.boot_id)
        self.listening = Listening(self.guests, controller, self.accounts.renew, self._on_listening)
        self._has_controller = controller is not None
        self.network = Watch(self._on_addresses, self._on_links, self._on_neighbour)
        self.errands = Errands(config.controller_addr, secret, config.controller_tls_ca)
        self.mailboxes = Mailboxes(
            self.regions, {layout.MAIL_SERVER: self.guests.take, layout.MAIL_CONTROLLER: self.errands.take}
        )
        self.channels_part.mail_place = self.mailboxes.place
        self.domains: DomainsPart | None = None
        self.names = Names(lambda: self.commands.get("names"))
        self.monitoring = Monitoring(config, Exporter(self))
        self.commands: dict[str, Command] = {
            "ping": self._ping,
            "status": self._status,
            "processes": self._processes,
            "region-create": self._region_create,
            "region-remove": self._region_remove,
        }
        self.control = ControlSocket(paths.control_socket(), self.commands)
        self.hook = HookSocket(paths.hook_socket(), self._on_hook)
        self._build = paths.build_id()  # as it was when we started
        self._stop = asyncio.Event()
        self._for_good = False
        self._own_name = ""
        self._every: list[str] = []  # this host's addresses, asked for when they are needed
        self._beat: asyncio.Task[None] | None = None
        libvirt_uri.chosen(config.libvirt_uri)  # a variable that cannot be served is said now
        identity.check(config.worker_user)  # says now, not at the first client, that there is no such user

    # ---- life ----

    async def run(self, reread: Callable[[], ServerConfig], relog: Callable[[LogConfig], None]) -> None:
        """Serves until SIGTERM or SIGINT. At SIGHUP asks `reread` for the configuration; both may raise OrionError."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._stop_for_good)
        hangup = asyncio.Event()
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        reloads = None
        try:
            await self.start()
            reloads = asyncio.create_task(self._reload_at(hangup, reread, relog), name="reload")
            notify("READY=1")
            await self._stop.wait()
        finally:
            if reloads is not None:
                reloads.cancel()
                await asyncio.gather(reloads, return_exceptions=True)
            await self.stop(leave=not self._for_good)

    def _stop_for_good(self) -> None:
        self._for_good = True
        self._stop.set()

    async def start(self) -> None:
        self.regions.restore()
        self.channels_part.start()
        await self.channels_part.resume(self.mailboxes.resume)
        self.listening.start(self.config.bind_addr or (LOOPBACK,))
        self.network.start()
        for region in self.regions:  # clients may be on their way to what their header says
            self.listening.want(region.uuid, [ip for ip in _ips(region.server_addrs) if is_here(ip)])
        self.pool.warm_up()
        await self.usage.start()
        self.accounts.start()
        if self._has_controller:
            await self.accounts.settled(_CONTROLLER_SECONDS)  # guests may come the moment that they can
        self._beat = asyncio.create_task(self._beat_forever(), name="region heartbeat")
        if self.config.enable_shm:
            self.mailboxes.start()
        if self.config.libvirt_attach != "off":
            await self._start_domains()
        self.hook.start()
        self.monitoring.start()
        await self.control.start()
        _log.info("%s", huge.describe(Path(self.config.shm_path_base)))
        what = "simulated GPU" if self.inventory.simulated else "NVIDIA GPU"
        _warn_of_pageable_access(self.inventory)
        _log.info("oriond is ready: %d %s, %d vGPU each", len(self.inventory.gpus), what, self.config.vgpu_count)

    async def _reload_at(self, hangup: asyncio.Event, reread: Callable[[], ServerConfig],
                         relog: Callable[[LogConfig], None]) -> None:
        while True:
            await hangup.wait()
            hangup.clear()
            reloading()
            try:
                wanted = await asyncio.to_thread(reread)
                identity.check(wanted.worker_user)
                relog(wanted.log)
                await self._reconfigure(wanted)
            except OrionError as error:
                _log.error("not reloaded, the former configuration goes on: %s", error)
            notify("READY=1")

    async def _reconfigure(self, wanted: ServerConfig) -> None:
        self.config, at_once, later = merge(self.config, wanted)
        self.regions.reconfigure(self.config)
        self.channels_part.reconfigure(self.config)
        await self.monitoring.reconfigure(self.config)
        for warning in wanted.warnings:
            _log.warning("%s", warning)
        _log.info("%s is reloaded: %s", wanted.file, ", ".join(at_once) or "nothing that takes effect at once has changed")
        if later:
            _log.warning("a restart of oriond, over which its clients go on, is needed for %s", ", ".join(later))
        if self.domains is not None:
            await self.domains.reconfigure(self.config)

    async def _start_domains(self) -> None:
        from orion_virt.server.domains import Domains  # only here: libvirt need not be installed otherwise

        self.domains = Domains(self.config, self.regions, self)
        self.commands.update(self.domains.commands)
        await self.domains.start()

    async def stop(self, leave: bool = False) -> None:
        """Ends workers and takes the sockets away; regions stay, their domains may be running. ``leave``: workers go on,
        for the next daemon."""
        _log.info("stopping")
        notify("STOPPING=1")
        await self.control.stop()
        await self.monitoring.stop()
        self.hook.stop()
        self.network.stop()
        if self.domains is not None:
            await self.domains.stop()
        await self.listening.stop()
        await self.guests.stop()
        await self.errands.stop()
        left = await self.channels_part.stop("oriond is stopping", leave)
        await self.mailboxes.stop(left)
        await self.pool.stop()
        await self.accounts.stop(for_good=not len(self.channels_part))
        await self.usage.stop()  # now nobody looks any more
        if self._beat is not None:
            self._beat.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beat
        self.regions.close()

    async def _beat_forever(self) -> None:
        while True:
            try:
                self.regions.beat()
            except OSError as error:
                _log.warning("a region's header cannot be written: %s", error)
            await asyncio.sleep(_BEAT_SECONDS)

    # ---- Host ----

    def listen_for(self, who: str, addresses: Iterable[str]) -> Mapping[str, OrionError]:
        return self.listening.want(who, addresses)

    def listening_problems(self, who: str) -> list[str]:
        return self.listening.problems(who)

    def server_addrs(self) -> list[str]:
        return [join_addr(ip, self.config.listen_port) for ip in self.guests.addresses()]

    def _dialled(self) -> list[str]:
        """IP addresses at which we can be reached; a wildcard is none, but stands for all of its family."""
        listening = self.guests.addresses()
        wildcards = {6 if ip == "::" else 4 for ip in listening if ip in _WILDCARDS}
        if wildcards and not self._every:
            self._every = host_network.every_address()
        further = [ip for ip in self._every if (6 if ":" in ip else 4) in wildcards]
        return [ip for ip in listening if ip not in _WILDCARDS] + further

    def controller_addr(self, server_addr: str) -> str:
        """A local controller is reached where the server is; another one where it was configured."""
        pair = split_addr(self.config.controller_addr, configs.DEFAULT_CONTROLLER_PORT)
        here = split_addr(server_addr, self.config.listen_port)
        assert pair is not None
        host, port = pair
        local = host in _WILDCARDS or is_loopback(host)
        return join_addr(here[0] if local and here is not None else host, port)

    def close_channels(self, uuid: str, reason: str, guest_gone: bool = False) -> int:
        return len(self.channels_part.close(str(uuids.UUID(uuid)), reason, guest_gone))

    def channels(self, uuid: str) -> list[dict[str, Any]]:
        return [channel.describe() for channel in self.channels_part.of(str(uuids.UUID(uuid)))]

    def usage_of(self, uuid: str) -> dict[str, Any]:
        return usage.total(self.processes_of(uuid))

    def processes_of(self, uuid: str) -> list[dict[str, Any]]:
        return [channel.describe() for channel in self.channels_part.owned(uuid)]

    async def hold(self, uuid: str, seconds: float) -> None:
        for channel in self.channels_part.hold(uuid, seconds):
            try:
                await asyncio.wait_for(channel.ended.wait(), 10)
            except asyncio.TimeoutError:
                raise Unavailable(f"worker {channel.worker.pid} does not end", hint="See server.log, try again") from None

    # ---- what the controller is told ----

    def _registration(self) -> dict[str, Any]:
        return {
            "name": self._name(),
            "boot": self.boot_id.hex(),
            "port": self.config.listen_port,
            "addresses": self._dialled(),
            "gpus": [
                {
                    "index": gpu.index,
                    "name": gpu.name,
                    "total_bytes": gpu.total_bytes,
                    "base_bytes": gpu.base_bytes,
                    "slots": self.config.vgpu_count,
                }
                for gpu in self.inventory.gpus
            ],
            "domains": [{"uuid": region.uuid, "owner": credential.owner_key(region.identity.token)}
                        for region in self.regions if region.identity is not None],
            "allocations": self.channels_part.allocations(),
        }

    def _name(self) -> str:
        """The address under which the controller knows us; the same for as long as we live."""
        if not self._own_name:
            towards = _address_towards(self.config.controller_addr)
            named = [ip for ip in self.config.bind_addr if ip not in _WILDCARDS]
            self._own_name = self.config.pool_addr or (named[0] if named else towards)
        return self._own_name

    # ---- commands ----

    async def _ping(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid(), "boot": self.boot_id.hex()}

    async def _status(self, request: dict[str, Any]) -> dict[str, Any]:
        channels = [channel.describe() for channel in self.channels_part.of(None)]
        return {
            "pid": os.getpid(),
            "build": self._build,
            "simulated": self.inventory.simulated,
            "driver": self.inventory.version_text or str(self.inventory.driver_version),
            "gpus": [{"name": gpu.name, "total_bytes": gpu.total_bytes} for gpu in self.inventory.gpus],
            "vgpu_count": self.config.vgpu_count,
            "server_addrs": self.server_addrs(),
            "port": self.config.listen_port,
            **{name: getattr(self.config, name) for name in ("enable_shm", "enable_rdma", "enable_kvm")},
            "controller_addr": self.config.controller_addr,
            "registered": self.accounts.is_registered,
            "metrics": {"addr": self.config.metrics_addr, "problem": self.monitoring.problem},
            "channels": channels,
            "keep_workers": self.config.keep_workers,
            "protocol": layout.PROTOCOL,
            "workers": len(channels),
            "warm_workers": self.pool.nr_warm,
            "regions": [self.regions.inspect(region.uuid) for region in self.regions],
            "shm_used_mib": self.regions.used_bytes // MIB,
            "shm_budget_mib": self.regions.budget_bytes // MIB,
            "huge_pages": huge.policy(Path(self.config.shm_path_base)),
            "fds": len(os.listdir("/proc/self/fd")) - 1,
        }

    async def _processes(self, request: dict[str, Any]) -> dict[str, Any]:
        """Every guest process with what it has and does, and the cards' load."""
        found, loads = await self.usage.processes()
        gpus = [{"name": gpu.name, "total_bytes": gpu.total_bytes, "busy_percent": load}
                for gpu, load in zip(self.inventory.gpus, loads)]
        return {"processes": found, "total": usage.total(found), "gpus": gpus, "vgpu_count": self.config.vgpu_count}

    async def _region_create(self, request: dict[str, Any]) -> dict[str, Any]:
        networked = request.get("network") is not False
        addrs = [join_addr(ip, self.config.listen_port) for ip in self._dialled()][: layout.MAX_ADDRS] if networked else []
        if networked and not addrs:
            raise Unavailable("oriond does not listen at any address yet", hint="server.log says what it waits for")
        size = request.get("size_mib")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 2 <= size <= 1 << 20):
            raise ProtocolError(f"size_mib = {size!r} is not valid", hint="A power of two from 2 to 1048576")
        n_bytes = self.config.region_bytes(True) if size is None else size * MIB
        region = self.regions.create(str(request.get("uuid", "")), n_bytes)
        uuid = region.uuid
        try:
            region.defaults = self._limit(uuid, request)
            self.regions.prepare_header(uuid, addrs, self.controller_addr(addrs[0]) if addrs else "")
            self.listening.want(region.uuid, _ips(addrs))
        except OrionError:
            self.regions.remove(uuid)
            self.ceilings.drop(uuid)
            raise
        return self.regions.inspect(region.uuid)

    def _limit(self, uuid: str, request: dict[str, Any]) -> tuple[int, int]:
        """Ceilings of a region that is no domain's, checked as a domain's are; returns its defaults."""
        values = {name: str(request[name]) for name in ("vgpus", "memory", "total", "compute") if request.get(name) is not None}
        metadata.check(values)
        settings = metadata.parse(metadata.element(values))
        self.ceilings.put(uuid, metadata.ceiling(settings), [])
        return metadata.defaults(settings)

    async def _region_remove(self, request: dict[str, Any]) -> dict[str, Any]:
        uuid = self.regions.get(str(request.get("uuid", ""))).uuid
        closing = self.channels_part.close(uuid, "its region is removed")
        for channel in closing:
            await asyncio.wait_for(channel.ended.wait(), 10)
        self.mailboxes.finish(uuid)
        self.regions.remove(uuid)
        self.ceilings.drop(uuid)
        self.listening.want(uuid, ())
        return {"uuid": uuid, "channels_closed": len(closing)}

    def _on_hook(self, op: str, uuid: str, name: str) -> None:
        if self.domains is not None:
            self.domains.hook(op, uuid, name)

    # ---- what the host's network does ----

    def _on_listening(self, who: str) -> None:
        if self.domains is not None:
            self.domains.look_again(who)

    def _on_addresses(self) -> None:
        self._every = []
        self.listening.host_changed()
        if self.domains is not None:
            self.domains.addresses_changed()

    def _on_links(self) -> None:
        if self.domains is not None:
            self.domains.links_changed()

    def _on_neighbour(self, mac: str) -> None:
        if self.domains is not None:
            self.domains.neighbour(mac)


def _ips(addrs: Iterable[str]) -> list[str]:
    """The addresses of "ip:port" ones."""
    return [pair[0] for addr in addrs if (pair := split_addr(addr, configs.DEFAULT_PORT)) is not None]


def _address_towards(addr: str) -> str:
    """Our own address on the way to `addr`; no packet is sent."""
    pair = split_addr(addr, configs.DEFAULT_CONTROLLER_PORT)
    assert pair is not None
    with contextlib.suppress(OSError):
        family, _, _, _, to = socket.getaddrinfo(*pair, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect(to)
            return str(sock.getsockname()[0])
    return "127.0.0.1"


def load_secret() -> str:
    return credential.load(paths.credential())
