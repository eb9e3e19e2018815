# SPDX-License-Identifier: Apache-2.0
"""Processes that share: programs natively and through a vGPU, and NCCL between two vGPUs of one card."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import host as hosts
import pytest
from programs import both, nvcc

pytestmark = pytest.mark.gpu
HERE = Path(__file__).parent / "programs"
PROCESSES = str(HERE / "processes.py")
NCCL_CONF = hosts.ROOT / "guest-agent" / "installer" / "nccl.conf"
BODIES = ["simple", "vmm", "pool", "pages", "wrong"]
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
SUMS = [f"sum of {size} True" for size in (1, 1000, 1 << 20, 16 << 20)] + [
    "gathered [[0.0, 1.0, 2.0], [10.0, 11.0, 12.0]] broadcast [1.0, 1.0, 1.0, 1.0, 1.0]", "end"]
TWO = {"ORION_VGPU": 2, "ORION_GMEM": 12000}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(nvcc(tmp_path_factory.mktemp("shared"), "shared.cu", card="native"))


def on_two(host: hosts.Host, name: str, **variables: object) -> str:
    """What a program of two ranks prints itself, as a guest runs it whose NCCL reads what the installer wrote."""
    done = host.run([sys.executable, PROCESSES, name], timeout=300, **({"NCCL_CONF_FILE": NCCL_CONF} | TWO | variables))
    print(done.stdout, done.stderr, host.output()[-3000:], sep="\n--\n")
    assert done.returncode == 0
    return "".join(line for line in done.stdout.splitlines(True) if not line.startswith("NCCL version"))


@pytest.mark.parametrize("body", BODIES)
def test_shared(host: hosts.Host, shared: str, body: str) -> None:
    both(host, [shared, body])


def test_workers_without_root(tmp_path: Path, shared: str) -> None:
    """Workers that dropped their rights reach each other's memory as well."""
    if os.geteuid() != 0:
        pytest.skip("root is needed to drop it")
    with hosts.running(tmp_path, config="[server]\nworker_user = nobody\n", region_mib=256, simulated=False) as host:
        for body in ("simple", "vmm", "pool"):
            both(host, [shared, body])


@needs_torch
@pytest.mark.parametrize("expandable", [False, True])
def test_torch_shared(host: hosts.Host, expandable: bool) -> None:
    """By CUDA's handles, and by descriptors of physical memory."""
    both(host, [sys.executable, PROCESSES, "torch_shared"], PYTORCH_CUDA_ALLOC_CONF=f"expandable_segments:{expandable}")


@needs_torch
@pytest.mark.parametrize("disabled", [0, 1])
def test_nccl_sum(host: hosts.Host, disabled: int) -> None:
    """By CUDA memory of both, and by pages in /dev/shm."""
    assert on_two(host, "nccl_sum", NCCL_P2P_DISABLE=disabled).splitlines() == SUMS


@needs_torch
def test_ddp(host: hosts.Host) -> None:
    """Two ranks on halves of each batch learn what one process learns on whole ones."""
    two = [float(line.split()[2]) for line in on_two(host, "ddp").splitlines()]
    done = host.run([sys.executable, PROCESSES, "alone"], timeout=240)
    one = [float(line.split()[2]) for line in done.stdout.splitlines()]
    assert len(one) == len(two) == 8, done.stderr
    assert one[0] != one[-1]
    assert two == pytest.approx(one, abs=2e-4)
