# SPDX-License-Identifier: Apache-2.0
"""The fuzz targets under coverage-guided fuzzing: what was found before stays in order, and a while goes on from there (`make fuzz` for long)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from host import ROOT

sys.path.append(str(ROOT / "tests" / "fuzz"))

import targets  # noqa: E402

SECONDS = int(os.environ.get("ORION_FUZZ_SECONDS", "8"))
CLANG = targets.compiler()
pytestmark = pytest.mark.skipif(CLANG is None, reason="clang with libFuzzer is not installed (Debian: clang, libclang-rt-dev)")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    assert CLANG
    return targets.build(CLANG, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_nothing_breaks(programs: dict[str, Path], name: str, tmp_path: Path) -> None:
    kept = list((targets.CORPUS / name).iterdir())
    done = targets.fuzz(programs, name, SECONDS, tmp_path)
    left = [str(path) for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, f"{left}: replay with `build/fuzz/fuzz-{name} FILE` (`make fuzz`), then keep it in tests/fuzz/corpus/{name}\n{done.stderr[-6000:]}"
    assert targets.executed(done) >= len(kept)
