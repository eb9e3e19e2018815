# SPDX-License-Identifier: Apache-2.0
"""The CUDA programs that are compared with a real card run on the simulated one too, compiled by nvcc with its runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import nvcc

SAYS = {
    "query": "devices 1 driver 13000 name Orion Simulated GPU",
    "vectoradd": "vectoradd a59c4962de997303",
    "streams": "query says done or not ready 1\nstreams af0ab916863ade33 elapsed positive 1\nordered 8",
    "copies": "copy 2D wrong rows 0",
    "graph": "graph nodes 10 value 1434212432",
    "cooperative": "cooperative 523641600\ncooperative too large: cudaErrorCooperativeLaunchTooLarge",
    "errors": "still works",
    "callbacks": "callbacks 29be92a5d05340cb",
    "threads": "threads f40c37b38402dc17",  # computed apart: x -> 3 x + 1, 500 times
    "mapped": "mapped 01e7fc4c3255ad13\nattributes 1",  # computed apart: x -> 9 x + 1
    "managed": "at the start 5\nafter a kernel 7, wrong 0\nafter another 42 25\ntype 3",  # 2 * (2 + 7) + 7
    "statics": "end of main\ndestructor came through",
    "fault": "synchronize: cudaErrorIllegalAddress\nmalloc afterwards: cudaErrorIllegalAddress",
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("bodies"), "bodies.cu")


@pytest.mark.parametrize("body", SAYS)
def test_body(make_oriond, program: Path, body: str) -> None:
    with make_oriond(region_mib=256) as host:
        done = host.run([program, body])
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert SAYS[body] in done.stdout
    if body == "errors":
        assert "block too large: cudaErrorInvalid" in done.stdout and "Uninitialized" not in done.stdout
