# SPDX-License-Identifier: Apache-2.0
"""Programs of cuda.bindings and NVRTC on two simulated cards: all that nvrtc_passes.txt names must pass, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import host as hosts
import pytest
import wheels
from test_frameworks import ENVIRONMENTS

pytestmark = pytest.mark.compat
HERE = Path(__file__).parent


def test_programs_pass(host: hosts.Host) -> None:
    python = wheels.environment("numba", *ENVIRONMENTS["numba"])
    done = host.run([python, HERE / "nvrtc_programs.py"], timeout=900, ORION_VGPU=2, ORION_GMEM=2000)
    assert done.stdout.split() == (HERE / "nvrtc_passes.txt").read_text().split(), done.stdout + done.stderr
