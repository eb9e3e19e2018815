# SPDX-License-Identifier: Apache-2.0
"""The host's own address on a guest's network, found before the guest boots; pure rules, no I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from lxml import etree

from orion_virt.domain.nic import Device, GuestAddress, Interface, IpNetwork, Network

LOOPBACK = "127.0.0.1"
HOST_MODES = ("nat", "route", "open", "isolated")  # libvirt itself puts the host on these
MAX_GATEWAYS = 4  # as many as a region's header has room for
RANK_NETWORK, RANK_BRIDGE, RANK_SLIRP = range(3)
_SLIRP_DEFAULT = "10.0.2.0/24"
_SLIRP_HOST = 0x0202  # QEMU: the host is the network's address with these bits, as far as the mask leaves room
_WILDCARDS = {"0.0.0.0": 4, "::": 6}


@dataclass(frozen=True)
class Gateway:
    """Where a guest dials us (``address``), and where we listen for that (``listen``).

    ``confirmed``: an address of the guest's is in the same subnet. ``doubt``: why it may not work although it is there.
    """

    address: str
    listen: str
    why: str
    mac: str = ""
    rank: int = RANK_NETWORK
    confirmed: bool = False
    doubt: str = ""


@dataclass(frozen=True)
class Choice:
    """Best first, at most MAX_GATEWAYS; ``unusable``: a NIC and why no way leads over it, in words."""

    gateways: tuple[Gateway, ...] = ()
    unusable: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()  # of every NIC over which a way leads

    @property
    def open_question(self) -> bool:
        """Another NIC would do as well: which of them the guest turns out to use decides."""
        return len(self.macs) > 1

    @property
    def doubt(self) -> str:
        """Why not even the best one may work; empty where nothing speaks against it."""
        return self.gateways[0].doubt if self.gateways else ""


@dataclass(frozen=True)
class Facts:
    """What libvirt and this host's kernel say. ``guests``: the guest's own addresses, where they are known."""

    networks: Mapping[str, Network] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    guests: Sequence[GuestAddress] = ()

    def is_ours(self, address: str) -> bool:
        """Whether this host has the address now."""
        return any(address == str(a.ip) for device in self.devices.values() for a in device.addresses)


def interfaces(domain: etree._Element) -> list[Interface]:
    """The NICs of a domain's XML, in its order."""
    return [Interface.parse(element) for element in domain.iterfind("devices/interface")]


def choose(nics: Sequence[Interface], facts: Facts, bind: Sequence[str] = (), named: str | None = None) -> Choice:
    """Where the guest reaches this host.

    ``bind``: `[server] bind_addr`, which wins; ``named``: gateway= of the domain's metadata, which comes next. Then the
    NICs decide: those in whose subnet the guest was seen first, then networks that libvirt puts the host on, then the
    host's address on a bridge, then user-mode networking. All addresses of equally good NICs are taken, and of every NIC
    in whose subnet the guest was seen.
    """
    found, unusable = _by_nic(nics, facts)
    if bind:
        return _bound(bind, named, found, unusable, nics, facts)
    if named:
        return Choice((_named(named, found, nics, facts),))
    return Choice(_limited(_best(found)), tuple(unusable), tuple(gateways[0].mac for gateways in found))


def _by_nic(nics: Sequence[Interface], facts: Facts) -> tuple[list[list[Gateway]], list[str]]:
    found, unusable = [], []
    for nic in nics:
        gateways, why = _of(nic, facts)
        if gateways:
            found.append(_judged(nic, gateways, facts))
        else:
            unusable.append(f"NIC {nic.label} {why}")
    return found, unusable


def _quality(gateways: Sequence[Gateway]) -> tuple[int, int]:
    """Of one NIC; less is better."""
    if any(g.confirmed for g in gateways):
        return 0, gateways[0].rank
    return (2 if all(g.doubt for g in gateways) else 1), gateways[0].rank


def _best(found: Sequence[Sequence[Gateway]]) -> list[Gateway]:
    """Of every NIC that the guest is seen to use (a lease may outlive its use), else of those that are equally good."""
    if not found:
        return []
    best = min(_quality(gateways) for gateways in found)
    if best[0] == 0:
        used = sorted((gs for gs in found if _quality(gs)[0] == 0), key=_quality)
        return [g for gateways in used for g in gateways]
    return [g for gateways in found if _quality(gateways) == best for g in gateways]


def _limited(gateways: Sequence[Gateway]) -> tuple[Gateway, ...]:
    distinct = {g.address: g for g in reversed(gateways)}
    return tuple(dict.fromkeys(distinct[g.address] for g in gateways))[:MAX_GATEWAYS]


# ---- what somebody wrote down ----


def _named(address: str, found: Sequence[Sequence[Gateway]], nics: Sequence[Interface], facts: Facts) -> Gateway:
    """An address of user-mode networking is the guest's name for our loopback."""
    why = "gateway= in the domain's metadata names it"
    for gateway in (g for gateways in found for g in gateways):
        if gateway.address == address:
            return replace(gateway, why=f"{why}; {gateway.why}")
    if not facts.is_ours(address) and any(nic.kind == "user" for nic in nics):
        return Gateway(address, LOOPBACK, f"{why}, and it is none of this host's: user-mode networking leads it to {LOOPBACK}")
    return Gateway(address, address, why)


def _bound(bind: Sequence[str], named: str | None, found: Sequence[Sequence[Gateway]], unusable: list[str],
           nics: Sequence[Interface], facts: Facts) -> Choice:
    """Among several bind addresses those on the domain's own networks come first; a wildcard is no address to dial."""
    automatic = [_named(named, found, nics, facts)] if named else _best(found)
    near = {g.address: g for gateways in found for g in gateways}
    plain = [ip for ip in bind if ip not in _WILDCARDS and not ipaddress.ip_address(ip).is_loopback]
    plain.sort(key=lambda ip: (ip not in near, not (ip in near and near[ip].confirmed)))
    why = "[server] bind_addr names it"
    gateways = [replace(near[ip], why=f"{why}; {near[ip].why}") if ip in near else Gateway(ip, ip, why) for ip in plain]
    families = {_WILDCARDS[ip] for ip in bind if ip in _WILDCARDS}
    gateways += [replace(g, why=f"[server] bind_addr takes every address; {g.why}") for g in automatic
                 if ipaddress.ip_address(g.listen).version in families]
    gateways += [replace(g, why=f"[server] bind_addr names this host's {g.listen}; {g.why}") for gs in found for g in gs
                 if g.rank == RANK_SLIRP and g.listen in bind]
    if gateways:
        return Choice(_limited(gateways), tuple(unusable))
    return Choice((), (*unusable, f"[server] bind_addr lists only {', '.join(bind)}, which this guest cannot dial"))


# ---- one NIC ----


def _of(nic: Interface, facts: Facts) -> tuple[list[Gateway], str]:
    """The addresses over this NIC, or why there are none."""
    if nic.kind == "user":
        return _of_user_mode(nic)
    if nic.kind == "direct":
        return [], f"is macvtap on {nic.source or 'a host device'}: a guest and its host do not hear each other over it"
    network = facts.networks.get(nic.network or "")
    if network is not None and network.mode in HOST_MODES and network.addresses:
        if not network.active:
            return [], f"is on the network {network.name!r}, which is not active: virsh net-start {network.name}"
        return [Gateway(str(ip.ip), str(ip.ip), f"NIC {nic.label} is on the {network.mode} network {network.name!r}, on which "
                        f"this host is {ip}", nic.mac) for ip in network.addresses], ""
    bridge = nic.bridge or (network.bridge if network is not None else None)
    if bridge is None and nic.kind == "ethernet":
        return _of_tap(nic, facts)
    if bridge is None:
        return [], _without_bridge(nic, network)
    return _of_device(nic, bridge, "bridge", facts)


def _without_bridge(nic: Interface, network: Network | None) -> str:
    if network is not None:
        return f"is on the network {network.name!r} (mode {network.mode}), on which this host has no address"
    if nic.network:
        return f"is on the network {nic.network!r}, which libvirt does not know: virsh net-list --all"
    return f"is of type {nic.kind}: libvirt tells no address of this host on it"


def _of_tap(nic: Interface, facts: Facts) -> tuple[list[Gateway], str]:
    """A tap device that somebody else set up: routed by itself, or a port of a bridge."""
    device = facts.devices.get(nic.target or "")
    if device is None:
        return [], "is a tap device that is not there yet"
    return _of_device(nic, device.master or device.name, "bridge" if device.master else "tap device", facts)


def _of_device(nic: Interface, name: str, what: str, facts: Facts) -> tuple[list[Gateway], str]:
    device = facts.devices.get(name)
    if device is None:
        return [], f"is on the {what} {name}, which this host does not have (now)"
    if not device.addresses:
        return [], f"is on the {what} {name}, on which this host has no address: ip addr add ADDRESS/PREFIX dev {name}"
    return [Gateway(str(a.ip), str(a.ip), f"NIC {nic.label} is on the {what} {name}, on which this host is {a}", nic.mac,
                    RANK_BRIDGE) for a in device.addresses], ""


def _of_user_mode(nic: Interface) -> tuple[list[Gateway], str]:
    if nic.backend == "passt":
        return [], "is user-mode networking by passt, whose address for this host libvirt does not tell: name it by gateway="
    network = ipaddress.IPv4Network(nic.subnet or _SLIRP_DEFAULT, strict=False)
    address = network.network_address + (_SLIRP_HOST & int(network.hostmask))
    why = f"NIC {nic.label} is user-mode networking, in which {address} is this host's {LOOPBACK}"
    return [Gateway(str(address), LOOPBACK, why, nic.mac, RANK_SLIRP)], ""


# ---- what is known of the guest ----


def _judged(nic: Interface, gateways: Sequence[Gateway], facts: Facts) -> list[Gateway]:
    """With what the guest's own addresses and the state of its tap device say; confirmed ones first."""
    unplugged = _unplugged(nic, facts)
    judged = []
    for gateway in gateways:
        subnet = _subnet(gateway, nic, facts)
        seen = _seen(nic, subnet, facts) if subnet is not None else []
        inside = [g for g in seen if subnet is not None and ipaddress.ip_address(g.address) in subnet]
        if unplugged:
            judged.append(replace(gateway, doubt=unplugged))
        elif inside:
            said = f"{gateway.why}; the guest's {inside[0].address} ({inside[0].source}) is in the same subnet"
            judged.append(replace(gateway, why=said, confirmed=True))
        elif seen:
            judged.append(replace(gateway, doubt=f"the guest's {seen[0].address} ({seen[0].source}) on NIC {nic.label} is not in "
                                  f"{subnet}, this host's subnet there"))
        else:
            judged.append(gateway)
    good = [g for g in judged if not g.doubt] or judged
    return sorted(good, key=lambda g: not g.confirmed)


def _subnet(gateway: Gateway, nic: Interface, facts: Facts) -> IpNetwork | None:
    if gateway.rank == RANK_SLIRP:
        return ipaddress.ip_network(nic.subnet or _SLIRP_DEFAULT, strict=False)
    of_networks = (ip for network in facts.networks.values() for ip in network.addresses)
    of_devices = (ip for device in facts.devices.values() for ip in device.addresses)
    return next((ip.network for ip in (*of_networks, *of_devices) if str(ip.ip) == gateway.address), None)


def _seen(nic: Interface, subnet: IpNetwork, facts: Facts) -> list[GuestAddress]:
    """The guest's addresses on this NIC of the subnet's family."""
    found = [g for g in facts.guests if g.mac == nic.mac and g.address]
    return [g for g in found if (ip := ipaddress.ip_address(g.address)).version == subnet.version and not ip.is_link_local]


def _unplugged(nic: Interface, facts: Facts) -> str:
    if not nic.link_up:
        return f"the link of NIC {nic.label} is down: virsh domif-setlink DOMAIN {nic.target or nic.mac} up"
    tap = facts.devices.get(nic.target or "")
    network = facts.networks.get(nic.network or "")
    bridge = nic.bridge or (network.bridge if network is not None else None)
    if tap is None or bridge is None or tap.master:
        return ""
    return (f"{tap.name} is no port of {bridge} any more (was the network started again?): `ip link set {tap.name} master {bridge}`, "
            "or restart libvirtd, which does that for every domain")
