# SPDX-License-Identifier: Apache-2.0
"""Programs on what the common CUDA samples use, on the simulated card: they check themselves."""

from __future__ import annotations

import subprocess
from pathlib import Path

import host as hosts
import pytest
from programs import nvcc

NAMES = ["query", "async", "streams", "graph", "capture", "multicopy", "vote", "symbols", "attributes", "pools", "volume",
         "managed", "peer", "mixed"]
TWO = ["query", "peer", "mixed"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("samples"), "samples.cu")


def check(done: subprocess.CompletedProcess) -> None:
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "WRONG" not in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_sample(host: hosts.Host, program: Path, name: str) -> None:
    check(host.run([program, name]))


@pytest.mark.parametrize("name", TWO)
def test_sample_with_two_vgpus(host: hosts.Host, program: Path, name: str) -> None:
    check(host.run([program, name], ORION_VGPU=2, ORION_GMEM=512))


@pytest.mark.parametrize("name", ["async", "symbols", "pools", "volume"])
def test_sample_over_tcp(host: hosts.Host, program: Path, name: str) -> None:
    check(host.run([program, name], env=host.tcp_env))


def test_every_sample_is_named(host: hosts.Host, program: Path) -> None:
    assert host.run([program]).stdout.split() == NAMES
