# SPDX-License-Identifier: Apache-2.0
"""What oriond does with a domain, against a libvirt that is only a dictionary."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from orion_virt import layout
from orion_virt.config import ServerConfig
from orion_virt.domain import address, definition, shmem
from orion_virt.domain.connection import LIVE, View
from orion_virt.errors import Conflict, NotFound
from orion_virt.region import header
from orion_virt.region.regions import Regions
from orion_virt.server.equip import Equipper
from orion_virt.server.remembered import Remembered
from orion_virt.units import MIB

UUID = "11111111-2222-3333-4444-555555555555"
NIC = "<interface type='user'/>"
MACVTAP = "<interface type='direct'><source dev='eth0' mode='bridge'/></interface>"


def xml(devices: str = NIC, machine: str = "pc") -> etree._Element:
    return definition.parse(f"<domain><name>vm1</name><uuid>{UUID}</uuid><os><type machine='{machine}'>hvm</type></os>"
                            f"<devices>{devices}</devices></domain>")


class FakeConnection:
    """Keeps one domain's two documents."""

    def __init__(self, config: etree._Element | None, live: etree._Element | None, number: int = 1) -> None:
        self.config, self.live, self.number = config, live, number
        self.calls: list[str] = []

    def view(self, uuid: str) -> View:
        return View(UUID, "vm1", self.number, self.live, self.config)

    def _document(self, flags: int) -> etree._Element:
        found = self.live if flags == LIVE else self.config
        assert found is not None
        return found

    def attach_device(self, uuid: str, text: str, flags: int) -> None:
        self.calls.append("attach live" if flags == LIVE else "attach config")
        self._document(flags).find("devices").append(etree.fromstring(text))  # type: ignore[union-attr]

    def detach_device(self, uuid: str, text: str, flags: int) -> None:
        self.calls.append("detach live" if flags == LIVE else "detach config")
        name = etree.fromstring(text).get("name")
        for element in self._document(flags).findall(f"devices/shmem[@name='{name}']"):
            element.getparent().remove(element)  # type: ignore[union-attr]

    def gateway(self, domain: etree._Element, explicit: str | None) -> address.Gateway | None:
        return address.gateway(address.interfaces(domain), {}, {}, explicit)


class FakeHost:
    """Listens everywhere, has no channels."""

    closed = 0

    async def listen_on(self, ip: str) -> str:
        return f"{ip}:9960"

    def server_addrs(self) -> list[str]:
        return ["192.0.2.1:9960"]

    def controller_addr(self, server_addr: str) -> str:
        return server_addr.replace("9960", "9123")

    def close_channels(self, uuid: str, reason: str) -> int:
        self.closed += 1
        return 0

    def channels(self, uuid: str) -> list[dict[str, Any]]:
        return []


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    (tmp_path / "shm").mkdir()
    return ServerConfig(shm_path_base=str(tmp_path / "shm"), shm_group_name="root", shm_budget_bytes=256 * MIB)


class Kit:
    """The parts of a test."""

    def __init__(self, config: ServerConfig, directory: Path) -> None:
        self.regions = Regions(config, b"b" * 16, b"", directory / "regions.json")
        self.host = FakeHost()
        self.memory_path = directory / "domains.json"
        self.equipper = Equipper(config, self.regions, self.host, Remembered.load(self.memory_path))

    def files(self) -> list[Path]:
        return list(Path(self.regions._base).iterdir())


@pytest.fixture
def kit(config: ServerConfig, tmp_path: Path) -> Kit:
    return Kit(config, tmp_path)


def drive(step: Callable[[Any, View], Coroutine[Any, Any, Any]], conn: FakeConnection) -> Any:
    return asyncio.run(step(conn, conn.view(UUID)))


def test_plug_header_and_end(kit: Kit) -> None:
    conn = FakeConnection(xml(), xml())
    drive(kit.equipper.define, conn)
    drive(kit.equipper.run, conn)
    drive(kit.equipper.run, conn)
    assert conn.calls == ["attach config", "attach live"]
    region = kit.regions.get(UUID)
    assert (region.size_bytes, region.server_addrs, region.controller_addr) == (
        128 * MIB, ("10.0.2.2:9960",), "10.0.2.2:9123")
    asyncio.run(kit.equipper.end(UUID, "vm1", "stopped"))
    assert kit.files() == [] and list(kit.regions) == []


def test_a_new_run_of_the_domain_has_a_new_secret(kit: Kit) -> None:
    device = shmem.device_xml(UUID, 4 * MIB)
    conn = FakeConnection(None, xml(NIC + device))
    kit.regions.create(UUID, 4 * MIB)
    drive(kit.equipper.run, conn)
    first = kit.regions.get(UUID).identity
    drive(kit.equipper.run, conn)
    assert kit.regions.get(UUID).identity == first
    conn.number = 2  # a restore brings the old header back in the same file
    drive(kit.equipper.run, conn)
    second = kit.regions.get(UUID).identity
    assert first and second and second.token != first.token and second.generation != first.generation
    found = header.read(kit.regions.get(UUID).fd)
    assert found is not None and bytes(found.token) == second.token


def test_who_unplugs_the_device_means_it(kit: Kit, config: ServerConfig, tmp_path: Path) -> None:
    conn = FakeConnection(None, xml())
    drive(kit.equipper.run, conn)
    conn.live = xml()
    drive(kit.equipper.run, conn)
    assert conn.calls == ["attach live"] and kit.files() == []
    again = Kit(config, tmp_path)  # the daemon was started again
    drive(again.equipper.run, conn)
    assert conn.calls == ["attach live"]
    conn.number = 2
    drive(again.equipper.run, conn)
    assert conn.calls == ["attach live", "attach live"]


def test_command_detaches(kit: Kit) -> None:
    conn = FakeConnection(xml(), xml())
    drive(kit.equipper.run, conn)
    assert drive(kit.equipper.unplug, conn) is True
    assert drive(kit.equipper.unplug, conn) is False
    assert conn.calls == ["attach live", "detach live"] and kit.files() == []


def test_a_guest_that_does_not_let_go(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orion_virt.server.equip.UNPLUG_SECONDS", 0.1)
    conn = FakeConnection(None, xml())
    drive(kit.equipper.run, conn)
    before = kit.regions.get(UUID).identity
    monkeypatch.setattr(conn, "detach_device", lambda *_: None)
    with pytest.raises(Conflict, match="does not release"):
        drive(kit.equipper.unplug, conn)
    assert kit.regions.get(UUID).identity != before


def test_q35_says_what_it_needs(kit: Kit) -> None:
    conn = FakeConnection(xml(), xml(machine="pc-q35-7.2"))
    drive(kit.equipper.run, conn)
    assert conn.calls == [] and kit.files() == []
    assert "power cycle" in kit.equipper.problems[UUID]


def test_the_file_that_somebody_removed(kit: Kit) -> None:
    with pytest.raises(NotFound, match="although the domain runs"):
        drive(kit.equipper.run, FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB))))


@pytest.mark.parametrize("devices", ["", MACVTAP], ids=["no NIC", "macvtap"])
def test_no_network_joins_it_to_the_host(kit: Kit, devices: str) -> None:
    """Then its region does; a header of an older oriond without the mailbox is written anew."""
    conn = FakeConnection(None, xml(devices))
    drive(kit.equipper.run, conn)
    region = kit.regions.get(UUID)
    assert UUID not in kit.equipper.problems and (region.server_addrs, region.controller_addr) == ((), "")
    at = layout.Header.features.offset
    assert os.pread(region.fd, 8, at) == layout.FEATURE_MAILBOX.to_bytes(8, "little")
    os.pwrite(region.fd, bytes(8), at)
    drive(kit.equipper.run, conn)
    assert os.pread(region.fd, 8, at) == layout.FEATURE_MAILBOX.to_bytes(8, "little")


def test_bind_addr_wins(config: ServerConfig, tmp_path: Path) -> None:
    kit = Kit(replace(config, bind_addr=("192.0.2.1",)), tmp_path)
    drive(kit.equipper.run, FakeConnection(None, xml()))
    assert kit.regions.get(UUID).server_addrs == ("192.0.2.1:9960",)


def test_budget_makes_regions_smaller(config: ServerConfig, tmp_path: Path) -> None:
    kit = Kit(replace(config, shm_budget_bytes=32 * MIB), tmp_path)
    assert kit.equipper.wanted_bytes(xml()) == 32 * MIB
    kit.regions.create("99999999-2222-3333-4444-555555555555", 16 * MIB)
    drive(kit.equipper.run, FakeConnection(None, xml()))
    assert kit.regions.get(UUID).size_bytes == 16 * MIB


def test_enabled_no_takes_ours_out_again(kit: Kit) -> None:
    conn = FakeConnection(xml(), None)
    drive(kit.equipper.define, conn)
    assert conn.config is not None
    conn.config.append(etree.fromstring(
        "<metadata><o:vgpu xmlns:o='https://orion-virt/domain/1' enabled='no'/></metadata>"))
    drive(kit.equipper.define, conn)
    drive(kit.equipper.define, conn)
    assert conn.calls == ["attach config", "detach config"]


def test_memory_that_is_broken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "domains.json"
    path.write_text("{")
    assert Remembered.load(path).detached == set()
    assert "must be detached again" in caplog.text


def test_a_domain_with_a_card_of_its_own_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who the vendor of a passed-through device is stands in sysfs."""
    from orion_virt.server import equip

    card, other = tmp_path / "nvidia", tmp_path / "intel"
    card.write_text("0x10de\n")
    other.write_text("0x8086\n")
    assert equip._read(str(card)) == equip.NVIDIA
    assert equip._read(str(other)) != equip.NVIDIA
    assert equip._read(str(tmp_path / "none")) == ""


def test_a_header_that_a_restore_overwrote_is_written_again(kit: Kit) -> None:
    """The domain is active before its saved memory is back: the old header may come after ours."""
    conn = FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB)))
    kit.regions.create(UUID, 4 * MIB)
    drive(kit.equipper.run, conn)
    region = kit.regions.get(UUID)
    saved = os.pread(region.fd, 4096, 0)
    conn.number = 2
    drive(kit.equipper.run, conn)
    fresh = region.identity
    os.pwrite(region.fd, saved, 0)
    drive(kit.equipper.run, conn)
    found = header.read(region.fd)
    assert found is not None and header.identity(found) == fresh == region.identity
