# SPDX-License-Identifier: Apache-2.0
"""Metrics on a GPU host: the card's sensors, and the time that a process takes of it."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

import host as hosts
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.gpu
MIB = 1 << 20
# Writes to 1 GiB again and again for as many seconds as it is told.
BUSY = """
import ctypes, sys, time
cu = ctypes.CDLL("libcuda.so.1")
context, pointer, size = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_size_t(1 << 30)
assert not (cu.cuInit(0) or cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or cu.cuCtxSetCurrent(context)
            or cu.cuMemAlloc_v2(ctypes.byref(pointer), size))
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for _ in range(500):
        cu.cuMemsetD8Async(pointer, ctypes.c_ubyte(1), size, None)
    assert not cu.cuCtxSynchronize()
"""


def samples(host: hosts.Host, port: int) -> dict[tuple[str, str], float]:
    """By name and card ("": of no card)."""
    token = (Path(host.dir) / "state" / "monitor.token").read_text().strip()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        found = list(text_string_to_metric_families(answer.read().decode()))
    return {(s.name, s.labels.get("gpu", "")): s.value for f in found for s in f.samples}


def test_sensors_and_time(tmp_path: Path) -> None:
    port = hosts.free_port()
    with hosts.running(tmp_path, config=f"[server]\nmetrics = 127.0.0.1:{port}\n", simulated=False) as host:
        before = samples(host, port)
        assert 10 < before["orion_gpu_temperature_celsius", "0"] < 100 and 5 < before["orion_gpu_power_watts", "0"] < 1500
        assert before["orion_gpu_memory_size_bytes", "0"] > 1024 * MIB and before["orion_gpu_busy_seconds_total", "0"] == 0
        busy = subprocess.Popen([sys.executable, "-c", BUSY, "15"], env=host.env | {"ORION_GMEM": "3000"})
        assert hosts.wait_for(lambda: samples(host, port)["orion_gpu_memory_used_bytes", "0"] == 1024 * MIB, 60)
        told = hosts.wait_for(lambda: samples(host, port)["orion_gpu_busy_ratio", "0"] > 0)
        assert busy.wait(60) == 0
        assert hosts.wait_for(host.idle)
        after = samples(host, port)
        print(after)
        if not told:
            pytest.skip("NVML does not know the processes of this container, so their load cannot be known either")
        assert 1 < after["orion_gpu_busy_seconds_total", "0"] <= 30
        assert after["orion_gpu_memory_used_bytes", "0"] == 0 and after["orion_channels", ""] == 0
