# SPDX-License-Identifier: Apache-2.0
"""Uninstalling: every definition, running domain and /dev/shm become what they were before us."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from orion_virt import paths
from orion_virt.config import ServerConfig
from orion_virt.domain import shmem
from orion_virt.domain.connection import Connection, View
from orion_virt.errors import OrionError
from orion_virt.region.regions import Regions
from orion_virt.server.ceilings import Ceilings
from orion_virt.server.daemon import Lock
from orion_virt.server.equip import Equipper, call
from orion_virt.server.remembered import Remembered
from orion_virt.server.waiting import Waiting


async def withdraw(conn: Connection, equipper: Equipper, waiting: Waiting) -> list[dict[str, str]]:
    """Of each domain that had something of ours: its name, and what became of definition and running device."""
    told = []
    running, defined = set(), set()
    for uuid in await call(conn.uuids):
        view: View | None = await call(conn.view, uuid)
        if view is None:
            continue
        config, live = await _config(conn, equipper, view), await _live(conn, equipper, view)
        waiting.drop(uuid)
        defined.add(uuid)
        if live.startswith("keeps"):
            running.add(uuid)
        if config or live:
            told.append({"name": view.name, "config": config or "had none of ours", "live": live or "not running with it"})
    waiting.sweep(waiting.found(), running, defined)
    return told


async def _config(conn: Connection, equipper: Equipper, view: View) -> str:
    ours = view.config is not None and (shmem.find_own(view.config) or view.uuid in equipper.memory.added)
    try:
        return "restored" if ours and await equipper.take_from_definition(conn, view) else ""
    except OrionError as error:
        return f"not restored: {error}"


async def _live(conn: Connection, equipper: Equipper, view: View) -> str:
    if view.live is None:
        return ""
    try:
        return "unplugged" if await equipper.unplug(conn, view) else ""
    except OrionError as error:
        return f"keeps the device until it shuts down: {error.message}"


class _Nobody:
    """The `Host` where no oriond runs: there are no channels."""

    def __init__(self) -> None:
        self.ceilings = Ceilings(paths.state() / "ceilings.json")

    def listen_for(self, who: str, addresses: Iterable[str]) -> Mapping[str, OrionError]:
        return {}

    def listening_problems(self, who: str) -> list[str]:
        return []

    def server_addrs(self) -> list[str]:
        return []

    def controller_addr(self, server_addr: str) -> str:
        return ""

    def close_channels(self, uuid: str, reason: str, guest_gone: bool = False) -> int:
        return 0

    def channels(self, uuid: str) -> list[dict[str, Any]]:
        return []

    def usage_of(self, uuid: str) -> dict[str, Any]:
        return {}

    def processes_of(self, uuid: str) -> list[dict[str, Any]]:
        return []

    async def hold(self, uuid: str, seconds: float) -> None:
        pass


async def _withdraw(config: ServerConfig, uri: str) -> list[dict[str, str]]:
    memory = Remembered.load(paths.state() / "domains.json")
    regions = Regions(config, b"\0" * 16, b"", paths.state() / "regions.json")
    equipper = Equipper(config, regions, _Nobody(), memory)
    conn = await call(Connection.open, uri, lambda _: None, lambda: None, lambda _: None, lambda: None)
    try:
        regions.restore()
        return await withdraw(conn, equipper, Waiting(config.shm_path_base, regions, memory))
    finally:
        conn.close()
        regions.close()


def without_oriond(config: ServerConfig, uri: str) -> list[dict[str, str]]:
    """The same, where oriond does not run; it is kept from starting meanwhile. Raises OrionError."""
    lock = Lock()
    try:
        return asyncio.run(_withdraw(config, uri))
    finally:
        lock.close()
