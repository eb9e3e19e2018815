# SPDX-License-Identifier: Apache-2.0
"""What a type checker and a linter say of the Python code; their settings are in setup.cfg and pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def findings(*argv: str) -> str:
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_types() -> None:
    assert not findings("mypy", "--cache-dir=/dev/null", "orion_virt", "ivshmem")


def test_names() -> None:
    """Undefined, unused and shadowed names, variables of loops that a function takes along."""
    assert not findings("ruff", "check", "--no-cache", "orion_virt", "ivshmem", "guest-agent", "packaging", "docs", "tests")
