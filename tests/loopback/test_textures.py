# SPDX-License-Identifier: Apache-2.0
"""Programs on CUDA arrays, textures, surfaces and their copies, on the simulated card: they check themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import host as hosts
import pytest
from programs import nvcc

CLIENT = Path(__file__).with_name("array_client.py")
TEXTURES = ["simple", "layered", "cubemap", "pitchlinear", "surfaces", "mipmap", "formats", "modes"]
ARRAYS = ["rectangles", "runs", "boxes", "rows", "flat", "batch", "batch3d", "graphs", "references"]
LACKING = ["maps", "planes", "sparse"]  # of the simulated card


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled programs."""
    folder = tmp_path_factory.mktemp("programs")
    nvcc(folder, "textures.cu")
    nvcc(folder, "arrays.cu")
    nvcc(folder, "arrays.cu", "--default-stream", "per-thread", made="per_thread")
    return folder


def check(done: subprocess.CompletedProcess) -> None:
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "WRONG" not in done.stdout


@pytest.mark.parametrize("name", TEXTURES)
def test_textures(host: hosts.Host, programs: Path, name: str) -> None:
    check(host.run([programs / "textures", name]))


@pytest.mark.parametrize("name", ["layered", "formats", "mipmap"])
def test_textures_over_tcp(host: hosts.Host, programs: Path, name: str) -> None:
    check(host.run([programs / "textures", name], env=host.tcp_env))


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(host: hosts.Host, programs: Path, name: str) -> None:
    check(host.run([programs / "arrays", name]))


@pytest.mark.parametrize("name", ["rectangles", "boxes", "batch3d"])
def test_arrays_over_tcp(host: hosts.Host, programs: Path, name: str) -> None:
    check(host.run([programs / "arrays", name], env=host.tcp_env))


@pytest.mark.parametrize("name", ["boxes", "rows", "flat", "batch"])
def test_arrays_with_a_default_stream_for_each_thread(host: hosts.Host, programs: Path, name: str) -> None:
    check(host.run([programs / "per_thread", name]))


@pytest.mark.parametrize("case", ["batch", "with_attributes", "handles", "textures"])
def test_driver(host: hosts.Host, case: str) -> None:
    done = host.run([sys.executable, CLIENT, case])
    assert done.returncode == 0 and done.stdout.endswith("OK\n"), done.stdout + done.stderr


def test_every_body_is_named(host: hosts.Host, programs: Path) -> None:
    assert host.run([programs / "textures"]).stdout.split() == TEXTURES
    assert host.run([programs / "arrays"]).stdout.split() == ARRAYS + LACKING
