# SPDX-License-Identifier: Apache-2.0
"""ORION_GMEM as a ceiling of what a process causes on an NVIDIA card: the card's own figures, sampled while programs press against it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import host as hosts
import pynvml
import pytest
from programs import compiled, without_vgpu

pytestmark = pytest.mark.gpu
HERE = Path(__file__).parent
PRESSURE = str(HERE / "programs" / "pressure.py")
MEMBER = str(HERE.parent / "loopback" / "group_member.py")
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
MIB = 1 << 20
SLACK_MIB = 20
EVERY_SECONDS = 0.02


class Card:
    """The first card's memory, sampled: all that is taken of it beyond what was at the start, and what NVML says of each process."""

    def __init__(self, books: Callable[[], object] = lambda: None) -> None:
        """`books`: asked at each new maximum, for the reader of a failure."""
        self._books, self.at_most = books, None
        pynvml.nvmlInit()
        self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        self._idle = self.used()
        self._stop = threading.Event()
        self.most, self.samples, self.each = 0, 0, {}

    def used(self) -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def processes(self) -> dict[int, int]:
        found = pynvml.nvmlDeviceGetComputeRunningProcesses_v3(self._handle)
        return {p.pid: p.usedGpuMemory or 0 for p in found}

    def _sample(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            used, processes = self.used() - self._idle, self.processes()
            if used > self.most:
                self.most, self.at_most = used, (processes, self._books())
            for pid, of_it in processes.items():
                self.each[pid] = max(self.each.get(pid, 0), of_it)
            self.samples += 1

    def __enter__(self) -> Card:
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        print(f"at the most: {self.at_most}")
        print(f"{self.samples} samples; most on the card {self.most / MIB:.1f} MiB beyond idle; of processes, by NVML: "
              f"{ {pid: round(used / MIB, 1) for pid, used in self.each.items()} }")


def settled(books: Callable[[], object] = lambda: None) -> Card:
    """A card on which nothing of before is left."""
    card = Card()
    before, since = card.used(), time.monotonic()
    while time.monotonic() - since < 1:
        time.sleep(0.1)
        now = card.used()
        if now != before:
            before, since = now, time.monotonic()
    return Card(books)


def bare(env: dict[str, str], many: int = 1) -> tuple[int, int]:
    """What a process with nothing but a context takes: of the card, and by NVML."""
    card = settled()
    with card:
        members = [subprocess.Popen([sys.executable, MEMBER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                   for _ in range(many)]
        assert all(m.stdout.readline() == "0\n" for m in members)
        time.sleep(0.5)
        for m in members:
            m.communicate("")
    return card.most, max(card.each.values(), default=0)


@pytest.fixture(scope="module")
def base(host: hosts.Host) -> int:
    """Of a worker with a bare context, beside native's."""
    native, native_nvml = bare(without_vgpu())
    ours, ours_nvml = bare(host.env | {"ORION_GMEM": "4000"})
    print(f"base: native {native / MIB:.1f} MiB (NVML {native_nvml / MIB:.1f}), a worker {ours / MIB:.1f} (NVML {ours_nvml / MIB:.1f})")
    return ours


@pytest.fixture(scope="module")
def ceiling(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compiled(tmp_path_factory.mktemp("ceiling"), "ceiling"))


def press(host: hosts.Host, commands: list[list[str]], **variables: object) -> tuple[Card, list[dict]]:
    """Runs the commands at once, to their end; what they printed."""
    env = host.env | {key: str(value) for key, value in variables.items()}
    card = settled(lambda: [(c["worker"], [d["used_bytes"] for d in c["devices"]]) for c in host.status()["channels"]])
    with card:
        running = [subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                   for command in commands]
        for process, command in zip(running, commands):
            assert PRESSURE not in command or process.stdout.readline() == "ready\n"
        ended = [process.communicate("\n", timeout=110) for process in running]
    for process, (out, err) in zip(running, ended):
        print(out, err[-3000:])
        assert process.returncode == 0, host.output()[-3000:]
    return card, [json.loads(out.splitlines()[-1]) for out, _ in ended]


def holds(card: Card, ceiling_mib: int, base: int, many: int = 1) -> None:
    """`many` vGPUs of that ceiling, each with its context; by all that is taken of the card."""
    beyond = card.most / MIB - many * (ceiling_mib + base / MIB)
    print(f"most {card.most / MIB:.1f} MiB = {many} times the ceiling of {ceiling_mib} and a base of {base / MIB:.1f}, and {beyond:+.1f} MiB")
    assert beyond <= SLACK_MIB


@needs_torch
def test_torch_under_pressure(host: hosts.Host, base: int) -> None:
    card, (told,) = press(host, [[sys.executable, PRESSURE, "25"]], ORION_GMEM=6000)
    holds(card, 6000, base)
    assert told["cuda:0"]["out of memory"] > 3
    assert card.most / MIB > 0.9 * 6000, "it was not pressed"


@needs_torch
def test_two_processes_of_a_group(host: hosts.Host, base: int) -> None:
    """One ceiling for both: the second's context comes out of it."""
    card, told = press(host, [[sys.executable, PRESSURE, "10", seed] for seed in "12"], ORION_GMEM=6000, ORION_GROUP="pressed")
    holds(card, 6000, base)
    assert sum(one["cuda:0"]["out of memory"] for one in told) > 3


@needs_torch
def test_two_vgpus_of_a_card(host: hosts.Host, base: int) -> None:
    card, (told,) = press(host, [[sys.executable, PRESSURE, "10"]], ORION_GMEM=4000, ORION_VGPU=2)
    holds(card, 4000, base, many=2)
    assert all(told[device]["out of memory"] > 0 for device in ("cuda:0", "cuda:1"))


@pytest.mark.parametrize("kinds", [[], ["linear", "pool"], ["module", "context", "stream"], ["local", "limit"], ["array", "graph"]],
                         ids=lambda kinds: "+".join(kinds) or "all")
def test_kinds_of_memory(host: hosts.Host, base: int, ceiling: str, kinds: list[str]) -> None:
    card, (told,) = press(host, [[ceiling, "600", "1", *kinds]], ORION_GMEM=1500)
    holds(card, 1500, base)
    print(told)


@pytest.mark.parametrize("native", [True, False])
def test_opened_memory_counts_once(host: hosts.Host, native: bool) -> None:
    """For who made it; NVML's figures of both are printed."""
    card = settled()
    running: list[subprocess.Popen] = []

    def start(*argv: str) -> list[str]:
        env = without_vgpu() if native else host.env | {"ORION_GMEM": "2000"}
        running.append(subprocess.Popen([sys.executable, str(HERE / "programs" / "opened.py"), *argv], env=env,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return running[-1].stdout.readline().split()

    free, handle = start("own", "512")
    print("one has it:", card.processes(), free)
    other_free, _ = start("open", handle)
    print("two have it:", card.processes(), other_free)
    for process in reversed(running):
        process.communicate("\n")
        assert process.returncode == 0
    assert native or (int(free), int(other_free)) == (2000 - 512, 2000)


def test_what_a_driver_takes(tmp_path: Path) -> None:
    """Figures only: on the card itself, without us."""
    settled()
    done = subprocess.run([str(compiled(tmp_path, "costs"))], env=without_vgpu(), capture_output=True, text=True, timeout=100)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
