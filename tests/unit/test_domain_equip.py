# SPDX-License-Identifier: Apache-2.0
"""What oriond does with a domain, against a libvirt that is only a dictionary."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from orion_virt import layout
from orion_virt.config import ServerConfig
from orion_virt.domain import address, definition, metadata, shmem
from orion_virt.domain.connection import LIVE, View
from orion_virt.domain.nic import Device, GuestAddress
from orion_virt.errors import Conflict, NotFound, OrionError, Unavailable
from orion_virt.region import doorbell, header
from orion_virt.region.regions import Regions
from orion_virt.server import equip
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
        self.rows: list[GuestAddress] = []
        self.known = address.Facts()

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

    def guest_addresses(self, live: etree._Element, ask_agent: bool = True) -> list[GuestAddress]:
        return list(self.rows)

    def facts(self, live: etree._Element, guests: list[GuestAddress]) -> address.Facts:
        return replace(self.known, guests=guests)


class FakeHost:
    """Listens everywhere but at `missing`, has no channels."""

    closed = 0

    def __init__(self) -> None:
        self.wanted: dict[str, list[str]] = {}
        self.missing: dict[str, OrionError] = {}

    def listen_for(self, who: str, ips: Iterable[str]) -> dict[str, OrionError]:
        self.wanted[who] = list(ips)
        return {ip: self.missing[ip] for ip in self.wanted[who] if ip in self.missing}

    def listening_problems(self, who: str) -> list[str]:
        return [str(self.missing[ip]) for ip in self.wanted.get(who, []) if ip in self.missing]

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


def settings(domain: etree._Element, **values: str) -> None:
    """Writes a domain's metadata."""
    for element in domain.findall("metadata"):
        domain.remove(element)
    domain.append(domain.makeelement("metadata"))
    domain.find("metadata").append(metadata.element(values))  # type: ignore[union-attr]


def test_a_size_in_the_metadata_is_that_of_the_definitions_device(kit: Kit) -> None:
    """Whoever wrote it; where it says none, a device that somebody made otherwise is left alone."""
    conn = FakeConnection(xml(), None)
    drive(kit.equipper.define, conn)
    settings(conn.config, region="50")  # type: ignore[arg-type]
    drive(kit.equipper.define, conn)
    drive(kit.equipper.define, conn)
    assert conn.calls == ["attach config", "detach config", "attach config"]
    own = shmem.find_own(conn.config)  # type: ignore[arg-type]
    assert own is not None and own.size_bytes == 64 * MIB
    settings(conn.config)  # type: ignore[arg-type]
    drive(kit.equipper.define, conn)
    assert len(conn.calls) == 3


def test_defaults_in_the_header_follow_the_metadata(kit: Kit) -> None:
    conn = FakeConnection(None, xml())
    settings(conn.live, vgpus="2", memory="500")  # type: ignore[arg-type]

    def told() -> tuple[int, int]:
        drive(kit.equipper.run, conn)
        found = header.read(kit.regions.get(UUID).fd)
        assert found is not None
        return header.defaults(found)

    assert told() == (2, 500)
    before = kit.regions.get(UUID).identity
    settings(conn.live, memory="600")  # type: ignore[arg-type]
    assert told() == (0, 600)
    assert kit.regions.get(UUID).identity == before, "programs that run go on"


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


def bell(value: str, device: str = "") -> etree._Element:
    document = xml(NIC + device)
    document.insert(0, etree.fromstring(f"<metadata><o:vgpu xmlns:o='https://orion-virt/domain/1' doorbell='{value}'/></metadata>"))
    return document


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed hook, and sockets in a directory whose name is short enough."""
    hook = tmp_path / "50-orion-virt"
    hook.touch()
    monkeypatch.setattr(equip, "HOOK", hook)
    monkeypatch.setenv("ORION_RUN", "/run/orion")
    return hook


def test_doorbell_in_the_definition_follows_the_metadata(kit: Kit, hooked: Path) -> None:
    conn = FakeConnection(bell("yes"), None)
    drive(kit.equipper.define, conn)
    found = shmem.find_own(conn.config)  # type: ignore[arg-type]
    assert found is not None and found.server == f"/run/orion/doorbell/{UUID}-{found.size_bytes // MIB}.sock"
    drive(kit.equipper.define, conn)
    assert conn.calls == ["attach config"]
    conn.config = bell("no", shmem.device_xml(UUID, 32 * MIB, doorbell=True))
    drive(kit.equipper.define, conn)
    found = shmem.find_own(conn.config)
    assert found is not None and (found.server, found.size_bytes) == ("", 32 * MIB)
    assert conn.calls[1:] == ["detach config", "attach config"]


def test_doorbell_of_another_run_directory_is_replaced(kit: Kit, hooked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = FakeConnection(bell("yes", shmem.device_xml(UUID, 32 * MIB, doorbell=True)), None)
    monkeypatch.setenv("ORION_RUN", "/run/new")
    drive(kit.equipper.define, conn)
    found = shmem.find_own(conn.config)  # type: ignore[arg-type]
    assert found is not None and found.server == f"/run/new/doorbell/{UUID}-32.sock"


def test_without_the_hook_there_is_no_doorbell(kit: Kit, hooked: Path) -> None:
    """Nobody would start its server, and the domain would not start."""
    hooked.unlink()
    conn = FakeConnection(bell("yes", shmem.device_xml(UUID, 32 * MIB, doorbell=True)), None)
    drive(kit.equipper.define, conn)
    found = shmem.find_own(conn.config)  # type: ignore[arg-type]
    assert found is not None and found.server == ""
    assert "orion-virt hook install" in kit.equipper.problems[UUID]


def test_a_path_too_long_for_a_socket(kit: Kit, hooked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", "/run/" + "x" * 60)
    conn = FakeConnection(bell("yes"), None)
    drive(kit.equipper.define, conn)
    assert shmem.find_own(conn.config).server == "" and "too long" in kit.equipper.problems[UUID]  # type: ignore[arg-type, union-attr]


def test_a_doorbell_whose_server_is_gone_is_said_and_not_offered(kit: Kit, hooked: Path) -> None:
    conn = FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB, doorbell=True)))
    kit.regions.create(UUID, 4 * MIB)
    drive(kit.equipper.run, conn)
    found = header.read(kit.regions.get(UUID).fd)
    assert found is not None and found.features == layout.FEATURE_MAILBOX
    assert "until the next power cycle" in kit.equipper.problems[UUID]


def test_a_doorbell_that_rings_is_offered(kit: Kit, hooked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conn = FakeConnection(None, xml(NIC + shmem.device_xml(UUID, 4 * MIB, doorbell=True)))
    asked: list[str] = []
    monkeypatch.setattr(doorbell, "check", lambda control: asked.append(control) or "")
    kit.regions.create(UUID, 4 * MIB)
    drive(kit.equipper.run, conn)
    region = kit.regions.get(UUID)
    found = header.read(region.fd)
    assert found is not None and found.features == layout.FEATURE_DOORBELL | layout.FEATURE_MAILBOX
    assert asked == [region.doorbell] == [f"/run/orion/doorbell/{UUID}-4.ctl"]
    monkeypatch.setattr(doorbell, "check", lambda control: "gone")
    drive(kit.equipper.run, conn)
    found = header.read(region.fd)
    assert found is not None and (found.features, region.doorbell) == (layout.FEATURE_MAILBOX, "")
BRIDGE = "<interface type='bridge'><mac address='52:54:00:00:00:07'/><source bridge='br0'/></interface>"
BR0 = Device("br0", (ipaddress.ip_interface("10.9.0.1/24"), ipaddress.ip_interface("fd00:9::1/64")))


def connection(*devices: Device, nics: str = BRIDGE) -> FakeConnection:
    """A domain that runs with its device."""
    conn = FakeConnection(None, xml(nics + shmem.device_xml(UUID, 4 * MIB)))
    conn.known = address.Facts(devices={d.name: d for d in devices})
    return conn


def test_addresses_follow_the_host_under_a_running_domain(kit: Kit) -> None:
    """The header stays valid all the while, and keeps its secret."""
    conn = connection(BR0)
    kit.regions.create(UUID, 4 * MIB)
    drive(kit.equipper.run, conn)
    region = kit.regions.get(UUID)
    before = header.read(region.fd)
    assert region.server_addrs == ("10.9.0.1:9960", "[fd00:9::1]:9960") and kit.host.wanted[UUID] == ["10.9.0.1", "fd00:9::1"]
    conn.known = address.Facts(devices={"br0": replace(BR0, addresses=())})
    drive(kit.equipper.run, conn)
    gone = header.read(region.fd)
    assert kit.host.wanted[UUID] == [] and UUID not in kit.equipper.problems  # the region alone does
    assert before and gone and bytes(gone.token) == bytes(before.token) and not any(gone.server_addr[i].value for i in range(4))
    conn.known = address.Facts(devices={"br0": BR0})
    drive(kit.equipper.run, conn)
    back = header.read(region.fd)
    assert back and back.server_addr[0].value == b"10.9.0.1:9960" and back.server_addr[1].value == b"[fd00:9::1]:9960"
    assert back.controller_addr == b"10.9.0.1:9123" and bytes(back.boot_id) == b"b" * 16
    asyncio.run(kit.equipper.end(UUID, "vm1", "stopped"))
    assert kit.host.wanted[UUID] == [] and kit.equipper.reach.describe(UUID)["gateways"] == []


def test_addresses_that_cannot_be_listened_on_are_not_in_the_header(kit: Kit) -> None:
    conn = connection(BR0)
    kit.regions.create(UUID, 4 * MIB)
    kit.host.missing["10.9.0.1"] = Unavailable("cannot listen on 10.9.0.1:9960", hint="Is another oriond running?")
    drive(kit.equipper.run, conn)
    assert kit.regions.get(UUID).server_addrs == ("[fd00:9::1]:9960",)
    kit.host.missing["fd00:9::1"] = Unavailable("cannot listen on [fd00:9::1]:9960", hint="Is another oriond running?")
    drive(kit.equipper.run, conn)
    assert kit.regions.get(UUID).server_addrs == () and UUID not in kit.equipper.problems
    assert kit.equipper.reach.problems(UUID) == [str(kit.host.missing[ip]) for ip in ("10.9.0.1", "fd00:9::1")]


def test_what_was_known_of_the_guest_is_kept_for_this_run(kit: Kit) -> None:
    """The kernel forgets neighbours; the guest has its address all the same."""
    second = "<interface type='bridge'><mac address='52:54:00:00:00:08'/><source bridge='br1'/></interface>"
    conn = connection(BR0, replace(BR0, name="br1", addresses=(ipaddress.ip_interface("10.8.0.1/24"),)), nics=BRIDGE + second)
    kit.regions.create(UUID, 4 * MIB)
    drive(kit.equipper.run, conn)
    reach, region = kit.equipper.reach, kit.regions.get(UUID)
    assert len(region.server_addrs) == 3
    assert reach.concerned_by("52:54:00:00:00:08") == [UUID] and reach.concerned_by("52:54:00:00:00:99") == []
    conn.rows = [GuestAddress("vnet1", "52:54:00:00:00:08", "10.8.0.9", 0, "arp")]
    drive(kit.equipper.run, conn)
    assert region.server_addrs == ("10.8.0.1:9960",) and reach.concerned_by("52:54:00:00:00:08") == []
    conn.rows = []
    drive(kit.equipper.run, conn)
    assert region.server_addrs == ("10.8.0.1:9960",) and reach.in_doubt() == []
    conn.live = xml(BRIDGE + second.replace("br1", "br0") + shmem.device_xml(UUID, 4 * MIB))  # plugged in elsewhere
    drive(kit.equipper.run, conn)
    assert region.server_addrs == ("10.9.0.1:9960", "[fd00:9::1]:9960")
    conn.live = xml(BRIDGE + second + shmem.device_xml(UUID, 4 * MIB))
    for row in (GuestAddress("vnet1", "52:54:00:00:00:08", "10.8.0.9", 0, "arp"),
                GuestAddress("vnet0", "52:54:00:00:00:07", "10.9.0.9", 24, "lease")):
        conn.rows = [row]
        drive(kit.equipper.run, conn)
    assert region.server_addrs[0] == "10.9.0.1:9960" and len(region.server_addrs) == 3
    conn.rows = []  # the lease has ended
    drive(kit.equipper.run, conn)
    assert region.server_addrs == ("10.8.0.1:9960",)
    conn.number = 2
    drive(kit.equipper.run, conn)
    assert len(kit.regions.get(UUID).server_addrs) == 3
