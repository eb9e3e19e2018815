# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's own runtime library runs on the guest library, which shows that it accepts our private tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("cudart.py")


@pytest.mark.parametrize("what", ["use", "streams", "reset", "threads"])
def test_runtime(oriond_env, what: str) -> None:
    done = oriond_env.run([sys.executable, PROGRAM, what])
    if done.returncode == 77:
        pytest.skip("package nvidia-cuda-runtime is not installed")
    assert done.returncode == 0, done.stdout + done.stderr
