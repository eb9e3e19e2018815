# SPDX-License-Identifier: Apache-2.0
"""The fault soak on a real card: 100 s of faults, kernels without end and killed daemons beside neighbours who must not notice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "soak"))

from soak import soak  # noqa: E402

SECONDS, SEED = 100, 9  # without compute limits, as most hosts are
pytestmark = pytest.mark.gpu


def test_faults_stay_put_on_a_card(tmp_path: Path) -> None:
    done = soak(tmp_path, SECONDS, SEED, "nvidia")
    assert done.nr_faults > 15
