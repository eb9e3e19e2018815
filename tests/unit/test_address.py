# SPDX-License-Identifier: Apache-2.0
"""The gateway: the host's address on the guest's network, for every kind of NIC and network, and the order among them.

The golden XML is libvirt 9.0's own of a running domain and its networks, but for what needs hardware (from its
documentation): macvtap, hostdev, vhostuser, ethernet, passt.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from orion_virt.domain import address, host_network
from orion_virt.domain.address import Choice, Facts
from orion_virt.domain.nic import Device, GuestAddress, Interface, Network

GOLDEN = Path(__file__).with_name("golden")
NICS = {nic.mac[-2:]: nic for nic in address.interfaces(etree.parse(GOLDEN / "domain" / "live-nics.xml").getroot())}
NETWORKS = {path.stem: Network.parse(etree.parse(path).getroot()) for path in (GOLDEN / "network").glob("*.xml")}
DEVICES = {d.name: d for d in map(Device.parse, json.loads((GOLDEN / "ip-addr.json").read_text()))}
FACTS = Facts(NETWORKS, DEVICES)
NAT, ROUTED, ISOLATED, SIX, DUAL, BRIDGED, BARE, BRIDGE, USER, USER_ELSEWHERE = (f"{n:02x}" for n in range(10))
MACVTAP_NETWORK, MACVTAP, HOSTDEV, VHOSTUSER, TAP, TAP_OF_BRIDGE, PASST, LINK_DOWN = (f"{n:02x}" for n in range(10, 18))
ON_BRIDGE = ["10.213.81.1", "192.0.2.1", "2001:db8:81::1"]


def choose(*which: str, facts: Facts = FACTS, bind: tuple[str, ...] = (), named: str | None = None) -> Choice:
    return address.choose([NICS[w] for w in which], facts, bind, named)


def dialled(choice: Choice) -> list[str]:
    return [gateway.address for gateway in choice.gateways]


def seen(which: str, ip: str, source: str = "lease") -> GuestAddress:
    return GuestAddress("vnet", NICS[which].mac, ip, 24, source)


def knowing(*guests: GuestAddress) -> Facts:
    return replace(FACTS, guests=guests)


@pytest.mark.parametrize(("which", "addresses", "why"), [
    (NAT, ["10.213.78.1"], "on the nat network 'nat', on which this host is 10.213.78.1/24"),
    (ROUTED, ["10.213.82.1"], "on the route network 'routed'"),
    (ISOLATED, ["10.213.79.1"], "on the isolated network 'isolated'"),
    (SIX, ["fd00:213:80::1"], "on the open network 'six', on which this host is fd00:213:80::1/64"),
    (DUAL, ["10.213.83.1", "fd00:213:83::1"], "on the open network 'dual'"),
    (BRIDGED, ON_BRIDGE, "on the bridge hostbr0, on which this host is 10.213.81.1/24"),
    (BRIDGE, ON_BRIDGE, "on the bridge hostbr0"),
    (TAP, ["10.213.90.1"], "on the tap device tap0, on which this host is 10.213.90.1/32"),
    (TAP_OF_BRIDGE, ON_BRIDGE, "on the bridge hostbr0")])
def test_each_kind_of_nic(which: str, addresses: list[str], why: str) -> None:
    """No link-local, temporary or tentative address is among them, and IPv4 comes first."""
    choice = choose(which)
    assert dialled(choice) == addresses and why in choice.gateways[0].why and choice.unusable == ()
    assert {(g.listen, g.mac) for g in choice.gateways} == {(a, NICS[which].mac) for a in addresses}


@pytest.mark.parametrize(("which", "ip"), [(USER, "10.0.2.2"), (USER_ELSEWHERE, "172.17.2.2")])
def test_user_mode_dials_one_address_and_listens_on_another(which: str, ip: str) -> None:
    gateway, = choose(which).gateways
    assert (gateway.address, gateway.listen) == (ip, "127.0.0.1") and f"in which {ip} is this host's 127.0.0.1" in gateway.why


@pytest.mark.parametrize(("subnet", "ip"), [("10.5.0.0/16", "10.5.2.2"), ("10.5.0.8/29", "10.5.0.10"), ("10.5.0.7/8", "10.0.2.2")])
def test_user_mode_subnets(subnet: str, ip: str) -> None:
    """QEMU's rule: the bits of 2.2, as far as the mask leaves room."""
    assert dialled(address.choose([replace(NICS[USER], subnet=subnet)], FACTS)) == [ip]


@pytest.mark.parametrize(("which", "why"), [
    (MACVTAP, "is macvtap on eth0: a guest and its host do not hear each other over it"),
    (MACVTAP_NETWORK, "is macvtap on eth0"),
    (HOSTDEV, "is of type hostdev"), (VHOSTUSER, "is of type vhostuser"), (PASST, "name it by gateway="),
    (BARE, "on the bridge barebr0, on which this host has no address: ip addr add ADDRESS/PREFIX dev barebr0")])
def test_no_way_and_why(which: str, why: str) -> None:
    choice = choose(which)
    assert choice.gateways == () and len(choice.unusable) == 1
    assert choice.unusable[0].startswith(f"NIC {NICS[which].mac} ") and why in choice.unusable[0]


def test_no_nic() -> None:
    assert choose() == Choice()


@pytest.mark.parametrize(("network", "why"), [
    ("macvtap", "on the network 'macvtap' (mode bridge), on which this host has no address"),
    ("hostdev", "on the network 'hostdev' (mode hostdev), on which"),
    ("gone", "on the network 'gone', which libvirt does not know: virsh net-list --all"),
    ("bridged", "")])
def test_networks_before_the_domain_runs(network: str, why: str) -> None:
    """The definition names the network alone, whatever its kind."""
    choice = address.choose([Interface("network", "52:54:00:00:01:00", network)], FACTS)
    assert (choice.unusable and why in choice.unusable[0]) if why else dialled(choice) == ON_BRIDGE


def test_a_network_or_device_that_is_not_there_now() -> None:
    down = replace(FACTS, networks=NETWORKS | {"nat": replace(NETWORKS["nat"], active=False)})
    assert "which is not active: virsh net-start nat" in choose(NAT, facts=down).unusable[0]
    assert dialled(choose(NAT, ISOLATED, facts=down)) == ["10.213.79.1"]
    nothing = replace(FACTS, devices={})
    assert "hostbr0, which this host does not have (now)" in choose(BRIDGE, facts=nothing).unusable[0]
    assert "is a tap device that is not there yet" in choose(TAP, facts=nothing).unusable[0]


def test_order_of_preference() -> None:
    """Networks that libvirt puts the host on, then bridges, then user mode; equally good ones together, at most four."""
    assert dialled(choose(USER, BRIDGE, MACVTAP, ISOLATED, NAT)) == ["10.213.79.1", "10.213.78.1"]
    assert dialled(choose(USER, BRIDGE)) == ON_BRIDGE
    assert dialled(choose(MACVTAP, USER)) == ["10.0.2.2"]
    assert dialled(choose(NAT, ROUTED, ISOLATED, DUAL, SIX)) == ["10.213.78.1", "10.213.82.1", "10.213.79.1", "10.213.83.1"]
    assert dialled(choose(BRIDGE, BRIDGED)) == ON_BRIDGE


def test_the_guests_own_address_picks_the_nic() -> None:
    choice = choose(NAT, BRIDGE, facts=knowing(seen(BRIDGE, "10.213.81.57", "arp")))
    assert dialled(choice) == ["10.213.81.1", "2001:db8:81::1"] and choice.gateways[0].confirmed
    assert choice.gateways[0].why.endswith("; the guest's 10.213.81.57 (arp) is in the same subnet") and choice.open_question
    both = choose(BRIDGE, NAT, facts=knowing(seen(BRIDGE, "10.213.81.57", "arp"), seen(NAT, "10.213.78.9")))
    assert dialled(both) == ["10.213.78.1", "10.213.81.1", "2001:db8:81::1"]
    assert dialled(choose(BRIDGE, NAT, facts=knowing(seen(NAT, "10.213.78.9")))) == ["10.213.78.1"]
    six = choose(DUAL, facts=knowing(seen(DUAL, "fd00:213:83::10")))
    assert dialled(six) == ["fd00:213:83::1", "10.213.83.1"] and not six.open_question
    assert dialled(choose(USER, facts=knowing(seen(USER, "10.0.2.15", "agent")))) == ["10.0.2.2"]


def test_the_bridges_address_in_the_guests_subnet() -> None:
    """An address in another subnet than the guest's is not given where a better one is there."""
    choice = choose(BRIDGE, facts=knowing(seen(BRIDGE, "192.0.2.57", "agent")))
    assert dialled(choice) == ["192.0.2.1", "2001:db8:81::1"]
    alone = choose(NAT, facts=knowing(seen(NAT, "172.16.0.9", "agent")))
    assert dialled(alone) == ["10.213.78.1"] and not alone.gateways[0].confirmed
    assert "the guest's 172.16.0.9 (agent)" in alone.doubt and "is not in 10.213.78.0/24" in alone.doubt
    assert dialled(choose(NAT, BRIDGE, facts=knowing(seen(NAT, "172.16.0.9", "agent")))) == ON_BRIDGE
    silent = knowing(seen(SIX, "fe80::5054:ff:fea3:74e0", "agent"), GuestAddress("eth0", NICS[SIX].mac, "", 0, "agent"))
    assert choose(SIX, facts=silent).doubt == ""


def test_a_tap_device_that_lost_its_bridge() -> None:
    """As after `virsh net-destroy` and `net-start`."""
    loose = replace(FACTS, devices=DEVICES | {"vnet0": replace(DEVICES["vnet0"], master=None)})
    assert "ip link set vnet0 master natbr0" in choose(NAT, facts=loose).doubt
    assert choose(NAT).doubt == ""
    assert dialled(choose(NAT, BRIDGE, facts=loose)) == ON_BRIDGE


def test_a_link_that_is_down() -> None:
    choice = choose(LINK_DOWN)
    assert dialled(choice) == ON_BRIDGE and "virsh domif-setlink DOMAIN vnet8 up" in choice.doubt
    assert dialled(choose(LINK_DOWN, USER)) == ["10.0.2.2"]


def test_what_somebody_wrote_down_wins() -> None:
    assert dialled(choose(NAT, named="198.51.100.1")) == ["198.51.100.1"]
    bridge, = choose(NAT, BRIDGE, named="192.0.2.1").gateways
    assert bridge.listen == "192.0.2.1" and bridge.why.startswith("gateway= in the domain's metadata names it; NIC ")
    slirp, = choose(NAT, USER, named="10.0.2.2").gateways
    assert slirp.listen == "127.0.0.1"
    passt, = choose(PASST, named="192.168.1.1").gateways
    assert (passt.address, passt.listen) == ("192.168.1.1", "127.0.0.1")
    ours, = choose(PASST, named="10.213.81.1").gateways
    assert ours.listen == "10.213.81.1"


def test_bind_addr_wins_over_all() -> None:
    choice = choose(NAT, bind=("198.51.100.1",), named="10.1.1.1")
    assert dialled(choice) == ["198.51.100.1"] and choice.gateways[0].why == "[server] bind_addr names it"
    many = ("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "10.213.78.1")
    assert dialled(choose(NAT, bind=many)) == ["10.213.78.1", *many[:3]]
    assert dialled(choose(MACVTAP, bind=("198.51.100.1",))) == ["198.51.100.1"]


def test_bind_addr_of_every_address_or_loopback() -> None:
    assert dialled(choose(DUAL, bind=("0.0.0.0",))) == ["10.213.83.1"]
    assert dialled(choose(DUAL, bind=("0.0.0.0", "::"))) == ["10.213.83.1", "fd00:213:83::1"]
    assert dialled(choose(NAT, bind=("0.0.0.0",), named="192.0.2.1")) == ["192.0.2.1"]
    assert dialled(choose(USER, bind=("127.0.0.1",))) == ["10.0.2.2"]
    nowhere = choose(NAT, bind=("127.0.0.1",))
    assert nowhere.gateways == () and "bind_addr lists only 127.0.0.1, which this guest cannot dial" in nowhere.unusable[0]


def test_interfaces() -> None:
    assert NICS[NAT] == Interface("network", "52:54:00:00:00:00", "nat", "natbr0", target="vnet0")
    assert NICS[MACVTAP_NETWORK] == Interface("direct", "52:54:00:00:00:0a", "macvtap", source="eth0", target="macvtap0")
    assert address.interfaces(etree.fromstring("<domain><devices><interface type='network'/></devices></domain>")) == [
        Interface("network", "")]


def test_the_neighbour_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of our NICs that are there, without link-local ones; as virsh shows them, without a prefix."""
    monkeypatch.setattr(host_network, "_ip", lambda what: json.loads((GOLDEN / f"ip-{what}.json").read_text()))
    assert host_network.neighbours([NICS[BRIDGE], NICS[NAT]]) == [
        GuestAddress("vnet7", "52:54:00:00:00:07", "10.213.81.57", 0, "arp"),
        GuestAddress("vnet7", "52:54:00:00:00:07", "2001:db8:81::57", 0, "arp")]
    assert host_network.neighbours([]) == []


@pytest.mark.parametrize(("said", "row"), [
    (("eth0", "52:54:00:AA:00:01", "10.0.0.9", 24), ("eth0", "52:54:00:aa:00:01", "10.0.0.9", 24)),
    (("eth0\x1b[2J" + "x" * 99, None, "", 0), ("eth0?[2J" + "x" * 56, "", "", 0)),
    (("lo", "", "fe80::1%eth0", 64), ("lo", "", "fe80::1%eth0", 64)),
    (("eth0", "", "10.0.0.9", 99), ("eth0", "", "10.0.0.9", 0)), (("eth0", "", "10.0.0.9\n", 24), None),
    (("eth0", "", "<script>", 24), None)])
def test_what_an_agent_may_make_up(said: tuple[str, str, str, int], row: tuple[str, str, str, int] | None) -> None:
    found = GuestAddress.checked(*said, "agent")
    assert found == (None if row is None else GuestAddress(*row, "agent"))
