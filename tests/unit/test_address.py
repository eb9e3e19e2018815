# SPDX-License-Identifier: Apache-2.0
"""The gateway: the host's address on the guest's network, for every kind of interface."""

from __future__ import annotations

import pytest
from lxml import etree

from orion_virt.domain import address
from orion_virt.domain.address import Gateway, Interface

NAT = ("<network><forward mode='nat'/><bridge name='virbr0'/>"
       "<ip address='192.168.122.1' netmask='255.255.255.0'/></network>")
OPEN = NAT.replace("nat", "open")
ISOLATED = "<network><bridge name='virbr1'/><ip address='10.0.5.1' prefix='24'/></network>"
SIX = "<network><ip family='ipv6' address='fd00::1' prefix='64'/><ip address='10.0.6.1' prefix='24'/></network>"
ONLY_SIX = "<network><ip family='ipv6' address='fd00::1' prefix='64'/></network>"
BRIDGED = "<network><forward mode='bridge'/><bridge name='br0'/></network>"
MACVTAP = "<network><forward mode='private'><interface dev='eth0'/></forward></network>"


def nic(kind: str, source: str = "", mac: str = "52:54:00:00:00:01") -> str:
    return f"<interface type='{kind}'><mac address='{mac}'/>{source}</interface>"


NET = nic("network", "<source network='n' bridge='virbr0'/>")


def gateway(nics: str, network: str = "", bridges: dict[str, list[str]] | None = None,
            explicit: str | None = None) -> Gateway | None:
    domain = etree.fromstring(f"<domain><devices>{nics}</devices></domain>")
    networks = {"n": etree.fromstring(network)} if network else {}
    return address.gateway(address.interfaces(domain), networks, bridges or {}, explicit)


@pytest.mark.parametrize(("network", "expected"), [
    (NAT, "192.168.122.1"), (OPEN, "192.168.122.1"), (ISOLATED, "10.0.5.1"), (SIX, "10.0.6.1"), (ONLY_SIX, "fd00::1"),
    (BRIDGED, None), (MACVTAP, None), ("", None)])
def test_networks(network: str, expected: str | None) -> None:
    found = gateway(nic("network", "<source network='n'/>"), network)
    assert (found.address if found else None) == expected
    if found:
        assert found.listen == found.address and found.mac == "52:54:00:00:00:01"


def test_bridges() -> None:
    bridge = nic("bridge", "<source bridge='br0'/>")
    assert gateway(bridge) is None
    two = gateway(bridge, bridges={"br0": ["10.9.0.1", "10.8.0.1"]})
    assert two == Gateway("10.9.0.1", "10.9.0.1", "52:54:00:00:00:01")
    found = gateway(nic("network", "<source network='n'/>"), BRIDGED, {"br0": ["10.9.0.1"]})
    assert found is not None and found.address == "10.9.0.1"


def test_slirp_dials_one_address_and_listens_on_another() -> None:
    assert gateway(nic("user")) == Gateway("10.0.2.2", "127.0.0.1", "52:54:00:00:00:01")


@pytest.mark.parametrize("nics", [
    "", nic("direct", "<source dev='eth0' mode='bridge'/>"), nic("hostdev"), nic("vhostuser")])
def test_no_way_to_the_host(nics: str) -> None:
    assert gateway(nics) is None


def test_order_of_preference() -> None:
    several = nic("user", mac="52:54:00:00:00:02") + nic("bridge", "<source bridge='br0'/>") + NET
    found = gateway(several, NAT, {"br0": ["10.9.0.1"]})
    assert found is not None and found.address == "192.168.122.1"
    found = gateway(several, "", {"br0": ["10.9.0.1"]})
    assert found is not None and found.address == "10.9.0.1"


def test_what_somebody_wrote_down_wins() -> None:
    assert gateway(NET, NAT, explicit="10.1.1.1") == Gateway("10.1.1.1", "10.1.1.1")


def test_interfaces() -> None:
    domain = etree.fromstring(f"<domain><devices>{NET}{nic('user')}<interface type='network'/></devices></domain>")
    assert address.interfaces(domain) == [
        Interface("network", "52:54:00:00:00:01", "n", "virbr0"), Interface("user", "52:54:00:00:00:01"),
        Interface("network", "")]
