# SPDX-License-Identifier: Apache-2.0
"""NVML on a GPU host: the card's figures are the same natively and through a vGPU; memory and load are the guest's own."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import host as hosts
import pytest

pytestmark = pytest.mark.gpu
REGION_MIB = 256
HERE = Path(__file__).parent / "programs"
# Writes to 1 GiB again and again; prints its pid, and, once NVML shows them, its memory and load on device 0.
BUSY = """
import ctypes, os, sys, time
import pynvml as n
n.nvmlInit()
cu = ctypes.CDLL("libcuda.so.1")
context, pointer, size = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_size_t(1 << 30)
assert not (cu.cuInit(0) or cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or cu.cuCtxSetCurrent(context)
            or cu.cuMemAlloc_v2(ctypes.byref(pointer), size))
h, end, load, used = n.nvmlDeviceGetHandleByIndex(0), time.monotonic() + 30, 0, 0
while time.monotonic() < end and not (load and used):
    for _ in range(500):
        cu.cuMemsetD8Async(pointer, ctypes.c_ubyte(1), size, None)
    assert not cu.cuCtxSynchronize()
    used = sum(p.usedGpuMemory or 0 for p in n.nvmlDeviceGetComputeRunningProcesses(h) if p.pid == os.getpid())
    load = n.nvmlDeviceGetUtilizationRates(h).gpu
print(load, used >> 20, n.nvmlDeviceGetMemoryInfo(h).used >> 20, n.nvmlDeviceGetMemoryInfo(h).total >> 20)
"""


def run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("what", ["static", "errors", "live"])
def test_the_same_as_natively(host: hosts.Host, what: str) -> None:
    command = [sys.executable, str(HERE / "nvml.py"), what]
    native, ours = run(command, dict(os.environ)), run(command, host.env)
    print(native.stdout, ours.stdout, ours.stderr, sep="\n--\n")
    assert ours.stdout.splitlines() == native.stdout.splitlines()


def test_memory_and_load_are_the_guests(host: hosts.Host) -> None:
    native = run([sys.executable, "-c", BUSY], dict(os.environ)).stdout.split()
    load, own, used, total = map(int, run([sys.executable, "-c", BUSY], host.env | {"ORION_GMEM": "3000"}).stdout.split())
    assert 1024 <= own == used < 1200 and total == 3000
    if native[1] == "0":
        pytest.skip("NVML does not know the processes of this container, so their load cannot be known either")
    assert 1 <= load <= 100


def test_the_hosts_nvidia_smi(host: hosts.Host) -> None:
    if not shutil.which("nvidia-smi"):
        pytest.skip("nvidia-smi is not installed")
    query = ["nvidia-smi", "-i", "0", "--format=csv,noheader", "--query-gpu=name,driver_version,compute_cap,vbios_version,power.limit,"
             "clocks.max.sm,clocks.max.memory,pcie.link.gen.max,ecc.mode.current,persistence_mode,mig.mode.current"]
    assert run(query, host.env).stdout == run(query, dict(os.environ)).stdout
    env = host.env | {"ORION_VGPU": "2", "ORION_GMEM": "5000"}
    table = run(["nvidia-smi"], env).stdout
    print(table)
    assert re.findall(r"00000000:(A\d):00\.0", table) == ["A0", "A1"] and re.findall(r"/\s+(\d+)MiB", table) == ["5000", "5000"]
    listed = run(["nvidia-smi", "-L"], env).stdout
    assert re.findall(r"UUID: (GPU-\S+)\)", listed) == re.findall(r"UUID: (GPU-\S+)\)", run([str(hosts.LIB / "guest/orion-smi"), "-L"], env).stdout)


TORCH = """
import time, torch
x = torch.ones(1 << 28, device="cuda")
torch.cuda.synchronize()
time.sleep(2.5)
uuid = "GPU-" + str(torch.cuda.get_device_properties(0).uuid)
print(uuid == torch.cuda._raw_device_uuid_nvml()[0], torch.cuda._raw_device_count_nvml() >= torch.cuda.device_count() >= 1)
print(0 <= torch.cuda.utilization() <= 100, 10 < torch.cuda.temperature() < 100, torch.cuda.power_draw() > 1000)
print(torch.cuda.clock_rate() > 0, torch.cuda.device_memory_used() >= 1 << 30)
"""


def test_torch(host: hosts.Host) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    assert run([sys.executable, "-c", TORCH], host.env).stdout.split() == ["True"] * 7
