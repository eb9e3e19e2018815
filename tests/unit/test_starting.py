# SPDX-License-Identifier: Apache-2.0
"""Domains that oriond starts itself, against a libvirt that is only a dictionary."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from orion_virt.config import ServerConfig
from orion_virt.domain import shmem
from orion_virt.domain.connection import View
from orion_virt.errors import Conflict, ProtocolError
from orion_virt.server import starting
from orion_virt.units import MIB
from test_domain_equip import NIC, UUID, FakeConnection, Kit, xml
from test_region_lives import BRIDGE


class Startable(FakeConnection):
    """Shut off until it is started, paused."""

    def __init__(self, document: etree._Element, persistent: bool = True) -> None:
        super().__init__(document if persistent else None, None)
        self._document_to_run = document

    def view(self, uuid: str) -> View:
        return View(UUID, "vm1", self.number, self.live, self.config)

    def start_paused(self, uuid: str) -> None:
        self.calls.append("start paused")
        self.live = etree.fromstring(etree.tostring(self._document_to_run))

    def start_transient(self, text: str) -> None:
        self.calls.append("start transient")
        self.live = etree.fromstring(text)

    def resume(self, uuid: str) -> None:
        self.calls.append("resume")

    def destroy(self, uuid: str) -> None:
        self.calls.append("destroy")
        self.live = None


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    (tmp_path / "shm").mkdir()
    return Kit(ServerConfig(shm_path_base=str(tmp_path / "shm"), shm_group_name="root", shm_budget_bytes=256 * MIB), tmp_path)


def start(kit: Kit, conn: Startable, size_mib: int = 64) -> str:
    return asyncio.run(starting.start(conn, kit.equipper, conn.view(UUID), size_mib * MIB))  # type: ignore[arg-type]


def test_the_header_is_there_before_the_firmware_runs(kit: Kit) -> None:
    conn = Startable(xml(NIC + BRIDGE, "pc-q35-7.2"))
    assert start(kit, conn) == "started with 64 MiB"
    assert kit.host.ceilings.of == {UUID}, "ceilings hold before anybody can connect"
    assert conn.calls == ["start paused", "attach live", "resume"]
    assert kit.regions.get(UUID).identity is not None
    assert kit.equipper.memory.room[UUID] == [conn.number, 64 * MIB], "the firmware sees the device and makes room"


def test_one_that_has_it_in_its_definition(kit: Kit) -> None:
    conn = Startable(xml(NIC + shmem.device_xml(UUID, 16 * MIB)))
    kit.regions.create(UUID, 16 * MIB)  # the hook's work
    assert start(kit, conn) == "started with 16 MiB"
    assert conn.calls == ["start paused", "resume"]


def test_it_is_ended_again_where_the_device_cannot_be_had(kit: Kit) -> None:
    conn = Startable(xml(NIC, "pc-q35-7.2"))
    with pytest.raises(Conflict, match="nowhere to plug it in") as error:
        start(kit, conn)
    assert "--once" in error.value.hint
    assert conn.calls == ["start paused", "destroy"] and kit.files() == []


def test_a_running_one_is_left_alone(kit: Kit) -> None:
    conn = Startable(xml())
    conn.live = xml()
    with pytest.raises(Conflict, match="is running already"):
        start(kit, conn)
    assert conn.calls == []


def test_a_transient_one_gets_the_device_in_its_xml(kit: Kit) -> None:
    text = etree.tostring(xml(NIC), encoding="unicode")
    uuid, document = starting.with_device(kit.equipper, text, 32 * MIB)
    assert uuid == UUID and shmem.find_own(etree.fromstring(document)) == shmem.Shmem(f"orion-{UUID}", 32 * MIB, "ua-orion0")
    assert starting.with_device(kit.equipper, document, 64 * MIB) == (uuid, document), "it has one already"
    kit.regions.create(UUID, 32 * MIB)
    conn = Startable(xml(NIC), persistent=False)
    assert asyncio.run(starting.start_transient(conn, kit.equipper, uuid, document)) == ("vm1", "started with 32 MiB")  # type: ignore[arg-type]
    assert conn.calls == ["start transient", "resume"]


def test_one_without_a_uuid_gets_one(kit: Kit) -> None:
    uuid, document = starting.with_device(kit.equipper, "<domain><name>x</name><devices/></domain>", 0)
    root = etree.fromstring(document)
    assert root.findtext("uuid") == uuid
    found = shmem.find_own(root)
    assert found is not None and found.size_bytes == 128 * MIB


NO = "<metadata><o:vgpu xmlns:o='https://orion-virt/domain/1' enabled='no'/></metadata>"


@pytest.mark.parametrize(("text", "error", "words"), [
    ("<domain", ProtocolError, "not readable"), ("<domain><name>x</name></domain>", ProtocolError, "<devices>"),
    ("<domain><name>x</name><uuid>12</uuid><devices/></domain>", ProtocolError, "not readable"),
    ("<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><domain><name>&e;</name><devices/></domain>", ProtocolError, "<name>"),
    (f"<domain><name>x</name>{NO}<devices/></domain>", Conflict, "enabled='no'")])
def test_what_is_refused(kit: Kit, text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        starting.with_device(kit.equipper, text, 0)
    assert kit.files() == []


def test_fake_is_like_the_real_one() -> None:
    """Each of its methods that stands for a libvirt call exists there with the same arguments."""
    import inspect

    from orion_virt.domain.connection import Connection

    for name in ("start_paused", "start_transient", "resume", "destroy", "attach_device", "detach_device", "view"):
        real: Any = getattr(Connection, name)
        assert len(inspect.signature(real).parameters) == len(inspect.signature(getattr(Startable, name)).parameters), name
