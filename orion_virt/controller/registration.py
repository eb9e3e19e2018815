# SPDX-License-Identifier: Apache-2.0
"""The JSON in which a server registers its cards and tells of the allocations it serves, and in which both are shown."""

from __future__ import annotations

import time
from typing import Any

from orion_virt.errors import ProtocolError
from orion_virt.model.allocation import Allocation, Client, Holder
from orion_virt.model.gpu import Card, VGpu
from orion_virt.model.pool import Reservation, Server, State

_MAX_CARDS, _MAX_ADDRESSES, _MAX_DOMAINS = 64, 64, 4096
_LONGEST = 128


def parse_server(name: str, data: dict[str, Any]) -> Server:
    """Raises ValueError, KeyError, TypeError or AttributeError for what no server sends."""
    cards = tuple(
        Card(
            int(card["index"]),
            str(card["name"])[:96],
            _positive(card["total_bytes"]),
            min(_positive(card["slots"]), 100),
            int(card.get("base_bytes", 0)),
        )
        for card in data["gpus"][:_MAX_CARDS]
    )
    addresses = tuple(str(a) for a in data.get("addresses", []))[:_MAX_ADDRESSES]
    owners = {str(d["uuid"]): str(d["owner"]) for d in data.get("domains", [])[:_MAX_DOMAINS]}
    return Server(name, _positive(data["port"]), str(data["boot"]), addresses, cards, owners)


def parse_registration(name: str, data: dict[str, Any]) -> tuple[Server, list[Allocation], list[str]]:
    """The server, what it serves, and the ids of what it is about to serve. Raises ProtocolError."""
    try:
        served = [_allocation(name, item) for item in data.get("allocations", [])]
        return parse_server(name, data), served, [str(uuid) for uuid in data.get("opening", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"the heartbeat's body is not understood: {error!r}") from error


def _positive(value: Any) -> int:
    if int(value) <= 0:
        raise ValueError(f"{value!r} is not positive")
    return int(value)


def _allocation(name: str, item: dict[str, Any]) -> Allocation:
    vgpus = tuple(
        VGpu(name, int(v["card"]), int(v["slot"]), int(v["memory_bytes"]), int(v["booked_bytes"])) for v in item["vgpus"]
    )
    if not vgpus:
        raise ValueError("an allocation without vGPUs")
    return Allocation(str(item["uuid"]), vgpus, float(item.get("since", time.time())), holder=parse_holder(item),
                      group=str(item.get("group", ""))[:_LONGEST])


def parse_holder(data: dict[str, Any]) -> Holder:
    """Who shows an allocation; all of it may be absent. Raises ValueError, TypeError or AttributeError."""
    client = Client(*(str(data.get(key, ""))[:_LONGEST] for key in ("client", "owner", "domain")))
    return Holder(client, str(data.get("process", ""))[:_LONGEST], int(data.get("pid", 0)))


def parse_reservation(domain: str, data: dict[str, Any]) -> Reservation:
    """Raises ProtocolError."""
    try:
        vgpus, memory = data["vgpus"], data.get("memory_mib")
        if type(vgpus) is not int or not 1 <= vgpus <= 6400 or not (memory is None or type(memory) is int and memory > 0):
            raise ValueError("vgpus is a whole number from 1 to 6400, memory_mib one above 0 or absent")
        return Reservation(domain, vgpus, None if memory is None else memory << 20)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"the reservation is not understood: {error}", hint='Send {"vgpus": N, "memory_mib": M}') from error


def describe(server: Server) -> dict[str, Any]:
    """A server for people and scripts."""
    return {
        "server": server.name,
        "port": server.port,
        "addresses": list(server.addresses),
        "gpus": [{"index": c.index, "name": c.name, "total_bytes": c.total_bytes, "slots": c.slots} for c in server.cards],
    }


def describe_allocation(allocation: Allocation) -> dict[str, Any]:
    """As `_allocation` reads it back after a restart of the controller."""
    return {
        "uuid": allocation.uuid,
        "server": allocation.server,
        "state": allocation.state.value,
        "since": allocation.granted_at,
        "domain": allocation.domain,
        "client": allocation.holder.client.address or allocation.client.address,
        "process": allocation.holder.process,
        "pid": allocation.holder.pid,
        "group": allocation.group,
        "vgpus": [
            {"card": v.card, "slot": v.slot, "memory_bytes": v.memory_bytes, "booked_bytes": v.booked_bytes}
            for v in allocation.vgpus
        ],
    }


def describe_reservation(state: State, reservation: Reservation) -> dict[str, Any]:
    """``server``: where the domain runs, empty as long as no server has told."""
    memory = reservation.memory_bytes
    return {
        "domain": reservation.domain,
        "vgpus": reservation.vgpus,
        "memory_mib": None if memory is None else memory >> 20,
        "taken": state.taken_by(reservation.domain),
        "server": state.domain_of(Client(domain=reservation.domain))[1],
    }
