# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's own runtime libraries run on the guest library, which shows that they accept our private tables."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("cudart.py")


def runtime(package: str) -> Path:
    """libcudart of a package of this interpreter."""
    try:
        found = [file for file in files(package) or [] if file.name.startswith("libcudart.so.")]
    except PackageNotFoundError:
        pytest.skip(f"package {package} is not installed")
    return Path(str(found[0].locate()))


@pytest.mark.parametrize("package", ["nvidia-cuda-runtime", "nvidia-cuda-runtime-cu12"])
@pytest.mark.parametrize("what", ["use", "streams", "reset", "threads"])
def test_runtime(oriond_env, what: str, package: str) -> None:
    done = oriond_env.run([sys.executable, PROGRAM, what, runtime(package)])
    assert done.returncode == 0, done.stdout + done.stderr
