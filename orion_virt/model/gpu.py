# SPDX-License-Identifier: Apache-2.0
"""Physical cards and what is taken of them."""

from __future__ import annotations

from dataclasses import dataclass

from orion_virt.units import MIB


@dataclass(frozen=True)
class Card:
    """One physical GPU of a server, as it registered it."""

    index: int
    name: str
    total_bytes: int
    slots: int
    base_bytes: int = 0  # of a context; booked on top of each vGPU

    @property
    def default_bytes(self) -> int:
        """Memory of a vGPU for which none is asked."""
        return max(0, (self.total_bytes - self.slots * self.base_bytes) // self.slots // MIB * MIB)


@dataclass(frozen=True)
class VGpu:
    """A slot of a card with its memory; what an allocation consists of."""

    server: str
    card: int
    slot: int
    memory_bytes: int
    booked_bytes: int


@dataclass(frozen=True)
class CardLoad:
    """A card with what is taken of it."""

    card: Card
    used_slots: frozenset[int] = frozenset()
    used_bytes: int = 0

    @property
    def nr_free(self) -> int:
        return max(0, self.card.slots - len(self.used_slots))

    @property
    def free_bytes(self) -> int:
        return self.card.total_bytes - self.used_bytes

    def with_vgpu(self, vgpu: VGpu) -> CardLoad:
        return CardLoad(self.card, self.used_slots | {vgpu.slot}, self.used_bytes + vgpu.booked_bytes)


@dataclass(frozen=True)
class ServerLoad:
    """A server's cards in placement order."""

    name: str
    cards: tuple[CardLoad, ...]
