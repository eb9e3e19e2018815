# SPDX-License-Identifier: Apache-2.0
"""`orion-virt list` and `top`: figures of domains and processes, for people and for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from control_daemon import FakeDaemon

from orion_virt.cli import top as module
from orion_virt.cli.main import main
from orion_virt.server import usage
from orion_virt.server.rate import Rate

PROCESS = {
    "channel": 1,
    "domain": "u1",
    "transport": "shm",
    "pid": 42,
    "comm": "python3",
    "peer": "10.0.0.5",
    "worker": 7,
    "devices": [{"gpu": 0, "memory_bytes": 512 << 20, "used_bytes": 100 << 20}] * 2,
    "seconds": 3725.0,
    "calls": 10,
    "copied_bytes": 5,
    "calls_per_second": 1234,
    "bytes_per_second": 2500000,
    "busy_percent": 40,
}
OTHER = PROCESS | {"domain": "", "peer": "192.0.2.7", "pid": 43, "busy_percent": 90}
GPUS = [{"name": "Card", "total_bytes": 8 << 30, "busy_percent": 95}]


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    made = FakeDaemon(tmp_path)
    processes: list[dict[str, Any]] = [PROCESS, OTHER]
    made.answers = {
        "names": {"names": ["vm1"], "by_uuid": {"u1": "vm1"}},
        "processes": {"processes": processes, "total": usage.total(processes), "gpus": GPUS, "vgpu_count": 4},
    }
    yield made
    made.close()


def test_a_picture(daemon: FakeDaemon) -> None:
    lines = CliRunner().invoke(main, ["top", "--once"]).output.splitlines()
    assert lines[0] == "GPU 0 Card: 95% busy, 8192 MiB"
    assert lines[1] == "2 processes, 4 of 4 vGPUs, 400 of 2048 MiB, 2468 calls/s, 5.0 MB/s"
    assert lines[3].split() == list(module.COLUMNS)
    assert lines[4].split()[:2] == ["192.0.2.7", "43"], "the busiest first; who has no domain shows its address"
    assert lines[5].split() == ["vm1", "42", "python3", "2", "200/1024", "MiB", "40%", "1234", "2.5", "MB/s", "1:02:05", "-"]


def test_a_long_kernel_shows_how_far_it_is(daemon: FakeDaemon) -> None:
    kernel = {"name": "_Z4slowPf", "blocks_done": 12, "blocks": 256, "seconds": 75}
    daemon.answers["processes"]["processes"] = [PROCESS | {"kernel": kernel}, OTHER | {"kernel": None}]
    lines = CliRunner().invoke(main, ["top", "--once"]).output.splitlines()
    assert lines[4].endswith(" -") and lines[5].endswith(" 12/256 0:01:15 _Z4slowPf")


def test_programs_get_a_line_for_each_picture(daemon: FakeDaemon) -> None:
    found = json.loads(CliRunner().invoke(main, ["top", "--once", "--json"]).output)
    assert [p["name"] for p in found["processes"]] == ["192.0.2.7", "vm1"] and found["total"]["vgpus"] == 4


def test_without_libvirt_uuids_are_shown(daemon: FakeDaemon) -> None:
    daemon.answers["names"] = {"ok": False, "error": "libvirt is down", "hint": "", "exit_code": 6}
    assert "u1 " in CliRunner().invoke(main, ["top", "--once"]).output


def test_it_goes_on_until_interrupted(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", nap)
    done = CliRunner().invoke(main, ["top", "--interval", "2"])
    assert done.exit_code == 0 and naps == [2.0] * 3 and done.output.count("GPU 0 Card") == 3
    assert "\x1b" not in done.output, "no control codes without a terminal"


def test_on_a_terminal_it_is_drawn_over(daemon: FakeDaemon) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "orion_virt.cli.main", "top", "--once"], stdout=theirs, timeout=20, check=False
    )
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0 and text.startswith("\x1b[H\x1b[J") and "GPU 0 Card" in text


def test_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORION_RUN", str(tmp_path))
    assert CliRunner().invoke(main, ["top", "--once"]).exit_code == 6


def test_a_rate_is_of_the_last_second_and_ends() -> None:
    now = [100.0]
    rate = Rate(lambda: now[0])
    assert rate.describe() == {"calls": 0, "copied_bytes": 0, "calls_per_second": 0, "bytes_per_second": 0}
    now[0] += 1
    rate.note(500, 1000)
    now[0] += 2
    rate.note(600, 5000)
    assert rate.describe() == {"calls": 600, "copied_bytes": 5000, "calls_per_second": 50, "bytes_per_second": 2000}
    now[0] += 3
    assert rate.describe()["calls_per_second"] == 0
    now[0] += 100
    rate.note(10, 10)  # a worker may say what it likes
    assert rate.describe()["calls_per_second"] == 0
