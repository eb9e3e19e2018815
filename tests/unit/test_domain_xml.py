# SPDX-License-Identifier: Apache-2.0
"""Domains' XML: our device, decisions, live limits; on documents that libvirt 9 wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from lxml import etree

from orion_virt.domain import definition, shmem
from orion_virt.errors import ProtocolError
from orion_virt.units import MIB

GOLDEN = Path(__file__).parent / "golden" / "domain"
OTHER = "99999999-2222-3333-4444-555555555555"


def golden(name: str) -> etree._Element:
    return definition.parse((GOLDEN / name).read_text())


def with_devices(xml: str, machine: str = "pc-i440fx-7.2", metadata: str = "") -> etree._Element:
    return definition.parse(f"<domain><name>vm1</name><uuid>{OTHER.replace('9', '1')}</uuid>"
                            f"<metadata>{metadata}</metadata><os><type machine='{machine}'>hvm</type></os><devices>{xml}</devices></domain>")


def test_device_xml_is_what_libvirt_stores() -> None:
    domain = golden("config-q35.xml")
    element = shmem.own_element(domain)
    assert element is not None
    stored = etree.fromstring(etree.tostring(element))
    address = stored.find("address")
    assert address is not None
    stored.remove(address)
    ours = etree.fromstring(shmem.device_xml(domain.findtext("uuid") or "", 128 * MIB))
    assert ours.attrib == stored.attrib
    assert [(e.tag, dict(e.attrib), e.text) for e in ours] == [(e.tag, dict(e.attrib), e.text) for e in stored]


@pytest.mark.parametrize("name", ["live-q35.xml", "config-q35.xml"])
def test_find_own(name: str) -> None:
    domain = golden(name)
    found = shmem.find_own(domain)
    assert found == shmem.Shmem(f"orion-{domain.findtext('uuid')}", 128 * MIB, shmem.ALIAS)
    assert shmem.find_foreign(domain) == []


def test_a_clone_is_seen() -> None:
    domain = golden("config-q35.xml")
    uuid = domain.find("uuid")
    assert uuid is not None
    uuid.text = OTHER
    assert shmem.find_own(domain) is None
    assert len(shmem.find_foreign(domain)) == 1


def test_others_devices_are_left_alone() -> None:
    domain = with_devices(
        "<shmem name='looking-glass'><model type='ivshmem-plain'/></shmem>"
        "<shmem name='orion-notes'><model type='ivshmem-doorbell'/><server path='/run/notes.sock'/></shmem>"
        f"<shmem name='orion-{OTHER}'><model type='ivshmem'/></shmem>")
    assert shmem.find_all(domain) == [] and shmem.find_foreign(domain) == []


def test_a_doorbell_carries_its_size_in_its_servers_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", "/run/elsewhere")
    uuid = OTHER.replace("9", "1")
    path = f"/run/elsewhere/doorbell/{uuid}-64.sock"
    text = shmem.device_xml(uuid, 64 * MIB, doorbell=True)
    assert f"path=\"{path}\"" in text and "<size" not in text and "vectors=\"32\"" in text
    assert shmem.find_own(with_devices(text)) == shmem.Shmem(f"orion-{uuid}", 64 * MIB, shmem.ALIAS, path)
    by_hand = with_devices(text.replace(path, "/var/lib/libvirt/shmem-db-sock"))
    found = shmem.find_own(by_hand)
    assert found is not None and found.size_bytes == 0


def test_a_clone_with_a_doorbell_is_seen() -> None:
    assert len(shmem.find_foreign(with_devices(shmem.device_xml(OTHER, MIB, doorbell=True)))) == 1


@pytest.mark.parametrize(("text", "unit", "expected"), [
    ("16", "M", 16 * MIB), ("16", "MiB", 16 * MIB), ("1", "G", 1024 * MIB), ("4194304", "b", 4 * MIB),
    ("4096", "KiB", 4 * MIB), ("1", "MB", 10**6), ("8", "bytes", 8)])
def test_sizes(text: str, unit: str, expected: int) -> None:
    assert shmem.size_in_bytes(text, unit) == expected


@pytest.mark.parametrize("text", [
    "", "<a>", "<network/>", "<domain><name>x</name></domain>",
    "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain><uuid>&x;</uuid></domain>"])
def test_bad_documents(text: str) -> None:
    with pytest.raises(ProtocolError):
        definition.parse(text)


VGPU = "<o:vgpu xmlns:o='https://orion-virt/domain/1' {}/>"


@pytest.mark.parametrize(("metadata", "policy", "nvidia", "wanted", "word"), [
    ("", definition.Policy(), False, True, "attach = all"),
    (VGPU.format(""), definition.Policy(), False, True, "marked"),
    ("", definition.Policy("marked"), False, False, "attach = marked"),
    (VGPU.format(""), definition.Policy("marked"), False, True, "marked"),
    (VGPU.format("enabled='yes'"), definition.Policy("marked"), False, True, "marked"),
    (VGPU.format("enabled='no'"), definition.Policy(), False, False, "enabled='no'"),
    ("", definition.Policy(exclude=("vm1",)), False, False, "exclude"),
    ("", definition.Policy(detached=frozenset([OTHER.replace("9", "1")])), False, False, "orion-virt attach"),
    ("", definition.Policy(), True, False, "NVIDIA")])
def test_decisions(metadata: str, policy: definition.Policy, nvidia: bool, wanted: bool, word: str) -> None:
    decision = definition.decide(with_devices("", metadata=metadata), policy, nvidia)
    assert decision.wanted is wanted and word in decision.reason


def test_host_devices() -> None:
    domain = with_devices(
        "<hostdev mode='subsystem' type='pci' managed='yes'><source>"
        "<address domain='0x0000' bus='0x65' slot='0x00' function='0x1'/></source></hostdev>"
        "<hostdev mode='subsystem' type='mdev'><source>"
        "<address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>"
        "<hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>")
    assert definition.host_devices(domain) == [
        "/sys/bus/pci/devices/0000:65:00.1/vendor",
        "/sys/bus/mdev/devices/c2177883-f1bb-47f0-914d-32a22e3a8804/../vendor"]


@pytest.mark.parametrize(("machine", "devices", "expected"), [
    ("pc-i440fx-7.2", "", 64 * MIB), ("pc-q35-7.2", "", 0),
    ("pc-q35-7.2", "<controller type='pci' model='pcie-root-port'/>", 0),
    ("pc-q35-7.2", "<controller type='pci' model='pcie-to-pci-bridge'/>", 2 * MIB)])
def test_live_limits(machine: str, devices: str, expected: int) -> None:
    assert definition.live_bytes(with_devices(devices, machine), 64 * MIB)[0] == expected


def test_region_size() -> None:
    assert definition.region_bytes(with_devices(""), 128 * MIB) == 128 * MIB
    assert definition.region_bytes(with_devices("", metadata=VGPU.format("region='300'")), MIB) == 512 * MIB
    assert definition.region_bytes(with_devices("", metadata=VGPU.format("region='-3'")), 128 * MIB) == 128 * MIB
