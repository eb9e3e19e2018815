# SPDX-License-Identifier: Apache-2.0
"""Matrix instructions of a warp on the card, natively and through a vGPU: the layouts and results that the simulated GPU gives."""

from __future__ import annotations

import sys

import host as hosts
import pytest
from programs import FOLDER, both

pytestmark = pytest.mark.gpu


def test_matrix_instructions(host: hosts.Host) -> None:
    native = both(host, [sys.executable, str(FOLDER / "matrices.py")])
    assert native.returncode == 0 and native.stdout.endswith("\n0 wrong\n"), native.stdout
