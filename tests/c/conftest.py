# SPDX-License-Identifier: Apache-2.0
"""What the C test programs share: generated headers, once a session."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from c_build import ROOT


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the generated headers and a copy of the executor's core beside them."""
    root = tmp_path_factory.mktemp("generated")
    done = subprocess.run(
        [sys.executable, "-m", "orion_virt.codegen", "--no-lock", "--out", str(root)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for source in (ROOT / "orion_virt/executor").glob("*.[ch]"):
        shutil.copy(source, root / "orion_virt/executor")
    return root
