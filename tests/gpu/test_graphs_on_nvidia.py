# SPDX-License-Identifier: Apache-2.0
"""Graphs by the runtime API, and graphs that device code steers, natively and through a vGPU: both print the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import host as hosts
import programs
import pytest

pytestmark = pytest.mark.gpu
FLAGS = {"cudagraphs": [], "conditional": ["-rdc=true", "-lcudadevrt"]}


def bodies(name: str) -> list[str]:
    found = re.findall(r'\{ "(\w+)", \w+ \}', (programs.FOLDER / f"{name}.cu").read_text())
    assert found
    return found


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    """Daemon and controller on the NVIDIA driver."""
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=1024, simulated=False) as running:
        yield running


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if not shutil.which("nvcc"):
        pytest.skip("nvcc is not installed")
    folder = tmp_path_factory.mktemp("graphs")
    for name, flags in FLAGS.items():
        source = programs.FOLDER / f"{name}.cu"
        subprocess.run(["nvcc", "-o", folder / name, source, "-arch=native", "-std=c++17", *flags], check=True)
    return {name: folder / name for name in FLAGS}


@pytest.mark.parametrize(("name", "body"), [(name, body) for name in FLAGS for body in bodies(name)])
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_same(host: hosts.Host, built: dict[str, Path], name: str, body: str, transport: str) -> None:
    env = host.env if transport == "shm" else host.tcp_env
    native, ours = (subprocess.run([built[name], body], capture_output=True, text=True, timeout=240, env=e, check=False)
                    for e in (dict(os.environ), env))  # fmt: skip
    print(native.stdout, ours.stdout, ours.stderr, native.stderr[-500:], sep="\n--\n")
    assert native.stdout and "WRONG" not in native.stdout
    assert (ours.stdout, ours.returncode) == (native.stdout, native.returncode)
