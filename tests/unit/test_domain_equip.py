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

    def close_channels(self, uuid: str, reason: str, guest_gone: bool = False) -> int:
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


def test_a_restart_of_oriond_does_not_hide_it(kit: Kit, config: ServerConfig, tmp_path: Path) -> None:
    conn = FakeConnection(xml(), xml(machine="pc-q35-7.2"))
    drive(kit.equipper.run, conn)
    again = Kit(config, tmp_path)
    drive(again.equipper.run, conn)
    assert "power cycle" in again.equipper.problems[UUID]
    again.equipper.memory.end_run(UUID)
    conn.live = xml()  # i440fx by now
    drive(again.equipper.run, conn)
    assert again.equipper.memory.needs == {} and conn.calls == ["attach live"]


def test_the_file_that_somebody_removed(kit: Kit) -> None:
    with pytest.raises(NotFound, match="although the domain runs"):
        drive(kit.equipper.run, FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB))))


def test_a_region_that_qemu_made_is_never_used(kit: Kit) -> None:
    """QEMU's own file may be read and replaced by its user."""
    conn = FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB)))
    path = Path(kit.regions._base) / f"orion-{UUID}"
    path.write_bytes(bytes(4 * MIB))
    path.chmod(0o644)
    with pytest.raises(Conflict, match="needs a power cycle: .*everybody may use it"):
        drive(kit.equipper.run, conn)
    assert path.read_bytes() == bytes(4 * MIB)


def test_a_region_of_another_size_than_the_device_shows(kit: Kit) -> None:
    kit.regions.create(UUID, 8 * MIB)
    with pytest.raises(Conflict, match="needs a power cycle: its device shows 4 MiB of a region of 8 MiB"):
        drive(kit.equipper.run, FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB))))
    assert list(kit.regions) == []


def test_a_reset_of_the_guest_begins_a_new_life(kit: Kit) -> None:
    conn = FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB)))
    kit.regions.create(UUID, 4 * MIB)
    drive(kit.equipper.run, conn)
    first, closed = kit.regions.get(UUID).identity, kit.host.closed
    drive(kit.equipper.run, conn)
    assert kit.regions.get(UUID).identity == first and kit.host.closed == closed
    kit.equipper.rebooted(UUID)
    drive(kit.equipper.run, conn)
    assert kit.regions.get(UUID).identity != first and kit.host.closed == closed + 1
    kit.equipper.rebooted("99999999-2222-3333-4444-555555555555")  # none of ours


def test_proven_is_one_life_of_the_region(kit: Kit) -> None:
    conn = FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB)))
    region = kit.regions.create(UUID, 4 * MIB)
    assert not region.is_proven
    drive(kit.equipper.run, conn)
    assert region.identity and not region.is_proven
    region.proven = region.identity.generation
    assert region.is_proven
    kit.equipper.rebooted(UUID)
    drive(kit.equipper.run, conn)
    assert not region.is_proven


def test_the_end_of_qemu_needs_no_libvirt(kit: Kit) -> None:
    conn = FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB)))
    kit.regions.create(UUID, 4 * MIB)
    drive(kit.equipper.run, conn)
    life = kit.equipper.memory.lives[UUID]

    async def ended(of: list[int]) -> None:
        kit.equipper._qemu_ended(UUID, "vm1", of)
        await asyncio.gather(*kit.equipper._ending)

    asyncio.run(ended([life[0] - 1, life[1]]))  # an earlier run's
    assert len(kit.files()) == 1
    asyncio.run(ended(life))
    assert kit.files() == [] and kit.equipper.memory.lives == {}


BRIDGE = "<controller type='pci' index='6' model='pcie-to-pci-bridge'/>"


@pytest.mark.parametrize(("cold_mib", "expected"), [(0, 2), (64, 64)])
def test_a_running_q35_takes_what_its_firmware_left_room_for(kit: Kit, cold_mib: int, expected: int) -> None:
    """2 MiB, or as much as a device had that was there at the start and was unplugged since."""
    device = shmem.device_xml(UUID, cold_mib * MIB) if cold_mib else ""
    conn = FakeConnection(None, xml(NIC + BRIDGE + device, "pc-q35-7.2"))
    if cold_mib:
        kit.regions.create(UUID, cold_mib * MIB)
    drive(kit.equipper.run, conn)
    assert drive(kit.equipper.unplug, conn) is True
    assert asyncio.run(kit.equipper.plug(conn, conn.view(UUID), 128 * MIB)) == expected * MIB
    kit.regions.remove(UUID)
    conn.live = xml(NIC + BRIDGE, "pc-q35-7.2")
    conn.number = 2  # the next run began without
    assert asyncio.run(kit.equipper.plug(conn, conn.view(UUID), 128 * MIB)) == 2 * MIB


def test_a_q35_whose_firmware_has_not_run_takes_any_size(kit: Kit) -> None:
    conn = FakeConnection(None, xml(NIC + BRIDGE, "pc-q35-7.2"))
    assert asyncio.run(kit.equipper.plug(conn, conn.view(UUID), 64 * MIB, fresh=True)) == 64 * MIB


def test_the_definition_is_restored_with_its_controllers(kit: Kit) -> None:
    conn = FakeConnection(xml(NIC, "pc-q35-7.2"), None)
    before = etree.tostring(conn.config)
    plain = conn.attach_device

    def attach(uuid: str, text: str, flags: int) -> None:
        plain(uuid, text, flags)
        conn.config.find("devices").append(etree.fromstring(BRIDGE))

    def detach(uuid: str, text: str, flags: int) -> None:
        wanted = etree.fromstring(text)
        for found in conn.config.findall(f"devices/{wanted.tag}"):
            if found.get("index") == wanted.get("index"):
                conn.config.find("devices").remove(found)

    def view(uuid: str) -> View:  # as libvirt does: each look gets a document of its own
        return View(UUID, "vm1", -1, None, etree.fromstring(etree.tostring(conn.config)))

    conn.attach_device, conn.detach_device, conn.view = attach, detach, view  # type: ignore[method-assign]
    drive(kit.equipper.define, conn)
    assert kit.equipper.memory.added == {UUID: [["pcie-to-pci-bridge", 6]]}
    assert Remembered.load(kit.memory_path).added == kit.equipper.memory.added
    assert drive(kit.equipper.take_from_definition, conn) is True
    assert etree.tostring(conn.config) == before and kit.equipper.memory.added == {}
    assert drive(kit.equipper.take_from_definition, conn) is False


@pytest.mark.parametrize("refused", [False, True])
def test_what_is_plugged_in_has_the_label_of_its_domain(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        refused: bool) -> None:
    found: list[bytes] = []

    def setxattr(fd: int, name: str, value: bytes) -> None:
        if refused:
            raise OSError(1, "Operation not permitted")
        found.append(value)

    (tmp_path / "enforce").touch()
    monkeypatch.setattr("orion_virt.hook.label.ENFORCE", str(tmp_path / "enforce"))
    monkeypatch.setattr(os, "setxattr", setxattr)
    conn = FakeConnection(None, xml())
    assert conn.live is not None
    conn.live.append(etree.fromstring("<seclabel model='selinux'><imagelabel>system_u:object_r:svirt_image_t:s0:c1,c2"
                                      "</imagelabel></seclabel>"))
    got = asyncio.run(kit.equipper.plug(conn, conn.view(UUID), 4 * MIB))
    if refused:
        assert got == 0 and kit.files() == [] and "Operation not permitted" in kit.equipper.problems[UUID]
    else:
        assert got == 4 * MIB and found == [b"system_u:object_r:svirt_tmpfs_t:s0:c1,c2\0"]


def test_apparmor_that_refuses_leaves_nothing_behind(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(domain: object, path: str) -> None:
        raise Conflict(f"no profile for {path}")

    monkeypatch.setattr("orion_virt.server.equip.apparmor.allow", refuse)
    conn = FakeConnection(None, xml())
    assert asyncio.run(kit.equipper.plug(conn, conn.view(UUID), 4 * MIB)) == 0
    assert conn.calls == [] and kit.files() == []
    assert "power cycle" in kit.equipper.problems[UUID] and f"orion-{UUID}" in kit.equipper.problems[UUID]


def test_no_way_to_the_host_is_said(kit: Kit) -> None:
    drive(kit.equipper.run, FakeConnection(None, xml("")))
    assert "bind_addr" in kit.equipper.problems[UUID]
    assert kit.regions.get(UUID).server_addrs == ()


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
