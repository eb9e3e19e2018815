# SPDX-License-Identifier: Apache-2.0
"""Frameworks natively and through a vGPU: what the same program prints, and how it ends, must be equal."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import host as hosts
import pytest

pytestmark = pytest.mark.gpu
HERE = Path(__file__).parent / "programs"
TORCH = ["cnn_fp32", "cnn_bf16", "cnn_fp16", "transformer_fp32", "transformer_bf16", "transformer_fp16", "attention", "compiled",
         "graphs", "loader", "linalg", "fft_and_sparse", "checkpoint", "profiler", "memory"]  # fmt: skip
OTHERS = {"triton_kernels": ["torch", "triton"], "jax_more": ["jax"], "cupy_more": ["cupy", "scipy"], "numba_more": ["numba_cuda"],
          "cuda_python": ["cuda"], "cuda_core": ["cuda", "cupy"]}  # fmt: skip
SERVING = {"captures": ["torch"], "pinned_view": ["cuda"], "sleep_and_wake": ["cuda"], "swap": ["torch"]}
SECONDS = 600


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Host]:
    """Daemon and controller on the NVIDIA driver; the region takes 4 GiB of pinned memory and more."""
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=8192, simulated=False) as running:
        yield running


def both(host: hosts.Host, *command: str) -> None:
    """Runs a program natively and on a vGPU and compares exit status and standard output."""
    argv = [sys.executable, str(HERE / command[0]), *command[1:]]
    say = {"capture_output": True, "text": True, "timeout": SECONDS, "check": False}
    native = subprocess.run(argv, env=dict(os.environ), **say)  # type: ignore[call-overload]
    ours = subprocess.run(argv, env=host.env, **say)  # type: ignore[call-overload]
    print(native.stdout, ours.stdout, ours.stderr[-3000:], native.stderr[-1000:], sep="\n--\n")
    assert native.returncode == 0, native.stderr
    assert ours.stdout == native.stdout
    assert ours.returncode == 0


def need(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@pytest.mark.parametrize("body", TORCH)
def test_torch(host: hosts.Host, body: str) -> None:
    need("torch")
    both(host, "on_torch.py", body)


@pytest.mark.parametrize("body", OTHERS)
def test_other(host: hosts.Host, body: str) -> None:
    need(*OTHERS[body])
    both(host, "on_others.py", body)


@pytest.mark.parametrize("part", SERVING)
def test_serving(host: hosts.Host, part: str) -> None:
    need("pynvml", *SERVING[part])
    both(host, "serving.py", part)
