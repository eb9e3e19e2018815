# SPDX-License-Identifier: Apache-2.0
"""Numba and cuda-python in a guest that has Python and no driver: an ordinary user's programs, unmodified."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "compat"))

import pytest
import wheels
from test_frameworks import ENVIRONMENTS

from orion_virt import paths
from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig, Share
from vm.harness.root import python_root
from vm.stage import Setup, eventually

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.compat]

COMPAT = Path(__file__).resolve().parents[1] / "compat"
VARIABLES = "ORION_VGPU=2 ORION_GMEM=2000"
SECONDS = 900  # Python, LLVM and NVRTC in an emulated machine


@pytest.fixture(scope="module")
def python() -> Path:
    made = wheels.environment("numba", *ENVIRONMENTS["numba"])
    if made.resolve().parent != Path("/usr/bin"):
        pytest.skip("the tests' Python is not the distribution's, which the guest has")
    return made


@pytest.fixture(scope="module")
def guest(setup: Setup, python: Path) -> Iterator[Guest]:
    directory = setup.host.state / "programs"
    directory.mkdir()
    programs = [COMPAT / f"{name}.py" for name in ("on_simulated", "nvrtc_programs", "cuda_source", "named_cases")]
    for path in (paths.lib() / "install-client", *programs):
        shutil.copy(path, directory)
    environment = python.parents[1]
    shares = (Share(directory, "/shared"), Share(environment, str(environment)))
    made = Guest(setup.libvirt, GuestConfig("programs", root=python_root(CACHE), memory_mib=3072, shares=shares), CACHE)
    try:
        made.define()
        eventually(lambda: setup.oriond.domain("programs").get("device") == "defined", "no device")
        made.start()
        eventually(lambda: bool(setup.oriond.domain("programs").get("server_addrs")), "no header")
        installed = made.run("sh /shared/install-client -q --user guest", user="root")
        assert installed.status == 0, installed.output
        yield made
    finally:
        made.destroy()
    eventually(lambda: setup.regions() == [], "the region's file is left")


@pytest.mark.parametrize("body", ["numba_kernels", "cuda_core"])
def test_bodies(guest: Guest, python: Path, body: str) -> None:
    done = guest.run(f"{VARIABLES} {python} /shared/on_simulated.py {body}", timeout=SECONDS)
    assert done.status == 0 and "done" in done.output, done.output


def test_programs_that_nvrtc_compiles(guest: Guest, python: Path) -> None:
    done = guest.run(f"id -u; {VARIABLES} {python} /shared/nvrtc_programs.py", timeout=SECONDS)
    listed = (COMPAT / "nvrtc_passes.txt").read_text().split()
    assert done.output.startswith("1000\n") and not set(listed) - set(done.output.splitlines()), done.output
