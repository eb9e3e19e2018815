# SPDX-License-Identifier: Apache-2.0
"""Programs of CuPy on two simulated cards: all that cupy_cases.txt names must pass, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import host as hosts
import pytest
import wheels
from test_frameworks import ENVIRONMENTS, VARIABLES

pytestmark = pytest.mark.compat
HERE = Path(__file__).parent


def test_cases_pass(host: hosts.Host) -> None:
    python = wheels.environment("cupy", *ENVIRONMENTS["cupy"])
    kernels = wheels.cache() / "cupy-kernels"  # PTX, which takes NVRTC minutes
    done = host.run([python, HERE / "cupy_cases.py"], timeout=1800, ORION_VGPU=2, ORION_GMEM=4000, CUPY_CACHE_DIR=kernels, **VARIABLES)
    passed, wanted = set(done.stdout.split()), set((HERE / "cupy_cases.txt").read_text().split())
    assert wanted <= passed, f"fail now: {sorted(wanted - passed)}\n{done.stdout[-2000:]}\n{done.stderr[-8000:]}"
    assert passed <= wanted, f"pass, and are not listed: {sorted(passed - wanted)}"
