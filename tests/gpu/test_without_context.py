# SPDX-License-Identifier: Apache-2.0
"""What driver calls answer on a thread that has no current context, natively and through a vGPU."""

from __future__ import annotations

from pathlib import Path

import host as hosts
import pytest
from test_same_as_native import both, compiled

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    """Daemon and controller on the NVIDIA driver."""
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=1024, simulated=False) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("nocontext"), "nocontext.c")


@pytest.mark.parametrize("others", ["cold", "warm"])
def test_without_a_context(host: hosts.Host, program: Path, others: str) -> None:
    both(host, [str(program), others])
