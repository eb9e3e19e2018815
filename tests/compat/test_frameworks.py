# SPDX-License-Identifier: Apache-2.0
"""The newest frameworks on two vGPUs of 12000 MiB, as far as a GPU without machine code goes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import host as hosts
import pytest
import wheels

pytestmark = pytest.mark.compat
PROGRAM = Path(__file__).with_name("on_simulated.py")
NVML = hosts.LIB / "guest" / "libnvidia-ml.so.1"
ENVIRONMENTS = {
    "torch": ["torch", "numpy"],
    "tensorflow": ["tensorflow[and-cuda]"],
    "jax": ["jax[cuda13]"],
    "cupy": ["cupy-cuda13x[ctk]"],
    # without nvJitLink, so that the driver links: it makes machine code
    "numba": ["numba-cuda", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-nvvm",
              "nvidia-cuda-cccl"],
    "warp": ["warp-lang==1.9.1", "numpy"],
    "taichi": ["taichi"],
}  # fmt: skip
BODIES = {"torch_devices": "torch", "torch_memory": "torch", "torch_profiler": "torch", "triton_library": "torch",
          "tensorflow": "tensorflow", "jax_devices": "jax", "cupy_kernels": "cupy", "numba_kernels": "numba",
          "cuda_core": "numba"}  # fmt: skip
VARIABLES = {"CUPY_COMPILE_WITH_PTX": "1", "CUPY_ACCELERATORS": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def search_path(host: hosts.Host, python: Path) -> str:
    """TensorFlow's wheel does not look into all the folders of its own libraries, natively neither."""
    nvidia = python.parents[1] / "lib"
    folders = [p for name in ("cusolver", "nvjitlink") for p in nvidia.glob(f"python*/site-packages/nvidia/{name}/lib")]
    return os.pathsep.join([host.env["LD_LIBRARY_PATH"], *map(str, folders)])


@pytest.mark.parametrize("body", BODIES)
def test_framework(host: hosts.Host, lacks: Callable[[], set[str]], body: str) -> None:
    name = BODIES[body]
    if name in ("tensorflow", "jax") and not NVML.exists():
        pytest.skip("it needs libnvidia-ml.so.1, which is not built")
    python = wheels.environment(name, *ENVIRONMENTS[name])
    path = search_path(host, python)
    done = host.run([python, PROGRAM, body], timeout=300, ORION_VGPU=2, ORION_GMEM=12000, LD_LIBRARY_PATH=path, **VARIABLES)
    assert done.returncode == 0 and "done" in done.stdout, done.stdout + done.stderr[-4000:]
    assert lacks() == set()
