# SPDX-License-Identifier: Apache-2.0
"""Where a guest's own addresses come from: leases, then its agent, then the neighbour table, as far as each is needed."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest
from lxml import etree

from orion_virt.domain import host_network
from orion_virt.domain.connection import Connection
from orion_virt.domain.nic import GuestAddress, Interface
from orion_virt.errors import Unavailable

LEASE, AGENT = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
ONE, TWO, THREE = (f"52:54:00:00:00:0{n}" for n in (1, 2, 3))
LEASED = {"vnet0": {"hwaddr": ONE, "addrs": [{"addr": "10.0.0.9", "prefix": 24, "type": 0}]}}
TOLD = {"lo": {"hwaddr": None, "addrs": [{"addr": "127.0.0.1", "prefix": 8, "type": 0}]},
        "eth0": {"hwaddr": ONE, "addrs": [{"addr": "10.0.0.9", "prefix": 24, "type": 0}]},
        "eth1": {"hwaddr": TWO.upper(), "addrs": [{"addr": "10.1.0.9", "prefix": 16, "type": 0},
                                                  {"addr": "rubbish", "prefix": 16, "type": 0}]},
        "eth2": {"hwaddr": THREE, "addrs": None}}


class Raw:
    """A connection and its one domain."""

    def __init__(self, answers: dict[int, dict[str, Any]]) -> None:
        self.answers, self.asked = answers, list[int]()

    def lookupByUUIDString(self, uuid: str) -> Raw:
        assert uuid == "u1"
        return self

    def interfaceAddresses(self, source: int) -> dict[str, Any]:
        self.asked.append(source)
        if source not in self.answers:
            raise libvirt.libvirtError("Guest agent is not responding")
        return self.answers[source]


def domain(*macs: str, agent: str = "connected") -> etree._Element:
    nics = "".join(f"<interface type='bridge'><mac address='{m}'/><source bridge='br0'/></interface>" for m in macs)
    channel = f"<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='{agent}'/></channel>"
    return etree.fromstring(f"<domain><uuid>u1</uuid><devices>{nics}{channel}</devices></domain>")


@pytest.fixture
def neighbours(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Of which NICs the neighbour table was asked; it knows the third."""
    asked: list[list[str]] = []

    def answer(nics: list[Interface]) -> list[GuestAddress]:
        asked.append([nic.mac for nic in nics])
        return [GuestAddress("vnet2", THREE, "10.2.0.9", 0, "arp") for nic in nics if nic.mac == THREE]

    monkeypatch.setattr(host_network, "neighbours", answer)
    return asked


def test_each_source_is_asked_for_what_the_ones_before_do_not_know(neighbours: list[list[str]]) -> None:
    raw = Raw({LEASE: LEASED, AGENT: TOLD})
    rows = Connection(raw).guest_addresses(domain(ONE, TWO, THREE))  # type: ignore[arg-type]
    assert rows == [GuestAddress("vnet0", ONE, "10.0.0.9", 24, "lease"), GuestAddress("lo", "", "127.0.0.1", 8, "agent"),
                    GuestAddress("eth1", TWO, "10.1.0.9", 16, "agent"), GuestAddress("eth2", THREE, "", 0, "agent"),
                    GuestAddress("vnet2", THREE, "10.2.0.9", 0, "arp")]
    assert raw.asked == [LEASE, AGENT] and neighbours == [[THREE]]


@pytest.mark.parametrize(("macs", "agent", "ask"), [((ONE,), "connected", True), ((ONE, TWO), "disconnected", True),
                                                     ((ONE, TWO), "connected", False)])
def test_an_agent_is_not_asked_in_vain(neighbours: list[list[str]], macs: tuple[str, ...], agent: str, ask: bool) -> None:
    raw = Raw({LEASE: LEASED, AGENT: TOLD})
    rows = Connection(raw).guest_addresses(domain(*macs, agent=agent), ask)  # type: ignore[arg-type]
    assert raw.asked == [LEASE] and [row.source for row in rows] == ["lease"]


def test_sources_that_fail(neighbours: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    assert Connection(Raw({})).guest_addresses(domain(THREE)) == [  # type: ignore[arg-type]
        GuestAddress("vnet2", THREE, "10.2.0.9", 0, "arp")]

    def fails(nics: list[Interface]) -> list[GuestAddress]:
        raise Unavailable("`ip -j neigh` fails")

    monkeypatch.setattr(host_network, "neighbours", fails)
    assert Connection(Raw({LEASE: LEASED})).guest_addresses(domain(ONE, TWO)) == [  # type: ignore[arg-type]
        GuestAddress("vnet0", ONE, "10.0.0.9", 24, "lease")]


def test_a_tool_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unavailable, match="`ip -j addr` fails.*Install iproute2"):
        host_network.devices()
