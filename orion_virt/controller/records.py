# SPDX-License-Identifier: Apache-2.0
"""The state as entries of a store, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from orion_virt.controller.store import Entry
from orion_virt.model import allocation as allocations
from orion_virt.model.allocation import Allocation, Client, Holder
from orion_virt.model.gpu import Card, VGpu
from orion_virt.model.pool import Request, Reservation, Server, State, Waiter


def server_key(name: str) -> str:
    """Also the name of the server's life, on which its confirmed allocations depend."""
    return f"server/{name}"


def allocation_key(uuid: str) -> str:
    return f"allocation/{uuid}"


def reservation_key(domain: str) -> str:
    return f"reservation/{domain}"


def waiter_key(ticket: int) -> str:
    return f"waiter/{ticket:016d}"


def server_entry(server: Server) -> Entry:
    return Entry(dataclasses.asdict(server), server_key(server.name))


def allocation_entry(allocation: Allocation) -> Entry:
    granted = allocation.state is allocations.State.GRANTED
    life = f"grant/{allocation.uuid}" if granted else server_key(allocation.server)
    return Entry(dataclasses.asdict(allocation) | {"state": allocation.state.value}, life)


def reservation_entry(reservation: Reservation) -> Entry:
    return Entry(dataclasses.asdict(reservation))


def waiter_entry(waiter: Waiter, controller: str) -> Entry:
    return Entry(dataclasses.asdict(waiter), f"controller/{controller}")


def _server(raw: dict[str, Any]) -> Server:
    cards = tuple(Card(**card) for card in raw["cards"])
    return Server(**(raw | {"addresses": tuple(raw["addresses"]), "cards": cards}))


def _allocation(raw: dict[str, Any]) -> Allocation:
    holder = raw["holder"]
    changed = {
        "vgpus": tuple(VGpu(**vgpu) for vgpu in raw["vgpus"]),
        "client": Client(**raw["client"]),
        "holder": Holder(**(holder | {"client": Client(**holder["client"])})),
        "state": allocations.State(raw["state"]),
    }
    return Allocation(**(raw | changed))


def _waiter(raw: dict[str, Any]) -> Waiter:
    request = raw["request"]
    return Waiter(raw["ticket"], Request(**(request | {"client": Client(**request["client"])})))


_KINDS: dict[str, tuple[str, Callable[[dict[str, Any]], Any], Callable[[str], Any]]] = {
    "server": ("servers", _server, str),
    "allocation": ("allocations", _allocation, str),
    "reservation": ("reservations", lambda raw: Reservation(**raw), str),
    "waiter": ("waiters", _waiter, int),
}


def state_of(entries: Mapping[str, Entry]) -> State:
    """Raises nothing that another version of us wrote: unknown kinds are left alone."""
    parts: dict[str, dict[Any, Any]] = {name: {} for name, _, _ in _KINDS.values()}
    for key, entry in entries.items():
        kind, _, name = key.partition("/")
        if kind in _KINDS:
            part, read, number = _KINDS[kind]
            parts[part][number(name)] = read(entry.value)
    return State(**parts)
