# SPDX-License-Identifier: Apache-2.0
"""Two vGPUs of two NVIDIA cards, which they are when they do not fit on one."""

from __future__ import annotations

import sys
from pathlib import Path

import host as hosts
import pytest
from test_processes_on_nvidia import SUMS, needs_torch, on_two

pytestmark = pytest.mark.gpu
TWO = str(Path(__file__).resolve().parent.parent / "loopback" / "two.py")


@pytest.fixture
def mib(host: hosts.Host) -> int:
    """ORION_GMEM of which one card has room for one."""
    gpus = host.status()["gpus"]
    if len(gpus) < 2:
        pytest.skip("two NVIDIA GPUs are needed")
    return (gpus[0]["total_bytes"] >> 20) * 6 // 10


@pytest.mark.parametrize("what", ["identity", "one_thread", "two_threads", "peers", "reset", "states", "fault"])
def test_a_process_with_two(host: hosts.Host, mib: int, what: str) -> None:
    done = host.run([sys.executable, TWO, what], timeout=120, ORION_VGPU=2, ORION_GMEM=mib)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_torch
@pytest.mark.parametrize("disabled", [0, 1])
def test_nccl_sum(host: hosts.Host, mib: int, disabled: int) -> None:
    """By memory of the other card, and by pages in /dev/shm; the two ranks share the one allocation that there is room for."""
    sums = on_two(host, "nccl_sum", NCCL_P2P_DISABLE=disabled, ORION_GMEM=mib, ORION_GROUP=f"ranks{disabled}")
    assert sums.splitlines() == SUMS
