# SPDX-License-Identifier: Apache-2.0
"""Device memory of one tenant on a real card: nothing of it is there when the next process gets it."""

from pathlib import Path

import host as hosts
import pytest
import remains

pytestmark = pytest.mark.gpu


def test_nothing_remains(host: hosts.Host, tmp_path: Path) -> None:
    """Nearly all of the card, so that the second process must get pages of the first."""
    free = host.status()["gpus"][0]["total_bytes"] >> 20
    remains.check(host, tmp_path, (free - 6000) // 64 * 64)
