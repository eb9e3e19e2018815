# SPDX-License-Identifier: Apache-2.0
"""The guest's libraries compile without ziglang too, with gcc and every warning."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WARN = "-Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Werror".split()


@pytest.mark.parametrize("library", ["libcuda", "libnvidia-ml"])
def test_gcc_takes_it(library: str) -> None:
    folder = ROOT / "guest-agent" / library
    sources = sorted(folder.glob("*.c")) + sorted((folder / "gen").glob("*.c"))
    include = [f"-I{ROOT / p}" for p in ("ivshmem/include", "ivshmem/gen", f"guest-agent/{library}", "guest-agent/libcuda")]
    done = subprocess.run(["gcc", "-std=gnu11", "-fsyntax-only", '-DOG_BUILD_ID="test"', *WARN, *include, *sources],
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_gcc_takes_orion_smi(tmp_path: Path) -> None:
    """Optimised: only then does gcc look at what may be cut off."""
    sources = sorted((ROOT / "guest-agent/orion-smi").glob("*.c"))
    done = subprocess.run(["gcc", "-std=gnu11", "-O2", "-c", *WARN, f"-I{ROOT / 'guest-agent/libnvidia-ml'}", *sources],
                          capture_output=True, text=True, timeout=120, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
