# SPDX-License-Identifier: Apache-2.0
"""The JSON in which a server registers its cards and tells of the allocations it still serves."""

from __future__ import annotations

import json
from typing import Any

from orion_virt.controller.pool import Pool, Server
from orion_virt.errors import ProtocolError
from orion_virt.model.allocation import Allocation
from orion_virt.model.gpu import Card, VGpu

_MAX_CARDS = 64


def heartbeat(pool: Pool, ip: str, status: str, body: bytes) -> None:
    """`on` registers, `continue` keeps alive, `off` unregisters. Raises ProtocolError, NotFound (register again)."""
    if status == "off":
        pool.unregister(ip)
        return
    if status not in ("on", "continue"):
        raise ProtocolError(f"status={status!r} is unknown", hint="Known: on, off, continue")
    try:
        data = json.loads(body)
        if status == "on":
            pool.register(_server(ip, data), [_allocation(ip, item) for item in data.get("allocations", [])])
        else:
            pool.keep_alive(ip, str(data["boot"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"the heartbeat's body is not understood: {error!r}") from error


def _server(ip: str, data: dict[str, Any]) -> Server:
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
    addresses = tuple(str(a) for a in data.get("addresses", []))[:64]
    return Server(ip, _positive(data["port"]), str(data["boot"]), addresses, cards, 0.0)


def _positive(value: Any) -> int:
    if int(value) <= 0:
        raise ValueError(f"{value!r} is not positive")
    return int(value)


def _allocation(ip: str, item: dict[str, Any]) -> Allocation:
    vgpus = tuple(
        VGpu(ip, int(v["card"]), int(v["slot"]), int(v["memory_bytes"]), int(v["booked_bytes"])) for v in item["vgpus"]
    )
    if not vgpus:
        raise ValueError("an allocation without vGPUs")
    return Allocation(str(item["uuid"]), vgpus, 0.0)


def describe(server: Server) -> dict[str, Any]:
    """A server for people and scripts."""
    return {
        "server": server.name,
        "port": server.port,
        "gpus": [{"index": c.index, "name": c.name, "total_bytes": c.total_bytes, "slots": c.slots} for c in server.cards],
    }


def describe_allocation(allocation: Allocation) -> dict[str, Any]:
    """As `_allocation` reads it back after a restart of the controller."""
    return {
        "uuid": allocation.uuid,
        "server": allocation.server,
        "state": allocation.state.value,
        "vgpus": [
            {"card": v.card, "slot": v.slot, "memory_bytes": v.memory_bytes, "booked_bytes": v.booked_bytes}
            for v in allocation.vgpus
        ],
    }
