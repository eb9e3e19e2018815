# SPDX-License-Identifier: Apache-2.0
"""The documentation's programs with frameworks that compile to PTX, each in an environment of its own."""

from __future__ import annotations

from pathlib import Path

import blocks
import host as hosts
import pytest
import wheels
from test_frameworks import ENVIRONMENTS, VARIABLES, search_path

pytestmark = pytest.mark.compat


@pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in blocks.of("compat")])
def test_example(host: hosts.Host, tmp_path: Path, block: blocks.Block) -> None:
    (name,) = block.words
    python = wheels.environment(name, *ENVIRONMENTS[name])
    program = tmp_path / "example.py"  # Numba wants a file
    program.write_text(block.text)
    (tmp_path / "libcuda.so").symlink_to(hosts.LIB / "guest" / "libcuda.so.1")  # as install-client makes it
    path = f"{search_path(host, python)}:{tmp_path}"
    done = host.run([python, program], timeout=300, LD_LIBRARY_PATH=path, **VARIABLES)
    assert done.returncode == 0 and done.stdout, done.stdout + done.stderr[-4000:]
