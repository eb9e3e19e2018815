# SPDX-License-Identifier: Apache-2.0
"""nvcuda::wmma by the newest NVRTC with the newest headers, on a vGPU of the simulated GPU."""

from __future__ import annotations

from pathlib import Path

import host as hosts
import pytest
import wheels

pytestmark = pytest.mark.compat
PACKAGES = ("cuda-bindings", "numpy", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-cuda-crt", "nvidia-cuda-cccl")


@pytest.mark.parametrize("arch", [75, 80, 90])
def test_products(host: hosts.Host, arch: int) -> None:
    python = wheels.environment("wmma", *PACKAGES)
    done = host.run([python, Path(__file__).with_name("wmma_products.py"), str(arch)], timeout=300)
    assert done.returncode == 0 and " right" in done.stdout, done.stdout + done.stderr[-4000:]
