# SPDX-License-Identifier: Apache-2.0
"""Frameworks natively and through a vGPU: what the same program prints, and how it ends, must be equal."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import host as hosts
import pytest
from programs import both

pytestmark = pytest.mark.gpu
HERE = Path(__file__).parent / "programs"
TORCH = ["cnn_fp32", "cnn_bf16", "cnn_fp16", "transformer_fp32", "transformer_bf16", "transformer_fp16", "attention", "compiled",
         "graphs", "loader", "linalg", "fft_and_sparse", "checkpoint", "profiler", "memory"]  # fmt: skip
OTHERS = {"triton_kernels": ["torch", "triton"], "jax_more": ["jax"], "cupy_more": ["cupy", "scipy"], "numba_more": ["numba_cuda"],
          "cuda_python": ["cuda"], "cuda_core": ["cuda", "cupy"]}  # fmt: skip
SERVING = {"captures": ["torch"], "pinned_view": ["cuda"], "sleep_and_wake": ["cuda"], "swap": ["torch"]}
SECONDS = 600
REGION_MIB = 8192  # for 4 GiB of pinned memory and more


def same(host: hosts.Host, program: str, body: str) -> None:
    native = both(host, [sys.executable, str(HERE / program), body], timeout=SECONDS)
    assert native.returncode == 0, native.stderr


def need(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


@pytest.mark.parametrize("body", TORCH)
def test_torch(host: hosts.Host, body: str) -> None:
    need("torch")
    same(host, "on_torch.py", body)


@pytest.mark.parametrize("body", OTHERS)
def test_other(host: hosts.Host, body: str) -> None:
    need(*OTHERS[body])
    same(host, "on_others.py", body)


@pytest.mark.parametrize("part", SERVING)
def test_serving(host: hosts.Host, part: str) -> None:
    need("pynvml", *SERVING[part])
    same(host, "serving.py", part)
