# SPDX-License-Identifier: Apache-2.0
"""What driver calls answer on a thread that has no current context, natively and through a vGPU."""

from __future__ import annotations

from pathlib import Path

import host as hosts
import pytest
from programs import both, nvcc

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("nocontext"), "nocontext.c", "-lcuda", card="native")


@pytest.mark.parametrize("others", ["cold", "warm"])
def test_without_a_context(host: hosts.Host, program: Path, others: str) -> None:
    both(host, [str(program), others])
