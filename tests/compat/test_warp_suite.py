# SPDX-License-Identifier: Apache-2.0
"""NVIDIA Warp's own tests on a vGPU of the simulated GPU: all that warp_passes.txt names must pass.

    python tests/compat/test_warp_suite.py > tests/compat/warp_passes.txt    # names what passes now
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[up]) for up in range(3)]

import host as hosts  # noqa: E402
import pytest  # noqa: E402
import unittests  # noqa: E402
import wheels  # noqa: E402

pytestmark = pytest.mark.compat
PASSES = Path(__file__).with_name("warp_passes.txt")
# Built with a toolkit older than the driver: where it is newer, Warp makes machine code of PTX itself.
PACKAGES = ["warp-lang==1.9.1", "numpy"]
# What brings kernels of several kinds: compiled ones, sorts and scans by CUB, graphs with conditions, streams, pools, meshes, grids.
MODULES = ["cuda.test_conditional_captures", "cuda.test_mempool", "cuda.test_pinned", "geometry.test_hash_grid", "geometry.test_bvh",
           "geometry.test_marching_cubes", "geometry.test_mesh_query_ray", "test_adam", "test_array_reduce", "test_assert", "test_atomic_cas",
           "test_bool", "test_builtins_resolution", "test_closest_point_edge_edge", "test_linear_solvers"]  # fmt: skip


def suite(host: hosts.Host) -> dict[str, str]:
    python = wheels.environment("warp-suite", *PACKAGES)
    env = host.env | {"ORION_GMEM": "6000", "WARP_CACHE_PATH": str(wheels.cache() / "warp-kernels")}
    first = "import warp; warp.config.cuda_output = 'ptx'; warp.config.quiet = True"
    with ThreadPoolExecutor(2) as pool:
        found: dict[str, str] = {}
        for part in pool.map(lambda module: unittests.results(python, f"warp.tests.{module}", env, first, "cuda"), MODULES):
            found |= part
    return found


def test_warp_tests_pass(host: hosts.Host) -> None:
    lost = unittests.lost(suite(host), PASSES)
    assert not lost, lost


if __name__ == "__main__":
    from conftest import started

    with tempfile.TemporaryDirectory() as directory, started(Path(directory)) as running:
        ended = suite(running)
    print("\n".join(sorted(name for name, end in ended.items() if end == "ok")))
    print("\n".join(f"{end} {name}" for name, end in ended.items() if end not in ("ok", "skipped")), file=sys.stderr)
