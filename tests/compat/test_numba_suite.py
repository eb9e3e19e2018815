# SPDX-License-Identifier: Apache-2.0
"""Numba's own tests of CUDA on the simulated GPU: all that numba_passes.txt names must pass.

    python tests/compat/test_numba_suite.py > tests/compat/numba_passes.txt    # names what passes now
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[up]) for up in range(3)]

import host as hosts  # noqa: E402
import pytest  # noqa: E402
import unittests  # noqa: E402
import wheels  # noqa: E402

pytestmark = pytest.mark.compat
PASSES = Path(__file__).with_name("numba_passes.txt")
PACKAGES = ["numba-cuda", "cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "nvidia-nvvm",
            "nvidia-cuda-cccl", "filecheck", "psutil", "pytest", "cffi", "ml_dtypes"]  # fmt: skip
FOLDERS = ("cudapy", "cudadrv", "nrt", "doc_examples")


def modules(python: Path) -> list[str]:
    """Those that need no library beside Numba."""
    (root,) = python.parents[1].glob("lib/python3*/site-packages/numba_cuda/numba/cuda/tests")
    found = [p.relative_to(root).with_suffix("") for folder in FOLDERS for p in (root / folder).rglob("test_*.py")]
    return sorted("numba.cuda.tests." + ".".join(p.parts) for p in found if "cupy" not in p.name)


def suite() -> dict[str, str]:
    python = wheels.environment("numba-suite", *PACKAGES)
    env = {k: v for k, v in os.environ.items() if not k.startswith("ORION_SIM")}
    env |= {"LD_LIBRARY_PATH": str(hosts.LIB / "simgpu"), "ORION_SIM_TIMEOUT": "120"}
    with ThreadPoolExecutor(max(len(os.sched_getaffinity(0)) // 2, 1)) as pool:
        found: dict[str, str] = {}
        for part in pool.map(lambda module: unittests.results(python, module, env), modules(python)):
            found |= part
    return found


def test_numba_tests_pass() -> None:
    lost = unittests.lost(suite(), PASSES)
    assert not lost, lost


if __name__ == "__main__":
    print("\n".join(sorted(name for name, end in suite().items() if end == "ok")))
