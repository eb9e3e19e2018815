# SPDX-License-Identifier: Apache-2.0
"""The host's own address on a guest's network, found before the guest boots."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

SLIRP_GATEWAY = "10.0.2.2"  # the host as a guest of user-mode networking sees it
LOOPBACK = "127.0.0.1"
HOST_MODES = ("nat", "route", "open", "isolated")  # libvirt itself puts the host on these


@dataclass(frozen=True)
class Interface:
    """One NIC of a domain."""

    kind: str
    mac: str
    network: str | None = None
    bridge: str | None = None


@dataclass(frozen=True)
class Gateway:
    """Where the guest dials us (``address``), and where we listen for that (``listen``)."""

    address: str
    listen: str
    mac: str = ""


def interfaces(domain: etree._Element) -> list[Interface]:
    """The NICs of a domain's XML, in its order."""
    found = []
    for element in domain.iterfind("devices/interface"):
        source, mac = element.find("source"), element.find("mac")
        attributes = {} if source is None else source.attrib
        found.append(Interface(str(element.get("type", "")), "" if mac is None else mac.get("address", ""),
                               attributes.get("network"), attributes.get("bridge")))
    return found


def network_mode(network: etree._Element) -> str:
    """`nat`, `route`, `open`, `isolated`, `bridge`, ... of a network's XML."""
    forward = network.find("forward")
    return "isolated" if forward is None else str(forward.get("mode", "nat"))


def network_address(network: etree._Element) -> str | None:
    """The host's address on a network that libvirt runs; IPv4 first."""
    found = [str(ip.get("address")) for ip in network.iterfind("ip") if ip.get("address")]
    found.sort(key=lambda a: ipaddress.ip_address(a).version)
    return found[0] if found else None


def network_bridge(network: etree._Element) -> str | None:
    """The bridge of a network's XML."""
    bridge = network.find("bridge")
    return None if bridge is None else bridge.get("name")


def gateway(nics: list[Interface], networks: Mapping[str, etree._Element],
            bridges: Mapping[str, list[str]], explicit: str | None = None) -> Gateway | None:
    """The address for the region's header, or None where the guest has no way to the host.

    ``networks``: XML by name. ``bridges``: the host's addresses by device. What somebody wrote down wins, then
    networks that libvirt puts the host on, then the host's address on a bridge, then slirp; macvtap has none.
    """
    if explicit:
        return Gateway(explicit, explicit)
    candidates = []
    for index, nic in enumerate(nics):
        found = _of(nic, networks, bridges)
        if found is not None:
            rank, result = found
            candidates.append((rank, index, result))
    return min(candidates, key=lambda c: c[:2])[2] if candidates else None


def _of(nic: Interface, networks: Mapping[str, etree._Element],
        bridges: Mapping[str, list[str]]) -> tuple[int, Gateway] | None:
    if nic.kind == "user":
        return 2, Gateway(SLIRP_GATEWAY, LOOPBACK, nic.mac)
    bridge = nic.bridge
    network = networks.get(nic.network or "")
    if network is not None:
        address = network_address(network)
        if network_mode(network) in HOST_MODES and address:
            return 0, Gateway(address, address, nic.mac)
        bridge = bridge or network_bridge(network)
    for address in bridges.get(bridge or "", []):
        return 1, Gateway(address, address, nic.mac)
    return None
