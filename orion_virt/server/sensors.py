# SPDX-License-Identifier: Apache-2.0
"""The cards' live figures: from a monitor process on NVIDIA's driver, from the workers' own load on the simulated GPU."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from orion_virt.gpu import figures
from orion_virt.gpu.inventory import Inventory

FRESH_SECONDS = 1.0  # however often guests ask, the cards are not asked more often
_LOOK_SECONDS = 3.0
_AGAIN_SECONDS = 10.0  # after a monitor that failed
_STOP_SECONDS = 2.0

_log = logging.getLogger("orion.sensors")


@dataclass(frozen=True)
class Look:
    """What changes, of each card: figures by number; load and memory's load in percent by host process."""

    figures: list[dict[int, int]] = field(default_factory=list)
    load: list[dict[int, tuple[int, int]]] = field(default_factory=list)

    def load_of(self, card: int, pid: int) -> tuple[int, int]:
        return self.load[card].get(pid, (0, 0)) if card < len(self.load) else (0, 0)


class Sensors(Protocol):
    """For the event loop."""

    async def start(self) -> None: ...

    async def look(self, pids: Sequence[int]) -> Look:
        """At most FRESH_SECONDS old; empty where nothing can be read. `pids`: the workers. The same object until it is read anew."""
        ...

    async def stop(self) -> None: ...


def sensors_of(inventory: Inventory) -> Sensors:
    """Those that fit the driver in use."""
    return SimulatedSensors(len(inventory.gpus)) if inventory.simulated else Monitor([gpu.bus_id for gpu in inventory.gpus])


class SimulatedSensors:
    """A simulated GPU computes on the host's processors: the load of a worker is its share of one of them."""

    def __init__(self, nr_cards: int) -> None:
        self._nr_cards = nr_cards
        self._at = 0.0
        self._before: dict[int, tuple[float, float]] = {}  # pid -> processor seconds, when
        self._load: dict[int, tuple[int, int]] = {}
        self._last = Look()

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def look(self, pids: Sequence[int]) -> Look:
        now = time.monotonic()
        if now - self._at >= FRESH_SECONDS or set(pids) - set(self._load):
            seen = {pid: (used, now) for pid in pids if (used := _processor_seconds(pid)) is not None}
            self._load = {pid: (self._percent(pid, *found), 0) for pid, found in seen.items()}
            self._before, self._at = seen, now
            self._last = Look([figures.simulated(figures.SIMULATED_LIVE)] * self._nr_cards, [self._load] * self._nr_cards)
        return self._last

    def _percent(self, pid: int, used: float, now: float) -> int:
        """Since the last look; a process that is new then has none yet."""
        before, then = self._before.get(pid, (used, now))
        return min(100, round(100 * (used - before) / (now - then))) if now > then else 0


def _processor_seconds(pid: int) -> float | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Monitor:
    """One `orion_virt.gpu.monitor`, started with the daemon and again after it failed."""

    def __init__(self, bus_ids: Sequence[str]) -> None:
        self._bus_ids = bus_ids
        self._process: subprocess.Popen[bytes] | None = None
        self._busy = asyncio.Lock()
        self._last = Look()
        self._next = 0.0  # monotonic time from which on it is asked again
        self._said = False

    async def start(self) -> None:
        await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        await asyncio.to_thread(self._stop)

    async def look(self, pids: Sequence[int]) -> Look:
        async with self._busy:
            if time.monotonic() >= self._next:
                self._last, wait = await asyncio.to_thread(self._ask)
                self._next = time.monotonic() + wait
            return self._last

    def _start(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "ORION_", "PYTHON"))}
        argv = [sys.executable, "-m", "orion_virt.gpu.monitor", *self._bus_ids]
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(argv, env=keep | {"PYTHONPATH": root}, cwd="/", stdin=subprocess.PIPE,
                                             stdout=subprocess.PIPE)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver: it ends when that lets it
            process.wait(_STOP_SECONDS)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]

    def _ask(self) -> tuple[Look, float]:
        if self._process is None:
            self._start()
        try:
            found = json.loads(self._line())
            look = Look([_numbered(card) for card in found["figures"]],
                        [{pid: (load[0], load[1]) for pid, load in _numbered(card).items()} for card in found["load"]])
            self._said = False
            return look, FRESH_SECONDS
        except (OSError, ValueError, KeyError) as error:
            if not self._said:
                _log.warning("guests' NVML shows no temperature, power and load: the cards' sensors do not answer (%s)", error)
            self._said = True
            self._stop()
            return Look(), _AGAIN_SECONDS

    def _line(self) -> bytes:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise OSError("the monitor cannot be started")
        process.stdin.write(b"\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], _LOOK_SECONDS)[0]:
            raise OSError(f"nothing within {_LOOK_SECONDS} s")
        return process.stdout.readline()


def _numbered(found: dict[str, Any]) -> dict[int, Any]:
    """JSON's keys are strings."""
    return {int(key): value for key, value in found.items()}
