# SPDX-License-Identifier: Apache-2.0
"""Where vGPUs go: pack the first card, then the next; all from one server, or a refusal with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orion_virt.model.gpu import CardLoad, ServerLoad, VGpu
from orion_virt.units import MIB

MAX_VGPUS = 32


@dataclass(frozen=True)
class Grant:
    """The vGPUs, in the order in which the guest numbers them."""

    vgpus: tuple[VGpu, ...]


# What refusals are counted by.
KINDS = ("invalid", "no_server", "unreachable", "too_large", "vgpus", "memory", "reserved", "queue", "group")


@dataclass(frozen=True)
class Refusal:
    """Why not. `hopeless`: not even an idle pool could do it. ``kind``: one of KINDS."""

    reason: str
    hopeless: bool
    kind: str


Decision = Grant | Refusal


def place(servers: Sequence[ServerLoad], count: int, memory_bytes: int | None) -> Decision:
    """Places `count` vGPUs of `memory_bytes` (None: each card's default)."""
    if not 1 <= count <= MAX_VGPUS:
        return Refusal(f"nvidia_vgpu must be 1 to {MAX_VGPUS}, not {count}", True, "invalid")
    if memory_bytes is not None and memory_bytes < MIB:
        return Refusal("memory must be at least 1 MiB", True, "invalid")
    if not servers:
        return Refusal("no server is registered: is oriond running?", False, "no_server")
    for server in servers:
        vgpus = _place_on(server, count, memory_bytes)
        if vgpus is not None:
            return Grant(vgpus)
    idle = [replace(s, cards=tuple(CardLoad(load.card) for load in s.cards)) for s in servers]
    hopeless = all(_place_on(server, count, memory_bytes) is None for server in idle)
    has_slots = any(sum(load.nr_free for load in server.cards) >= count for server in servers)
    kind = "too_large" if hopeless else "memory" if has_slots else "vgpus"
    return Refusal(_reason(servers, count, memory_bytes, hopeless), hopeless, kind)


def _place_on(server: ServerLoad, count: int, memory_bytes: int | None) -> tuple[VGpu, ...] | None:
    vgpus: list[VGpu] = []
    for start in server.cards:
        load = start
        while len(vgpus) < count:
            vgpu = next_slot(server.name, load, memory_bytes)
            if vgpu is None:
                break
            vgpus.append(vgpu)
            load = load.with_vgpu(vgpu)
    return tuple(vgpus) if len(vgpus) == count else None


def next_slot(server: str, load: CardLoad, memory_bytes: int | None) -> VGpu | None:
    """The next vGPU of a card; None where it has no slot or no memory left for one."""
    memory = load.card.default_bytes if memory_bytes is None else memory_bytes
    booked = memory + load.card.base_bytes
    if load.nr_free == 0 or booked > load.free_bytes:
        return None
    slot = next(number for number in range(load.card.slots) if number not in load.used_slots)
    return VGpu(server, load.card.index, slot, memory, booked)


def _reason(servers: Sequence[ServerLoad], count: int, memory_bytes: int | None, hopeless: bool) -> str:
    wanted = f"{count} vGPU" + ("" if memory_bytes is None else f" of {memory_bytes // MIB} MiB")
    free = "; ".join(
        f"{server.name} GPU {load.card.index}: {load.nr_free} of {load.card.slots} vGPU and "
        f"{load.free_bytes // MIB} of {load.card.total_bytes // MIB} MiB free"
        for server in servers
        for load in server.cards
    )
    never = ", and no server could grant it even when idle" if hopeless else ""
    return f"{wanted} cannot be granted by one server{never} ({free})"
