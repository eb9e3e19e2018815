# SPDX-License-Identifier: Apache-2.0
"""Device memory of one tenant is empty when the next gets it, on the simulated card."""

from pathlib import Path

import pytest
import remains


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_remains(oriond_env, tmp_path: Path, killed: bool) -> None:
    remains.check(oriond_env, tmp_path, 256, killed)
