# SPDX-License-Identifier: Apache-2.0
"""Where the guest of each running domain finds us: the choice of its gateways, and what stands in the way."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from dataclasses import dataclass, field
from typing import Any

from lxml import etree

from orion_virt.config import ServerConfig, join_addr
from orion_virt.domain import address, metadata
from orion_virt.domain.address import Choice
from orion_virt.domain.connection import Connection, View
from orion_virt.domain.nic import GuestAddress, Interface
from orion_virt.server.contract import Host

_ON_DEVICES = ("network", "bridge", "ethernet")  # kinds of NICs behind which is a device of this host
_log = logging.getLogger("orion.domains")


@dataclass
class _Known:
    """Of one run (`id`) of a domain. ``seen``: the last addresses of each NIC, by its MAC address."""

    id: int
    choice: Choice = Choice()
    places: dict[str, tuple[str | None, ...]] = field(default_factory=dict)
    seen: dict[str, list[GuestAddress]] = field(default_factory=dict)
    said: str = ""

    def remember(self, nics: list[Interface], rows: list[GuestAddress]) -> list[GuestAddress]:
        """All that is known of the guest: the kernel forgets neighbours while the guest keeps its addresses.

        A lease that has ended, and what a NIC had where it is plugged in no more, is forgotten.
        """
        places: dict[str, tuple[str | None, ...]] = {nic.mac: (nic.kind, nic.network, nic.bridge, nic.subnet) for nic in nics}
        self.seen = {mac: known for mac, known in self.seen.items() if self.places.get(mac) == places.get(mac)}
        self.places = places
        fresh: dict[str, list[GuestAddress]] = {}
        for row in rows:
            if row.address:
                fresh.setdefault(row.mac, []).append(row)
        self.seen = {mac: known for mac, known in self.seen.items() if known[0].source != "lease"} | fresh
        return [row for listed in self.seen.values() for row in listed]


class Reach:
    """All methods run in the daemon's event loop."""

    def __init__(self, config: ServerConfig, host: Host) -> None:
        self._config = config
        self._host = host
        self._known: dict[str, _Known] = {}

    async def update(self, conn: Connection, view: View) -> list[str]:
        """"ip:port" of every address for the domain's header, best first; each is listened on. Raises OrionError."""
        assert view.live is not None
        known = self._known.get(view.uuid)
        if known is None or known.id != view.id:
            known = self._known[view.uuid] = _Known(view.id)
        nics = address.interfaces(view.live)
        rows = await asyncio.to_thread(conn.guest_addresses, view.live, len(nics) > 1)
        facts = await asyncio.to_thread(conn.facts, view.live, known.remember(nics, rows))
        named = metadata.read(view.live).gateway
        known.choice = address.choose(nics, facts, self._config.bind_addr, named)
        troubles = self._host.listen_for(view.uuid, [g.listen for g in known.choice.gateways])
        self._say(view, known)
        return [join_addr(g.address, self._config.listen_port) for g in known.choice.gateways if g.listen not in troubles]

    def forget(self, uuid: str) -> None:
        """The domain runs no more, or without its device."""
        self._known.pop(uuid, None)
        self._host.listen_for(uuid, [])

    def problems(self, uuid: str) -> list[str]:
        """What keeps the guest from reaching us although there is a way, with the remedy."""
        known = self._known.get(uuid)
        doubt = known.choice.doubt if known is not None else ""
        return [*([doubt] if doubt else []), *self._host.listening_problems(uuid)]

    def no_way(self, uuid: str) -> str:
        """Why no NIC leads to this host, in words."""
        known = self._known.get(uuid)
        unusable = known.choice.unusable if known is not None else ()
        return "; ".join(unusable) or "it has no NIC"

    def _say(self, view: View, known: _Known) -> None:
        now = "; ".join(self.problems(view.uuid))
        if now and now != known.said:
            _log.warning("domain %s: %s", view.name, now)
        known.said = now

    # ---- whom a change concerns ----

    def concerned_by(self, mac: str) -> list[str]:
        """Domains whose choice of a NIC may change now that this one is heard of."""
        return [uuid for uuid, known in self._known.items() if known.choice.open_question and mac not in known.seen
                and any(mac == nic for nic in known.choice.macs)]

    def in_doubt(self) -> list[str]:
        """Domains that a device of this host keeps from us, or may."""
        return [uuid for uuid, known in self._known.items() if known.choice.doubt or not known.choice.gateways
                and any(kind in _ON_DEVICES for kind, *_ in known.places.values())]

    # ---- for people ----

    def describe(self, uuid: str) -> dict[str, Any]:
        """The gateways of a running domain and why they are."""
        known = self._known.get(uuid)
        choice = known.choice if known is not None else Choice()
        return {
            "gateways": [{"address": g.address, "listen": g.listen, "mac": g.mac, "why": g.why, "confirmed": g.confirmed,
                          "doubt": g.doubt} for g in choice.gateways],
            "unusable": list(choice.unusable),
        }


async def guest_rows(conn: Connection, live: etree._Element) -> list[dict[str, Any]]:
    """The rows of `virsh domifaddr`, each with its source."""
    rows = await asyncio.to_thread(conn.guest_addresses, live)
    return [{"name": r.name, "mac": r.mac, "protocol": r.protocol if r.address else "", "address": r.address,
             "prefix": r.prefix, "source": r.source} for r in rows]


def people_addresses(rows: list[dict[str, Any]]) -> list[str]:
    """Of those rows the addresses by which somebody else could call the guest."""
    found = [row["address"] for row in rows if row["address"]]
    return [a for a in found if not (ip := ipaddress.ip_address(a)).is_loopback and not ip.is_link_local]
