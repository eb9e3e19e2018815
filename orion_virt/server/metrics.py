# SPDX-License-Identifier: Apache-2.0
"""What oriond exports for Prometheus. Labels are cards, slots and proven domains: no client can make series up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import Metric

from orion_virt import paths
from orion_virt.metrics import Page, counter, gauge
from orion_virt.server.channel import Channel
from orion_virt.server.contract import Parts
from orion_virt.server.sensors import Look
from orion_virt.server.tally import Sums, Tally, domain_of, place_of

TEMPERATURE, POWER_MW = 60, 96  # numbers of figures, spec/nvml/device.py
_GPU, _DOMAIN, _VGPU = ("gpu",), ("domain",), ("gpu", "slot")


class Exporter:
    """For the event loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._page = Page()
        self._build = paths.build_id()

    async def text(self, accept: str) -> tuple[bytes, str]:
        """The metrics of now and their Content-Type."""
        names = await self._parts.names.known(region.uuid for region in self._parts.regions)
        look = await self._parts.usage.look()
        return self._page.text(self._families(names, look), accept)

    def _families(self, names: dict[str, str], look: Look) -> Iterator[Metric]:
        parts, live = self._parts, self._parts.channels_part.of(None)
        tally: Tally = parts.channels_part.tally
        yield from _host(parts, self._build)
        yield from _channels(parts, tally, live)
        yield from _cards(parts, tally, live, look)
        yield from _domains(parts, tally, live, names)
        yield from _vgpus(tally, live)


def _host(parts: Parts, build: str) -> Iterator[Metric]:
    inventory = parts.inventory
    driver = inventory.version_text or str(inventory.driver_version)
    yield gauge("orion_build_info", "Versions; always 1", ("build", "driver", "simulated"),
                [((build, driver, str(inventory.simulated).lower()), 1)])
    yield gauge("orion_registered", "1 while the controller knows this host, else no program gets a vGPU", (),
                [((), parts.accounts.is_registered)])
    yield gauge("orion_regions_memory_bytes", "Shared memory of all regions", (), [((), parts.regions.used_bytes)])
    yield gauge("orion_regions_memory_limit_bytes", "What regions may take together (shm_budget)", (),
                [((), parts.regions.budget_bytes)])


def _channels(parts: Parts, tally: Tally, live: list[Channel]) -> Iterator[Metric]:
    yield gauge("orion_channels", "Guest processes that are served now; each has one worker", (), [((), len(live))])
    yield gauge("orion_workers_warm", "Workers that wait for the next process", (), [((), parts.pool.nr_warm)])
    yield counter("orion_channels_opened", "Guest processes that were served, by the way their commands travel", ("transport",),
                  (((way,), n) for way, n in tally.ways.items()))
    yield counter("orion_channels_ended", "Channels that ended: by the guest, malformed commands, the worker, the server, a kernel without end",
                  ("reason",), (((why,), n) for why, n in tally.ends.items()))
    yield counter("orion_handshakes_refused", "Connections of guests that led to no channel", ("reason",),
                  (((why,), n) for why, n in tally.refusals.items()))


def _cards(parts: Parts, tally: Tally, live: list[Channel], look: Look) -> Iterator[Metric]:
    gpus, taken = parts.inventory.gpus, _by_card(live)
    cards = [gpu.index for gpu in gpus]
    yield gauge("orion_gpu_info", "A card's name; always 1", ("gpu", "name"), [((str(g.index), g.name), 1) for g in gpus])
    yield gauge("orion_gpu_memory_size_bytes", "Memory of the card", _GPU, [((str(g.index),), g.total_bytes) for g in gpus])
    yield gauge("orion_gpu_memory_limit_bytes", "What live vGPUs may allocate on the card", _GPU,
                _of(cards, {c: sum(v["memory_bytes"] for v, _ in of.values()) for c, of in taken.items()}))
    yield gauge("orion_gpu_memory_used_bytes", "What the processes of guests have allocated on the card", _GPU,
                _of(cards, {c: sum(used for _, used in of.values()) for c, of in taken.items()}))
    yield gauge("orion_gpu_vgpus", "vGPUs of the card (vgpu_count)", _GPU, _of(cards, dict.fromkeys(cards, parts.config.vgpu_count)))
    yield gauge("orion_gpu_vgpus_used", "vGPUs that processes have", _GPU, _of(cards, {c: len(of) for c, of in taken.items()}))
    yield gauge("orion_gpu_busy_ratio", "Share of the card's time that the processes of guests take, 0 to 1", _GPU,
                _of(cards, {c: _busy(live, look, c) for c in cards}))
    yield counter("orion_gpu_busy_seconds", "Time on the card of all processes of guests, from samples of each second", _GPU,
                  _of(cards, tally.gpu_seconds(live)))
    turns = parts.channels_part.turns
    yield gauge("orion_gpu_turns_waiting", "Processes that wait for their turn on the card (compute_limits)", _GPU,
                _of(cards, {c: turns.waiting(c) for c in cards}))
    yield counter("orion_gpu_turn_wait_seconds", "Time that processes waited for turns on the card (compute_limits)", _GPU,
                  _of(cards, turns.waited_seconds))
    yield gauge("orion_gpu_temperature_celsius", "Temperature of the card, where it tells", _GPU, _figures(look, TEMPERATURE, 1))
    yield gauge("orion_gpu_power_watts", "Power of the card, where it tells", _GPU, _figures(look, POWER_MW, 1000))


def _domains(parts: Parts, tally: Tally, live: list[Channel], names: dict[str, str]) -> Iterator[Metric]:
    regions = {region.uuid: region for region in parts.regions}
    sums = tally.domains(live)
    known = {*regions, *sums}
    yield gauge("orion_domain_info", "A domain's name; always 1", ("domain", "name"),
                (((uuid, names.get(uuid, "")), 1) for uuid in known))
    yield gauge("orion_domain_region_bytes", "Size of the domain's region", _DOMAIN,
                (((uuid,), region.size_bytes) for uuid, region in regions.items()))
    yield gauge("orion_domain_processes", "Processes of the domain that have vGPUs now", _DOMAIN,
                (((uuid,), sum(domain_of(c) == uuid for c in live)) for uuid in known))
    each = {uuid: list(_places([c for c in live if domain_of(c) == uuid]).values()) for uuid in known}
    yield gauge("orion_domain_vgpus", "vGPUs that the domain's processes have", _DOMAIN, (((u,), len(f)) for u, f in each.items()))
    yield gauge("orion_domain_memory_limit_bytes", "What the domain's processes may allocate on cards", _DOMAIN,
                (((uuid,), sum(v["memory_bytes"] for v, _ in found)) for uuid, found in each.items()))
    yield gauge("orion_domain_memory_used_bytes", "What the domain's processes have allocated on cards", _DOMAIN,
                (((uuid,), sum(used for _, used in found)) for uuid, found in each.items()))
    yield from _sums("orion_domain", "of the domain's processes", _DOMAIN, (((uuid,), s) for uuid, s in sums.items()))


def _vgpus(tally: Tally, live: list[Channel]) -> Iterator[Metric]:
    found = [((str(card), str(slot)), *of) for (card, slot), of in _places(live).items()]
    owners = {(str(v["card"]), str(v["slot"])): domain_of(c) for c in live for v in c.allocation["vgpus"]}
    first = {(str(v["card"]), str(v["slot"])): tuple(map(str, place_of(c))) for c in live for v in c.allocation["vgpus"]}
    yield gauge("orion_vgpu_info", "Who has the vGPU; of an allocation of several the first one is named by first_gpu, first_slot; "
                "always 1", ("gpu", "slot", "domain", "first_gpu", "first_slot"),
                (((*place, owner, *first[place]), 1) for place, owner in owners.items()))
    yield gauge("orion_vgpu_memory_limit_bytes", "What may be allocated on the vGPU", _VGPU, ((p, v["memory_bytes"]) for p, v, _ in found))
    yield gauge("orion_vgpu_memory_used_bytes", "What is allocated on the vGPU", _VGPU, ((p, used) for p, _, used in found))
    yield from _sums("orion_allocation", "of the allocations whose first vGPU this was", _VGPU,
                     (((str(card), str(slot)), s) for (card, slot), s in tally.places(live).items()))


def _sums(prefix: str, whose: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], Sums]]) -> Iterator[Metric]:
    rows = list(rows)
    yield counter(f"{prefix}_calls", f"Calls {whose} that reached the host", labels, ((p, s.calls) for p, s in rows))
    yield counter(f"{prefix}_copied_bytes", f"Bytes that copies {whose} carried", labels, ((p, s.copied_bytes) for p, s in rows))
    yield counter(f"{prefix}_gpu_seconds", f"Time on cards {whose}, from samples of each second", labels,
                  ((p, s.gpu_seconds) for p, s in rows))


def _places(live: Iterable[Channel]) -> dict[tuple[int, int], tuple[dict[str, Any], int]]:
    """The vGPUs in use, and the bytes used of each: processes of a group share theirs."""
    found: dict[tuple[int, int], tuple[dict[str, Any], int]] = {}
    for channel in live:
        for at, vgpu in enumerate(channel.allocation["vgpus"]):
            place = vgpu["card"], vgpu["slot"]
            found[place] = vgpu, found.get(place, (vgpu, 0))[1] + channel.usage.get(at, 0)
    return found


def _by_card(live: Iterable[Channel]) -> dict[int, dict[int, tuple[dict[str, Any], int]]]:
    found: dict[int, dict[int, tuple[dict[str, Any], int]]] = {}
    for (card, slot), of in _places(live).items():
        found.setdefault(card, {})[slot] = of
    return found


def _busy(live: Iterable[Channel], look: Look, card: int) -> float:
    return min(1.0, sum(look.load_of(card, channel.worker.pid)[0] for channel in live) / 100)


def _of(cards: Iterable[int], values: dict[int, float] | dict[int, int]) -> Iterator[tuple[tuple[str], float]]:
    return (((str(card),), values.get(card, 0)) for card in cards)


def _figures(look: Look, number: int, divisor: float) -> Iterator[tuple[tuple[str], float]]:
    return (((str(card),), found[number] / divisor) for card, found in enumerate(look.figures) if number in found)
