# SPDX-License-Identifier: Apache-2.0
"""Lives of a region, controllers and labels, against a libvirt that is only a dictionary."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from lxml import etree

from orion_virt.domain import shmem
from orion_virt.domain.connection import View
from orion_virt.errors import Conflict
from orion_virt.server.remembered import Remembered
from orion_virt.units import MIB
from test_domain_equip import NIC, UUID, FakeConnection, Kit, config, drive, kit, xml

__all__ = ["config", "kit"]

BRIDGE = "<controller type='pci' index='6' model='pcie-to-pci-bridge'/>"


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
