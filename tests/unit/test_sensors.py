# SPDX-License-Identifier: Apache-2.0
"""The daemon's side of the monitor: how often it is asked, and what a bad one costs."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from pathlib import Path

import pytest

from orion_virt.server import sensors
from orion_virt.server.sensors import Look, Monitor, SimulatedSensors

GOOD = 'while read x; do n=$((n + 1)); echo "{\\"figures\\": [{\\"60\\": $n}], \\"load\\": [{\\"42\\": [7, 2]}]}"; done'


def monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Monitor:
    """A shell script in the place of Python."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho started >>{tmp_path}/starts\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return Monitor(["0000:01:00.0"])


def looks(made: Monitor, count: int, pause: float = 0.0) -> list[Look]:
    async def run() -> list[Look]:
        await made.start()
        found = []
        for _ in range(count):
            found.append(await made.look([]))
            await asyncio.sleep(pause)
        await made.stop()
        return found

    return asyncio.run(run())


def test_figures_and_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = looks(monitor(tmp_path, monkeypatch, GOOD), 1)[0]
    assert look.figures == [{60: 1}]
    assert (look.load_of(0, 42), look.load_of(0, 43), look.load_of(1, 42)) == ((7, 2), (0, 0), (0, 0))


def test_cards_are_asked_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "FRESH_SECONDS", 0.3)
    found = [look.figures[0][60] for look in looks(monitor(tmp_path, monkeypatch, GOOD), 10, 0.1)]
    assert found[0] == found[1] == 1 and 3 <= found[-1] <= 5
    assert (tmp_path / "starts").read_text() == "started\n"


@pytest.mark.parametrize("body", ["exit 1", "echo nonsense; read x", "exec sleep 60", "read x; echo {}"])
def test_a_bad_monitor_costs_figures_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    monkeypatch.setattr(sensors, "_LOOK_SECONDS", 0.5)
    monkeypatch.setattr(sensors, "_AGAIN_SECONDS", 0.2)
    with caplog.at_level(logging.WARNING):
        found = looks(monitor(tmp_path, monkeypatch, body), 3, 0.3)
    assert found == [Look()] * 3
    assert [r.message.startswith("guests' NVML shows no temperature") for r in caplog.records] == [True]  # said once
    assert (tmp_path / "starts").read_text().count("started") == 3  # and tried again


def test_a_simulated_cards_load_is_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "FRESH_SECONDS", 0.2)
    made = SimulatedSensors(2)

    async def run() -> tuple[Look, Look]:
        first = await made.look([os.getpid()])
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return first, await made.look([os.getpid(), 1 << 22])

    first, second = asyncio.run(run())
    assert first.load_of(0, os.getpid()) == (0, 0)
    busy, memory = second.load_of(1, os.getpid())
    assert 0 < busy <= 100 and memory == 0
    assert second.load_of(0, 1 << 22) == (0, 0)
    assert len(second.figures) == 2 and second.figures[0][60] == 30
