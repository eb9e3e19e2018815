# SPDX-License-Identifier: Apache-2.0
"""The documentation's programs that need a card, each with the framework it names."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import blocks
import host as hosts
import pytest

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in blocks.of("gpu", "compat")])
def test_example(host: hosts.Host, tmp_path: Path, block: blocks.Block) -> None:
    (name,) = block.words
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    program = tmp_path / "example.py"
    program.write_text(block.text)
    native = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300, check=False)
    if native.returncode:
        pytest.skip(f"{name} does not run it natively either: {native.stderr.strip().splitlines()[-1:]}")
    done = host.run([sys.executable, program], timeout=300, ORION_GMEM=8000)
    assert done.returncode == 0 and done.stdout, done.stdout + done.stderr[-4000:]
