# SPDX-License-Identifier: Apache-2.0
"""Following libvirt, against its own test driver: events, domains that come and go, and what that driver cannot do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from orion_virt import paths
from orion_virt.config import ServerConfig
from orion_virt.domain import events
from orion_virt.errors import Conflict, NotFound, QuotaExceeded
from orion_virt.region.regions import Regions
from orion_virt.server.domains import Domains
from orion_virt.units import MIB
from test_domain_equip import FakeHost

URI = "test:///default"
DEFAULT = "6695eb01-f6a4-8304-79aa-97f2502e193f"  # the domain that the driver begins with, running
NEW = "11111111-2222-3333-4444-555555555555"
XML = f"""<domain type='test'><name>new</name><uuid>{NEW}</uuid><memory>1024</memory><os><type>hvm</type></os>
<metadata><o:vgpu xmlns:o='https://orion-virt/domain/1' enabled='no'/></metadata></domain>"""


@pytest.fixture
def outside() -> Iterator[libvirt.virConnect]:
    """Another client's connection; the driver's domains belong to this process. It keeps none that the test made."""
    events.start_loop()
    conn = libvirt.open(URI)
    yield conn
    for domain in conn.listAllDomains():
        if domain.name() == "new":
            if domain.isActive():
                domain.destroy()
            domain.undefine()
    conn.close()


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: libvirt.virConnect) -> Callable[[Any], None]:
    """Runs a coroutine with Domains that follow the driver."""
    monkeypatch.setenv("ORION_STATE", str(tmp_path))
    monkeypatch.delenv("ORION_LIBVIRT_URI", raising=False)
    (tmp_path / "shm").mkdir()
    config = ServerConfig(shm_path_base=str(tmp_path / "shm"), shm_group_name="root", shm_budget_bytes=64 * MIB, libvirt_uri=URI)

    def run(test: Any) -> None:
        async def body() -> None:
            domains = Domains(config, Regions(config, b"b" * 16, b"", paths.state() / "regions.json"), FakeHost())
            await domains.start()
            try:
                await asyncio.wait_for(test(domains), 30)
            finally:
                await domains.stop()

        asyncio.run(body())

    return run


async def until(condition: Callable[[Any], bool], domains: Domains, name: str) -> dict[str, Any]:
    """Waits for what `list` says of one domain ({}: nothing)."""
    while True:
        if domains._conn is not None:
            listed = (await domains.commands["domains"]({}))["domains"]
            found = next((dict(d) for d in listed if d["name"] == name), {})
            if condition(found):
                return found
        await asyncio.sleep(0.02)


def test_a_domain_that_libvirt_cannot_equip_shows_why(follow: Callable[[Any], None]) -> None:
    async def test(domains: Domains) -> None:
        found = await until(lambda d: bool(d.get("problems")), domains, "test")
        assert (found["uuid"], found["state"], found["device"], found["wanted"]) == (DEFAULT, "running", "none", True)
        assert "not supported by the connection driver" in found["problems"][0]

    follow(test)


def test_domains_that_come_and_go(follow: Callable[[Any], None], outside: libvirt.virConnect) -> None:
    async def test(domains: Domains) -> None:
        await until(bool, domains, "test")
        domain = outside.defineXML(XML)
        found = await until(bool, domains, "new")
        assert found["state"] == "shut off" and "enabled='no'" in found["reason"]
        domain.create()
        await until(lambda d: d["state"] == "running", domains, "new")
        for name in ("new", NEW, str(domain.ID())):
            assert domains._conn is not None and domains._conn.resolve(name) == NEW
        assert NEW in domains._conn.running()
        domain.destroy()
        assert NEW not in domains._conn.running()
        with pytest.raises(Conflict, match="enabled='no'"):
            await domains.commands["attach"]({"domain": "new"})
        domain.undefine()
        await until(lambda d: not d, domains, "new")
        with pytest.raises(NotFound, match="'new'"):
            await domains.commands["detach"]({"domain": "new", "persistent": True})

    follow(test)


def test_events_name_the_domain(outside: libvirt.virConnect) -> None:
    changed: list[str] = []
    events.subscribe(outside, changed.append, lambda: None, lambda _: None, lambda: None)
    domain = outside.defineXML(XML)
    domain.create()
    domain.destroy()
    deadline = time.monotonic() + 10
    while len(changed) < 3:
        assert time.monotonic() < deadline, changed
        time.sleep(0.02)
    assert set(changed) == {NEW}


def test_what_was_subscribed_goes_when_a_later_part_fails(outside: libvirt.virConnect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that stays would keep libvirt's side of the connection."""

    def fails(*_: Any) -> None:
        raise libvirt.libvirtError("no more")

    monkeypatch.setattr(outside, "registerCloseCallback", fails)
    ended: list[int] = []
    monkeypatch.setattr(outside, "domainEventDeregisterAny", ended.append)
    monkeypatch.setattr(outside, "networkEventDeregisterAny", ended.append)
    with pytest.raises(libvirt.libvirtError, match="no more"):
        events.subscribe(outside, lambda _: None, lambda: None, lambda _: None, lambda: None)
    assert len(ended) == 7


def test_a_domain_that_is_looked_at_keeps_nobody_waiting(follow: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """libvirt is busy with one (a migration holds its lock); others are served, and it is looked at once more after that."""
    async def test(domains: Domains) -> None:
        await until(lambda d: bool(d.get("problems")), domains, "test")
        looks: list[str] = []
        stuck, seen = asyncio.Event(), asyncio.Event()

        async def reconcile(conn: Any, uuid: str) -> None:
            looks.append(uuid)
            if uuid == DEFAULT:
                await stuck.wait()
            else:
                seen.set()

        monkeypatch.setattr(domains, "_reconcile", reconcile)
        for uuid in (DEFAULT, DEFAULT, NEW):
            domains.hook("started", uuid, "x")
        await seen.wait()
        domains.hook("started", DEFAULT, "x")
        domains.hook("started", DEFAULT, "x")
        stuck.set()
        while domains._looks:
            await asyncio.sleep(0.01)
        assert looks == [DEFAULT, NEW, DEFAULT]

    follow(test)


def test_a_domain_over_the_budget_is_looked_at_again(follow: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Others stop, and nothing tells us of this one then."""
    async def test(domains: Domains) -> None:
        await until(lambda d: bool(d.get("problems")), domains, "test")
        tries = 0

        async def run(conn: Any, view: Any) -> None:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise QuotaExceeded("a region of 4 MiB would exceed the budget")

        async def define(conn: Any, view: Any) -> None:
            pass

        monkeypatch.setattr("orion_virt.server.domains.AGAIN_SECONDS", 0.05)
        monkeypatch.setattr(domains._equipper, "run", run)
        monkeypatch.setattr(domains._equipper, "define", define)
        domains.hook("started", DEFAULT, "test")
        await until(lambda d: any("budget" in p for p in d["problems"]), domains, "test")
        await until(lambda d: d["problems"] == [], domains, "test")
        assert tries == 3

    follow(test)
