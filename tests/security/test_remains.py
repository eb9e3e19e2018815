# SPDX-License-Identifier: Apache-2.0
"""Device memory of one tenant is empty when the next gets it, on the simulated card."""

from pathlib import Path

import remains


def test_nothing_remains(oriond_env, tmp_path: Path) -> None:
    remains.check(oriond_env, tmp_path, 512)
