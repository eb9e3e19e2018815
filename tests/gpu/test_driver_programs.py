# SPDX-License-Identifier: Apache-2.0
"""The programs in C on the driver API, natively and through a vGPU: what they print and how they end must be equal."""

from __future__ import annotations

from pathlib import Path

import host as hosts
import programs
import pytest

pytestmark = pytest.mark.gpu
PROGRAMS = ["graphs", "graphlife", "output", "registered", "faults", "order", "life", "managed", "clusters", "pools"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    return {name: programs.compiled(folder, name) for name in PROGRAMS}


@pytest.mark.parametrize(("program", "body"), [(p, body) for p in PROGRAMS for body in programs.names(p)])
def test_same(host: hosts.Host, built: dict[str, Path], program: str, body: str) -> None:
    programs.same(built[program], body, programs.without_vgpu(), host.env)
