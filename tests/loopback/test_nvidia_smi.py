# SPDX-License-Identifier: Apache-2.0
"""The stock nvidia-smi in a guest. ORION_NVIDIA_SMI names the program; `make test-nvidia-smi` fetches one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import host as hosts
import pytest
from host import Host
from test_nvml import MIB, holding, seen

SMI = os.environ.get("ORION_NVIDIA_SMI") or shutil.which("nvidia-smi")
pytestmark = pytest.mark.skipif(not SMI, reason="nvidia-smi is not installed")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with hosts.running(tmp_path_factory.mktemp("smi"), region_mib=64) as running:
        yield running


def smi(host: Host, *args: str, **variables: object) -> str:
    done = host.run([str(SMI), *args], **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_table(host: Host) -> None:
    with holding(host.env, 100, ORION_GMEM=500):
        seen(host, host.env, 100 * MIB)
        table = smi(host, ORION_VGPU=2, ORION_GMEM=500)
    assert "Driver Version: 0.0.0" in table and "CUDA Version: 13.0" in table
    rows = re.findall(r"\|\s+(\d)\s+Orion Simulated GPU\s+\w+\s+\|\s+00000000:(A\d):00\.0", table)
    assert rows == [("0", "A0"), ("1", "A1")]
    assert re.findall(r"(\d+)MiB /\s+(\d+)MiB", table) == [("100", "500"), ("0", "500")]
    assert re.search(r"\b30C\s+P0\s+10W / 100W", table) and table.count("Default") == 2


def test_queries(host: Host) -> None:
    assert re.fullmatch(r"GPU 0: Orion Simulated GPU \(UUID: GPU-[0-9a-f-]{36}\)\n", smi(host, "-L"))
    names = "name,memory.total,memory.used,utilization.gpu,temperature.gpu,compute_cap,pci.bus_id,pstate,ecc.mode.current"
    assert smi(host, f"--query-gpu={names}", "--format=csv,noheader", ORION_GMEM=700) == (
        "Orion Simulated GPU, 700 MiB, 0 MiB, 0 %, 30, 9.0, 00000000:A0:00.0, P0, Disabled\n"
    )
    details = smi(host, "-q")
    assert re.search(r"MIG Mode\s+Current\s+: Disabled", details) and re.search(r"SM +: 1000 MHz", details)


def test_without_a_server(host: Host) -> None:
    done = host.run([str(SMI)], ORION_SERVER="127.0.0.1:1")
    assert done.returncode != 0
    assert "no Orion server answers" in done.stderr
    assert "couldn't communicate with the NVIDIA driver" in done.stdout
