# SPDX-License-Identifier: Apache-2.0
"""Two vGPUs of 12000 MiB on one NVIDIA card: what tests/loopback/test_two_vgpus.py asks of the simulated one."""

from __future__ import annotations

import sys
from pathlib import Path

import host as hosts
import pytest

pytestmark = pytest.mark.gpu
PROGRAM = str(Path(__file__).resolve().parent.parent / "loopback" / "two.py")
MIB = 12000


@pytest.mark.parametrize("what", ["identity", "limits", "one_thread", "two_threads", "peers", "reset", "states", "fault"])
def test_two_on_one_card(host: hosts.Host, what: str) -> None:
    done = host.run([sys.executable, PROGRAM, what], timeout=120, ORION_VGPU=2, ORION_GMEM=MIB)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_process_is_unharmed(host: hosts.Host) -> None:
    for what in ("fault", "one_thread"):
        done = host.run([sys.executable, PROGRAM, what], timeout=120, ORION_VGPU=2, ORION_GMEM=MIB)
        assert done.returncode == 0, done.stdout + done.stderr
