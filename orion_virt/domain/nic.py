# SPDX-License-Identifier: Apache-2.0
"""NICs, networks and the devices behind them, as libvirt's XML and `ip -j` describe them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lxml import etree

IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_LONGEST_NAME = 64  # characters of what a guest calls its interface
_UNFIT = ("temporary", "deprecated", "tentative", "dadfailed")  # of an address: passing, or not usable yet


@dataclass(frozen=True)
class GuestAddress:
    """A row of `virsh domifaddr`; ``source`` is lease, agent or arp. No address: the guest's NIC has none."""

    name: str
    mac: str
    address: str
    prefix: int
    source: str

    @classmethod
    def checked(cls, name: object, mac: object, address: object, prefix: object, source: str) -> GuestAddress | None:
        """Of what a guest's agent may have made up: None where it is no address; nothing unprintable reaches a terminal."""
        text = str(address or "")
        try:
            bits = ipaddress.ip_address(text).max_prefixlen if text else 0
        except ValueError:
            return None
        width = prefix if isinstance(prefix, int) and 0 <= prefix <= bits else 0
        return cls(_printable(name), _printable(mac).lower(), text, width, source)

    @property
    def protocol(self) -> str:
        return "ipv6" if ":" in self.address else "ipv4"


@dataclass(frozen=True)
class Interface:
    """One NIC of a domain."""

    kind: str
    mac: str
    network: str | None = None
    bridge: str | None = None
    source: str | None = None  # host device of macvtap
    target: str | None = None  # tap device
    subnet: str | None = None  # IPv4 subnet of user-mode networking
    backend: str = ""
    link_up: bool = True

    @classmethod
    def parse(cls, element: etree._Element) -> Interface:
        """From an <interface> element."""
        source, mac = element.find("source"), element.find("mac")
        target, backend = element.find("target"), element.find("backend")
        where = {} if source is None else source.attrib
        subnet = next((f"{ip.get('address')}/{ip.get('prefix', '24')}" for ip in element.iterfind("ip")
                       if ip.get("family", "ipv4") == "ipv4" and ip.get("address")), None)
        return cls(
            kind=str(element.get("type", "")), mac="" if mac is None else str(mac.get("address", "")).lower(),
            network=where.get("network"), bridge=where.get("bridge"), source=where.get("dev"),
            target=None if target is None else target.get("dev"), subnet=subnet,
            backend="" if backend is None else str(backend.get("type", "")),
            link_up=not element.xpath("link[@state='down']"))

    @property
    def label(self) -> str:
        return self.mac or self.target or "without a MAC address"


@dataclass(frozen=True)
class Network:
    """A libvirt network. ``mode``: nat, route, open, isolated, bridge, private, ...; IPv4 addresses come first."""

    name: str
    mode: str
    bridge: str | None
    addresses: tuple[IpInterface, ...]
    active: bool = True

    @classmethod
    def parse(cls, xml: etree._Element, active: bool = True) -> Network:
        """From a network's XML."""
        forward, bridge = xml.find("forward"), xml.find("bridge")
        found = [a for ip in xml.iterfind("ip") if (a := _interface(ip.get("address"), ip.get("prefix") or ip.get("netmask")))]
        return cls(str(xml.findtext("name", "")), "isolated" if forward is None else str(forward.get("mode", "nat")),
                   None if bridge is None else bridge.get("name"), tuple(_usable(found)), active)


@dataclass(frozen=True)
class Device:
    """A network device of this host. ``master``: the bridge whose port it is."""

    name: str
    addresses: tuple[IpInterface, ...] = ()
    master: str | None = None

    @classmethod
    def parse(cls, link: Mapping[str, Any]) -> Device:
        """From an object of `ip -j addr`."""
        infos = [a for a in link.get("addr_info", []) if a.get("scope") == "global" and not any(a.get(w) for w in _UNFIT)]
        found = [a for info in infos if (a := _interface(info.get("local"), info.get("prefixlen")))]
        return cls(str(link.get("ifname", "")), tuple(_usable(found)), link.get("master"))


def _printable(text: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(text or ""))[:_LONGEST_NAME]


def _interface(address: Any, prefix: Any) -> IpInterface | None:
    try:
        return ipaddress.ip_interface(f"{address}/{prefix}" if prefix else str(address))
    except ValueError:
        return None


def _usable(found: Iterable[IpInterface]) -> list[IpInterface]:
    """IPv4 first. A link-local IPv6 address is none: dialling it takes the name of the guest's own interface."""
    kept = [a for a in found if not (a.version == 6 and a.is_link_local)]
    return sorted(kept, key=lambda a: a.version)
