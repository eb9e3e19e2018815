# SPDX-License-Identifier: Apache-2.0
"""How the C test programs are compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CC = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
FLAGS = ["-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wmissing-prototypes", "-Wstrict-prototypes", "-Werror"]
FLAGS += ["-fno-common", "-pthread", "-O1", "-g"]
ADDRESS, THREAD = "address,undefined", "thread"
# What of the executor needs no family: these files, the generated driver table and the tests' own operations.
CORE = "alias baton context control core_ops extents extra group handles ledger limit log loop output poll report run spin stats transport".split()
CORE += ["resume", "turn", "twin", "watch"]


def compile_c(args: list[str | Path]) -> None:
    """Runs the compiler; a sanitizer whose runtime is not installed skips the test."""
    done = subprocess.run([str(CC), *FLAGS, *map(str, args)], capture_output=True, text=True, timeout=300)
    if done.returncode and "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip(f"the compiler's sanitizer libraries are not installed: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


def includes(root: Path) -> list[str]:
    return [f"-I{ROOT}/ivshmem/include", f"-I{root}/ivshmem/gen", f"-I{root}/orion_virt/executor", f"-I{HERE}"]
