# SPDX-License-Identifier: Apache-2.0
"""The same bodies natively and through a vGPU: what they print and how they exit must be equal."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import host as hosts
import pytest

from programs import both, nvcc

from orion_virt.codegen import exports
from orion_virt.codegen.load import load

pytestmark = pytest.mark.gpu
HERE = Path(__file__).parent / "programs"
BODIES = ["query", "vectoradd", "streams", "copies", "graph", "cooperative", "errors", "callbacks", "threads", "mapped", "managed", "fault",
          "statics", "thrown"]
SAMPLES = ["query", "async", "streams", "graph", "capture", "multicopy", "vote", "symbols", "attributes", "pools", "volume",
           "managed", "peer", "mixed"]
DRIVER = ["legacy", "profiler", "memops", "ranges", "affinity", "linker", "green", "multi", "newer"]
ANSWERS = ["odd_names", "texts", "attributes", "limits", "without_init", "without_context", "wrong_devices",
           "wrong_contexts", "wrong_streams", "wrong_memory"]
FRAMEWORKS = {"torch_matmul": "torch", "torch_cnn": "torch", "torch_graph": "torch", "torch_misc": "torch",
              "cupy_basic": "cupy", "jax_basic": "jax"}


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("bodies"), "bodies.cu", card="native")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("samples"), "samples.cu", card="native")


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("driver"), "driver.cu", card="native")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("answers"), "answers.cu", card="native")


@pytest.mark.parametrize("body", BODIES)
def test_program(host: hosts.Host, bodies: Path, body: str) -> None:
    both(host, [str(bodies), body])


@pytest.mark.parametrize("name", SAMPLES)
def test_sample(host: hosts.Host, samples: Path, name: str) -> None:
    both(host, [str(samples), name])


@pytest.mark.parametrize("body", ["order", "captured"])
def test_marks(host: hosts.Host, tmp_path: Path, body: str) -> None:
    both(host, [str(nvcc(tmp_path, "marks.cu", "-lcuda", card="native")), body])


def test_gate(host: hosts.Host, tmp_path: Path) -> None:
    """Natively this program never ends: a launch into a full queue blocks all threads of its context (driver 580.159)."""
    done = host.run([str(nvcc(tmp_path, "marks.cu", "-lcuda", card="native")), "gate"], timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line for i in (1, 2, 3) for line in ("the held stream: 600", f"round {i}: 3000")]


@pytest.mark.parametrize("body", DRIVER)
def test_driver(host: hosts.Host, driver: Path, body: str) -> None:
    both(host, [str(driver), body])


@pytest.mark.parametrize("body", ANSWERS)
def test_answers(host: hosts.Host, answers: Path, body: str) -> None:
    both(host, [str(answers), body])


def test_every_name_is_found_as_natively(host: hosts.Host, answers: Path) -> None:
    symbols = exports.symbols(load())
    versions = sorted({s.since for s in symbols} | {13010, 13020})
    lines = [" ".join(map(str, versions)), *sorted({s.name for s in symbols})]
    both(host, [str(answers), "names"], "\n".join([*lines, ""]))


@pytest.mark.parametrize("body", FRAMEWORKS)
def test_framework(host: hosts.Host, body: str) -> None:
    if importlib.util.find_spec(FRAMEWORKS[body]) is None:
        pytest.skip(f"{FRAMEWORKS[body]} is not installed")
    both(host, [sys.executable, str(HERE / "frameworks.py"), body])


def test_training_on_two_vgpus(host: hosts.Host) -> None:
    """Replicas on two vGPUs of one card learn exactly what both learn on the one physical card."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    train = [sys.executable, str(HERE / "cifar.py"), "--devices"]
    native = subprocess.run([*train, "cuda:0,cuda:0"], capture_output=True, text=True, timeout=240, check=True)
    ours = host.run([*train, "cuda:0,cuda:1"], timeout=240, ORION_VGPU=2, ORION_GMEM=12000)
    assert (ours.stdout, ours.returncode) == (native.stdout, 0), ours.stderr
    assert "replicas equal: True" in ours.stdout
