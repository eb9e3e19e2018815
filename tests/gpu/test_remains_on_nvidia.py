# SPDX-License-Identifier: Apache-2.0
"""Device memory of one tenant on a real card: nothing of it is there when the next process gets it."""

from pathlib import Path

import host as hosts
import pytest
import remains

from programs import without_vgpu

pytestmark = pytest.mark.gpu


def most(host: hosts.Host) -> int:
    """MiB; nearly all of the card, so that the second process must get pages of the first."""
    return ((host.status()["gpus"][0]["total_bytes"] >> 20) - 6000) // 64 * 64


@pytest.mark.parametrize("killed", [False, True])
def test_nothing_remains(host: hosts.Host, tmp_path: Path, killed: bool) -> None:
    remains.check(host, tmp_path, most(host), killed)


def test_nothing_remains_of_what_is_freed(host: hosts.Host, tmp_path: Path) -> None:
    remains.check_freed(tmp_path, most(host), without_vgpu())
