# SPDX-License-Identifier: Apache-2.0
"""Graphs by the runtime API, and graphs that device code steers, natively and through a vGPU: both print the same."""

from __future__ import annotations

import re
from pathlib import Path

import host as hosts
import programs
import pytest

pytestmark = pytest.mark.gpu
FLAGS = {"cudagraphs": [], "conditional": ["-rdc=true", "-lcudadevrt"]}


def bodies(name: str) -> list[str]:
    found = re.findall(r'\{ "(\w+)", \w+ \}', (programs.FOLDER / f"{name}.cu").read_text())
    assert found
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    return {name: programs.nvcc(folder, f"{name}.cu", *flags, card="native") for name, flags in FLAGS.items()}


@pytest.mark.parametrize(("name", "body"), [(name, body) for name in FLAGS for body in bodies(name)])
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_same(host: hosts.Host, built: dict[str, Path], name: str, body: str, transport: str) -> None:
    native = programs.both(host, [built[name], body], env=host.env if transport == "shm" else host.tcp_env)
    assert native.stdout and "WRONG" not in native.stdout
