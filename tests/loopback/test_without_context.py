# SPDX-License-Identifier: Apache-2.0
"""Calls on a thread without a current context answer what driver 580.159 answered on an H100."""

from __future__ import annotations

import subprocess
from pathlib import Path

import host as hosts
import pytest
from spec.cuda_header import include_or_skip

PROGRAMS = Path(__file__).resolve().parent.parent / "gpu" / "programs"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    include = include_or_skip(13)
    made = tmp_path_factory.mktemp("nocontext") / "nocontext"
    subprocess.run(["cc", "-Wall", "-Werror", f"-I{include}", "-o", made, PROGRAMS / "nocontext.c",
                    f"-L{hosts.LIB / 'guest'}", "-l:libcuda.so.1", "-pthread"], check=True)  # fmt: skip
    return made


@pytest.mark.parametrize("others", ["cold", "warm"])
@pytest.mark.parametrize("transport", ["region", "tcp"])
def test_as_recorded(host: hosts.Host, program: Path, others: str, transport: str) -> None:
    done = host.run([program, others], env=host.env if transport == "region" else host.tcp_env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (PROGRAMS / f"nocontext.{others}").read_text()


@pytest.mark.parametrize("others", ["cold", "warm"])
def test_simulated_driver_itself(host: hosts.Host, program: Path, others: str) -> None:
    done = host.run([program, others], LD_LIBRARY_PATH=hosts.LIB / "simgpu")
    assert done.stdout == (PROGRAMS / f"nocontext.{others}").read_text()
