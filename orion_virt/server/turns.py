# SPDX-License-Identifier: Apache-2.0
"""Compute limits: takes turns on each card to the workers, and what they say of theirs back to the rules (model.turns)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from orion_virt.errors import Conflict, ProtocolError, QuotaExceeded
from orion_virt.model.turns import Order, Turns

_ROUNDING = 1e-6


class Holder(Protocol):
    """A channel, as far as this module knows one."""

    id: int
    allocation: dict[str, Any]

    def turn(self, device: int, begin: bool, shared: bool) -> None:
        """Tells the worker to begin with work on a card, or to end; ``device``: its first vGPU there."""


class CardTurns:
    """For the event loop; all cards of this host."""

    def __init__(self, mode: str, vgpu_count: int) -> None:
        """``mode``: off, on or strict, as [server] compute_limits."""
        self._mode = mode
        self._default = 1.0 / vgpu_count
        self._cards: dict[int, Turns] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._holders: dict[int, Holder] = {}
        self._shares: dict[int, dict[int, float]] = {}  # by channel, by card
        self._wanted_at: dict[tuple[int, int], float] = {}  # (card, channel) that waits for its turn
        self.waited_seconds: dict[int, float] = {}  # by card, of turns that have begun

    @property
    def are_on(self) -> bool:
        return self._mode != "off"

    def check(self, ratio: int, vgpus: Sequence[dict[str, Any]]) -> None:
        """Whether a client may have `ratio` percent (0: the default) for each of these. Raises Conflict, QuotaExceeded."""
        if not self.are_on:
            if ratio:
                raise Conflict("ORION_RATIO is set, and this server does not limit compute",
                               hint="Unset it, or set [server] compute_limits = on in the host's server.conf")
            return
        for card, share in self._wanted(ratio, vgpus).items():
            left = 1.0 - sum(shares.get(card, 0.0) for shares in self._shares.values())
            if share > left + _ROUNDING:
                raise QuotaExceeded(f"GPU {card} has {100 * left:.0f} % of its time left, {100 * share:.0f} % are asked",
                                    hint="Lower ORION_RATIO, or wait until another process ends")

    def _wanted(self, ratio: int, vgpus: Sequence[dict[str, Any]]) -> dict[int, float]:
        each = ratio / 100 if ratio else self._default
        found: dict[int, float] = {}
        for vgpu in vgpus:
            found[vgpu["card"]] = found.get(vgpu["card"], 0.0) + each
        return found

    # ---- channels come and go ----

    def join(self, holder: Holder, ratio: int) -> None:
        """A channel begins; its work waits for turns from now on."""
        if not self.are_on:
            return
        self._holders[holder.id] = holder
        self._shares[holder.id] = self._wanted(ratio, holder.allocation["vgpus"])
        for card, share in self._shares[holder.id].items():
            self._cards.setdefault(card, Turns(self._mode == "strict")).join(holder.id, share)

    def resume(self, holder: Holder, ratio: int) -> None:
        """A channel that asks for turns, since it began under an earlier daemon: without limits it gets each at once."""
        self.join(holder, ratio)
        self._holders[holder.id] = holder

    def leave(self, channel_id: int) -> None:
        """A channel is gone; harmless for one that never joined."""
        for card in self._shares.pop(channel_id, {}):
            self._wanted_at.pop((card, channel_id), None)
            self._obey(card, self._cards[card].leave(channel_id, _now()))
        self._holders.pop(channel_id, None)

    def together(self, one: int, other: int) -> None:
        """Two channels share memory: kernels of one may wait for those of the other."""
        for turns in self._cards.values():
            turns.together(one, other)

    def waiting(self, card: int) -> int:
        """Channels that have work for this card and wait for their turn."""
        return sum(on == card for on, _ in self._wanted_at)

    # ---- words of workers ----

    def want(self, channel_id: int, device: int) -> None:
        """Raises ProtocolError for a device that it has not."""
        card = self._card(channel_id, device)
        if not self.are_on:
            self._holders[channel_id].turn(device, True, False)
            return
        self._wanted_at.setdefault((card, channel_id), _now())
        self._obey(card, self._cards[card].want(channel_id, _now()))

    def done(self, channel_id: int, device: int) -> None:
        """Raises ProtocolError for a device that it has not."""
        card = self._card(channel_id, device)
        if self.are_on:
            self._obey(card, self._cards[card].done(channel_id, _now()))

    def _card(self, channel_id: int, device: int) -> int:
        holder = self._holders.get(channel_id)
        if holder is None or device >= len(holder.allocation["vgpus"]):
            raise ProtocolError(f"word of a turn on device {device}, which it has not")
        card: int = holder.allocation["vgpus"][device]["card"]
        return card

    def _obey(self, card: int, orders: list[Order]) -> None:
        for order in orders:
            holder = self._holders[order.process]  # type: ignore[index]
            device = next(i for i, v in enumerate(holder.allocation["vgpus"]) if v["card"] == card)
            holder.turn(device, order.begin, order.shared)
            since = self._wanted_at.pop((card, holder.id), None) if order.begin else None
            if since is not None:
                self.waited_seconds[card] = self.waited_seconds.get(card, 0.0) + _now() - since
        timer = self._timers.pop(card, None)
        if timer is not None:
            timer.cancel()
        if (deadline := self._cards[card].deadline) is not None:
            self._timers[card] = asyncio.get_running_loop().call_at(deadline, self._tick, card)

    def _tick(self, card: int) -> None:
        self._obey(card, self._cards[card].tick(_now()))


def _now() -> float:
    return asyncio.get_running_loop().time()
