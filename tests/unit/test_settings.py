# SPDX-License-Identifier: Apache-2.0
"""`set` against libvirt's own test driver: what it writes is what virsh would, and it says when it takes effect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from orion_virt.config import ServerConfig
from orion_virt.domain import metadata
from orion_virt.domain.connection import CONFIG, LIVE, Connection
from orion_virt.errors import ConfigError, Conflict, OrionError, ProtocolError
from orion_virt.region.regions import Regions
from orion_virt.server import settings
from orion_virt.server.ceilings import Ceilings
from orion_virt.server.domains import Domains

NAME = "vm1"
# The driver's own file, since all of a process share test:///default. Its domains run.
NODE = """<node><domain type='test'><name>vm1</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
<memory>8192</memory><os><type>hvm</type></os></domain></node>"""


class FakeHost:
    """Has no channels, listens nowhere."""

    def __init__(self, directory: Path) -> None:
        self.ceilings = Ceilings(directory / "ceilings.json")

    def channels(self, uuid: str) -> list[dict[str, Any]]:
        return []

    def close_channels(self, uuid: str, reason: str, guest_gone: bool = False) -> int:
        return 0

    def server_addrs(self) -> list[str]:
        return []

    def listen_for(self, who: str, addresses: object) -> dict[str, object]:
        return {}

    def listening_problems(self, who: str) -> list[str]:
        return []


class Kit:
    """oriond's libvirt part on the test driver."""

    def __init__(self, directory: Path) -> None:
        (directory / "shm").mkdir()
        config = ServerConfig(
            shm_path_base=str(directory / "shm"),
            shm_group_name="root",
            libvirt_attach="marked",
            shm_budget_bytes=1 << 30,
        )
        self.host = FakeHost(directory)
        self.domains = Domains(config, Regions(config, b"b" * 16, b"", None), self.host)  # type: ignore[arg-type]
        (directory / "node.xml").write_text(NODE)
        self.conn = Connection.open(f"test://{directory}/node.xml", lambda _: None, lambda: None, lambda _: None, lambda: None)
        self.domains._conn = self.conn
        self.raw = self.conn._raw.lookupByName(NAME)

    def set(self, *unset: str, live: bool = False, config: bool = False, **values: Any) -> dict[str, Any]:
        request = {"domain": NAME, "values": values, "unset": list(unset), "live": live, "config": config}
        return asyncio.run(self.domains.commands["set"](request))

    def virsh(self, fragment: str | None, flag: int) -> None:
        """As `virsh metadata` does it."""
        self.raw.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, fragment, metadata.PREFIX, metadata.URI, flag)

    def both(self) -> tuple[dict[str, str], dict[str, str]]:
        """(live, definition)"""
        view = self.conn.view(self.raw.UUIDString())
        assert view is not None and view.live is not None and view.config is not None
        return metadata.values_of(view.live), metadata.values_of(view.config)


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kit]:
    monkeypatch.setenv("ORION_STATE", str(tmp_path))
    made = Kit(tmp_path)
    yield made
    made.conn.close()


def test_definition_and_running_domain(kit: Kit) -> None:
    answer = kit.set(vgpus="2", memory="12000")
    assert kit.both() == ({"vgpus": "2", "memory": "12000"},) * 2
    assert answer["effects"] == {"vgpus": settings.FROM_NOW, "memory": settings.FROM_NOW}
    assert answer["settings"] == answer["next_settings"] == {"vgpus": "2", "memory": "12000"}
    ceiling = kit.host.ceilings.of(kit.raw.UUIDString())
    assert (ceiling.vgpus, ceiling.memory_mib) == (2, 12000), "in force when the command returns"
    assert f'xmlns:orion="{metadata.URI}"' in kit.raw.XMLDesc(0)


def test_one_of_them_alone(kit: Kit) -> None:
    assert kit.set(live=True, vgpus="2")["effects"] == {"vgpus": settings.FROM_NOW}
    assert kit.both() == ({"vgpus": "2"}, {})
    answer = kit.set(config=True, vgpus="3", compute="50")
    assert answer["effects"] == {"vgpus": settings.NEXT_START, "compute": settings.NEXT_START}
    assert kit.both() == ({"vgpus": "2"}, {"vgpus": "3", "compute": "50"})
    assert kit.host.ceilings.of(kit.raw.UUIDString()).vgpus == 2
    with_both = kit.set(live=True, config=True, memory="9")
    assert (with_both["settings"]["memory"], with_both["next_settings"]["memory"]) == ("9", "9")


def test_unset(kit: Kit) -> None:
    kit.set(vgpus="2", memory="5")
    kit.set("vgpus")
    assert kit.both() == ({"memory": "5"},) * 2
    kit.set("memory")
    assert kit.both() == ({}, {}) and metadata.URI not in kit.raw.XMLDesc(0)
    assert kit.host.ceilings.of(kit.raw.UUIDString()).vgpus is None


def test_the_same_as_virsh(kit: Kit) -> None:
    kit.set(vgpus="2", memory="12000")
    ours = kit.raw.XMLDesc(0)
    kit.virsh(None, LIVE)
    kit.virsh("<vgpu vgpus='2' memory='12000'/>", LIVE)
    assert kit.raw.XMLDesc(0) == ours


def test_what_virsh_wrote_wrong_can_be_repaired(kit: Kit) -> None:
    kit.virsh("<vgpu vgpu='2' memory='lots'/>", CONFIG)
    with pytest.raises(ConfigError, match="vgpu") as caught:
        kit.set(config=True, total="4")
    assert "--unset" in caught.value.hint
    kit.set("vgpu", config=True, memory="8000")
    assert kit.both()[1] == {"memory": "8000"}


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        ({"values": {"vgpus": "33"}}, ConfigError, "1 to 32"),
        ({"values": {"vgpu": "1"}}, ConfigError, "no setting 'vgpu'"),
        ({"unset": ["vgpu"]}, ConfigError, "no setting 'vgpu'"),
        ({}, ProtocolError, "nothing to set"),
        ({"values": {"vgpus": "1"}, "unset": ["vgpus"]}, ConfigError, "both set and unset"),
        ({"values": ["vgpus"]}, ProtocolError, "nothing to set"),
        ({"values": {"vgpus": 2, "gateway": "host"}}, ConfigError, "an IP address"),
    ],
)
def test_what_is_wrong_changes_nothing(kit: Kit, request_: dict[str, Any], kind: type[OrionError], words: str) -> None:
    with pytest.raises(kind, match=words):
        asyncio.run(kit.domains.commands["set"]({"domain": NAME, **request_}))
    assert kit.both() == ({}, {})


@pytest.mark.parametrize(("stop", "live", "words"), [(True, True, "is not running"), (False, False, "transient")])
def test_what_the_state_forbids(kit: Kit, stop: bool, live: bool, words: str) -> None:
    if stop:
        kit.raw.destroy()
    else:
        kit.raw.undefine()
    with pytest.raises(Conflict, match=words):
        kit.set(live=live, config=not live, vgpus="1")


def test_a_domain_that_does_not_run(kit: Kit) -> None:
    kit.raw.destroy()
    answer = kit.set(vgpus="1", required="yes")
    assert answer["effects"] == {"vgpus": settings.NEXT_START, "required": settings.NEXT_START}
    assert asyncio.run(kit.domains.commands["names"]({}))["names"] == [NAME]


def test_required_and_enabled_of_a_running_domain(kit: Kit) -> None:
    answer = kit.set(required="yes", enabled="no")
    assert answer["effects"] == {"required": settings.NEXT_START, "enabled": settings.NOW}


@pytest.mark.parametrize(
    ("live_mib", "config_mib", "when"),
    [
        (128, 128, settings.NOW),
        (None, 128, settings.NEXT_START),
        (64, 128, settings.NEXT_START + "; the running domain keeps 64 MiB until it is shut down"),
    ],
)
def test_region(kit: Kit, live_mib: int | None, config_mib: int, when: str) -> None:
    from test_domain_equip import UUID, xml

    from orion_virt.domain import shmem
    from orion_virt.domain.connection import View

    def domain(mib: int | None) -> Any:
        made = xml(shmem.device_xml(UUID, mib << 20) if mib else "")
        made.append(made.makeelement("metadata"))
        made.find("metadata").append(metadata.element({"region": "128"}))
        return made

    view = View(UUID, "vm1", 1, domain(live_mib), domain(config_mib))
    assert settings.effects(view, {"region": "128"}) == {"region": when}


def test_every_setting_has_an_option() -> None:
    from orion_virt.cli.set import OPTIONS

    assert tuple(sorted(OPTIONS)) == tuple(sorted(metadata.NAMES))
