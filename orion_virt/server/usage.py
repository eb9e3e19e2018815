# SPDX-License-Identifier: Apache-2.0
"""What a guest's NVML is told: the cards' figures, and of processes those of the same guest alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from orion_virt.gpu import figures
from orion_virt.gpu.inventory import Inventory
from orion_virt.server.channel import Channel
from orion_virt.server.channels import Channels
from orion_virt.server.hello import Asker
from orion_virt.server.sensors import Look, Sensors

MAX_PROCESSES = 256  # lines, one for each vGPU of a process; the guest's library holds no more
SAMPLE_SECONDS = 1.0
LONGEST_SAMPLE_SECONDS = 6.0  # a load that was read says nothing of what lies further back
_SIMULATED = "0.0.0"  # no driver


class Usage:
    """For the event loop."""

    def __init__(self, inventory: Inventory, channels: Channels, sensors: Sensors) -> None:
        self._channels = channels
        self._sensors = sensors
        self._always = _never_changing(inventory)
        self._nr_cards = len(inventory.gpus)
        self._last: Look | None = None
        self._last_at = 0.0
        self._counts: dict[int, int] = {}  # calls by channel, at the last sample
        self._sampler: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._sensors.start()
        self._sampler = asyncio.create_task(self._sample_forever(), name="time on the cards")

    async def stop(self) -> None:
        if self._sampler is not None:
            self._sampler.cancel()
            await asyncio.gather(self._sampler, return_exceptions=True)
        await self._sensors.stop()

    async def look(self) -> Look:
        """The cards' live figures; each new one is also counted as time on the cards."""
        channels = self._channels.of(None)
        look = await self._sensors.look([channel.worker.pid for channel in channels])
        now = time.monotonic()
        if look is not self._last:
            seconds = min(now - self._last_at, LONGEST_SAMPLE_SECONDS) if self._last is not None else 0.0
            self._last, self._last_at = look, now
            for channel in channels:
                _count(channel, look, seconds)
        return look

    async def _sample_forever(self) -> None:
        """As long as something happens: who is idle costs nothing."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            counts = {channel.id: channel.rate.counts[0] for channel in self._channels.of(None)}
            busy = self._last is not None and any(load for card in self._last.load for load, _ in card.values())
            if counts and (busy or counts != self._counts):
                self._counts = counts
                await self.look()

    async def processes(self) -> tuple[list[dict[str, Any]], list[int]]:
        """Every process as ``Channel.describe`` has it, with the time it takes of its busiest card; the cards' load."""
        channels, look = self._channels.of(None), await self.look()
        found, loads = [], [0] * self._nr_cards
        for channel in channels:
            cards = {vgpu["card"] for vgpu in channel.allocation["vgpus"]}
            busy = {card: look.load_of(card, channel.worker.pid)[0] for card in cards}
            found.append(channel.describe() | {"busy_percent": max(busy.values(), default=0)})
            for card, percent in busy.items():
                loads[card] += percent
        return found, [min(load, 100) for load in loads]

    async def answer(self, asker: Asker, peer: str) -> dict[str, object]:
        """The fields of a USAGE block, for an asker who has proven what he says."""
        look = await self.look()
        fields: dict[str, object] = dict(self._always) if asker.everything else {}
        fields["live"] = " ".join(map(str, figures.LIVE))
        for card, found in enumerate(look.figures):
            still = f"{fields.get(f'card.{card}', '')} "
            fields[f"card.{card}"] = (still + _pairs(found)).strip()
        lines = [line for channel in self._channels.of(None) if _is_of(channel, asker, peer) for line in _lines(channel, look)]
        return fields | {f"process.{i}": line for i, line in enumerate(lines[:MAX_PROCESSES])}


def _count(channel: Channel, look: Look, seconds: float) -> None:
    for card in {vgpu["card"] for vgpu in channel.allocation["vgpus"]}:
        added = seconds * look.load_of(card, channel.worker.pid)[0] / 100
        channel.gpu_seconds[card] = channel.gpu_seconds.get(card, 0.0) + added


def total(processes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over processes as ``Channel.describe`` has them."""
    devices = [device for process in processes for device in process["devices"]]
    return {"processes": len(processes), "vgpus": len(devices),
            "memory_bytes": sum(d["memory_bytes"] for d in devices),
            "used_bytes": sum(d["used_bytes"] for d in devices),
            "calls_per_second": sum(p["calls_per_second"] for p in processes),
            "bytes_per_second": sum(p["bytes_per_second"] for p in processes)}


def _never_changing(inventory: Inventory) -> dict[str, object]:
    fields: dict[str, object] = {
        "driver": inventory.version_text or _SIMULATED,
        "nvml": inventory.nvml_version or _SIMULATED,
    }
    for card, gpu in enumerate(inventory.gpus):
        fields[f"card.{card}"] = _pairs(gpu.figures)
        fields |= {f"text.{card}.{number}": text for number, text in gpu.texts.items()}
    return fields | {f"pair.{key}": " ".join(map(str, values)) for key, values in inventory.pairs.items() if values}


def _pairs(found: dict[int, int]) -> str:
    return " ".join(f"{number}={value}" for number, value in sorted(found.items()))


def _is_of(channel: Channel, asker: Asker, peer: str) -> bool:
    """The boundary is the domain; over TCP the machine, by a secret of its own and its address."""
    if asker.shared:
        return channel.hello.shared and channel.domain == asker.domain
    return not channel.hello.shared and bool(asker.machine) and (channel.hello.machine, channel.peer) == (asker.machine, peer)


def _lines(channel: Channel, look: Look) -> list[str]:
    """One line for each vGPU of a process: pid, vGPU, card, bytes used, limit, load, memory's load."""
    lines = []
    vgpus: list[dict[str, Any]] = channel.allocation["vgpus"]
    for at, vgpu in enumerate(vgpus):
        index = channel.hello.vgpus[at] if at < len(channel.hello.vgpus) else at
        busy, memory = look.load_of(vgpu["card"], channel.worker.pid)
        lines.append(f"{channel.hello.pid} {index} {vgpu['card']} {channel.usage.get(at, 0)} {vgpu['memory_bytes']} {busy} {memory}")
    return lines
