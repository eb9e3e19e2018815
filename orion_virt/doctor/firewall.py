# SPDX-License-Identifier: Apache-2.0
"""Whether the host's packet filter lets guests reach oriond and the controller, and the command that lets them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from orion_virt import config as configs
from orion_virt.config import split_addr
from orion_virt.doctor.facts import ERROR, INFO, OK, Facts, Finding, Machine
from orion_virt.doctor.ruleset import Iptables, Nft, Place, Way


def firewall(facts: Facts) -> Iterator[Finding]:
    """Every address and port that a running domain was told; while none runs, those of libvirt's networks."""
    devices = _devices(facts.machine)
    found: dict[Way, list[str]] = {}
    for domain in facts.running():
        for way in _ways(domain, devices):
            found.setdefault(way, []).append(domain["name"])
    ports = (facts.settings.listen_port, configs.DEFAULT_CONTROLLER_PORT)
    if not found:
        found = {
            Way(device, address, port): []
            for address, device in devices.items()
            if device in facts.bridges and not address.startswith("fe80:")
            for port in ports
        }
    if not found:
        return
    rules = _rules(facts.machine)
    if not rules:
        yield Finding(INFO, "the packet filter's rules cannot be read", "run it as root" if not facts.is_root else "")
        return
    for way, names in sorted(found.items(), key=lambda item: (item[0].address, item[0].port)):
        place = next((place for one in rules if (place := one.stops(way)) is not None), None)
        if place is None:
            yield Finding(
                OK, f"the packet filter lets guests reach {configs.join_addr(way.address, way.port)} by {way.device}"
            )
        else:
            yield Finding(
                ERROR,
                f"the packet filter ({place.family} {place.table}, chain {place.chain}) keeps "
                f"{', '.join(names) or 'guests'} "
                f"from {configs.join_addr(way.address, way.port)}",
                remedy(facts.machine, way, place),
            )


def _devices(machine: Machine) -> dict[str, str]:
    """Address -> device of this host."""
    try:
        links = json.loads(machine.run(["ip", "-j", "addr"]) or "[]")
    except ValueError:
        return {}
    return {info["local"]: link["ifname"] for link in links for info in link.get("addr_info", []) if "local" in info}


def _ways(domain: Mapping[str, Any], devices: Mapping[str, str]) -> Iterator[Way]:
    """What the domain's header tells its guest; an address that is not on a device of ours (slirp's) needs no rule."""
    told = [(addr, configs.DEFAULT_PORT) for addr in domain["server_addrs"]]
    told.append((domain["controller_addr"], configs.DEFAULT_CONTROLLER_PORT))
    for addr, port in told:
        pair = split_addr(addr, port) if addr else None
        if pair is not None and devices.get(pair[0], "lo") != "lo":
            yield Way(devices[pair[0]], *pair)


def _rules(machine: Machine) -> list[Nft | Iptables]:
    """As the kernel has them, whoever made them. nft shows iptables' own matches without what they match."""
    found: list[Nft | Iptables] = []
    theirs: set[tuple[str, str]] = set()
    for family in ("ip", "ip6"):
        text = machine.run([f"{family}tables-save", "-t", "filter"]) if _has_iptables(machine, family) else None
        if text and "*filter" in text.splitlines():
            found.append(_Only(text, family == "ip6"))
            theirs.add((family, "filter"))
    text = machine.run(["nft", "-j", "list", "ruleset"])
    if text:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found.append(Nft(json.loads(text), theirs))
    return found


def _has_iptables(machine: Machine, family: str) -> bool:
    """False where the old iptables has no filter table: asking would make one."""
    if "legacy" not in (machine.run([f"{family}tables", "--version"]) or ""):
        return True
    return "filter" in (machine.read(f"/proc/net/{family}_tables_names") or "").split()


class _Only(Iptables):
    """Rules of one kind of addresses."""

    def __init__(self, text: str, is_v6: bool) -> None:
        super().__init__(text)
        self._is_v6 = is_v6

    def stops(self, way: Way) -> Place | None:
        return super().stops(way) if way.is_v6 == self._is_v6 else None


def remedy(machine: Machine, way: Way, place: Place) -> str:
    """The command of whatever manages the rules here, for exactly this device, address and port."""
    family, v6 = ("ipv6", "6") if way.is_v6 else ("ipv4", "")
    if (machine.run(["firewall-cmd", "--state"]) or "").strip() == "running":
        zone = (machine.run(["firewall-cmd", f"--get-zone-of-interface={way.device}"]) or "").strip()
        zone = zone or (machine.run(["firewall-cmd", "--get-default-zone"]) or "public").strip()
        return (
            f'firewall-cmd --permanent --zone={zone} --add-rich-rule=\'rule family="{family}" destination '
            f'address="{way.address}" port port="{way.port}" protocol="tcp" accept\' && firewall-cmd --reload'
        )
    if "Status: active" in (machine.run(["ufw", "status"]) or ""):
        return f"ufw allow in on {way.device} to {way.address} port {way.port} proto tcp"
    if place.table == "filter" and place.chain == "INPUT":
        return f"ip{v6}tables -I INPUT -i {way.device} -d {way.address} -p tcp --dport {way.port} -j ACCEPT"
    return (
        f'nft insert rule {place.family} {place.table} {place.chain} iifname "{way.device}" ip{v6} daddr {way.address} '
        f"tcp dport {way.port} accept"
    )
