# SPDX-License-Identifier: Apache-2.0
"""Roots of other distributions, and the packages, built once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from host import LIB, ROOT
from packages.roots import Root, bare_root, opened

from orion_virt.errors import OrionError
from vm.harness import guest_cache
from vm.harness.root import guest_root, release_root

VERSIONS = ("1.0", "1.1")


@pytest.fixture(scope="session", autouse=True)
def _needs() -> None:
    if os.geteuid() != 0:
        pytest.skip("a root of one's own needs root")
    if not (LIB / "install-client").exists():
        pytest.skip("install-client is not built: run `make build`")


@pytest.fixture
def enter(tmp_path: Path) -> Iterator[Callable[[str], Root]]:
    """`enter("trixie")`, "own" (this machine's release), "bare" (busybox and glibc) or "machine" (this machine itself)."""
    with ExitStack() as stack:

        def make(name: str) -> Root:
            try:
                if name == "machine":
                    lower = Path("/")
                elif name == "bare":
                    lower = bare_root(guest_root(guest_cache()), tmp_path / "bare")
                else:
                    lower = guest_root(guest_cache()) if name == "own" else release_root(guest_cache(), name)
            except OrionError as error:
                pytest.skip(str(error))
            return stack.enter_context(opened(lower, tmp_path / "mount" / name))

        yield make


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """"<name> <version> deb|rpm" -> file, of two versions."""
    out = tmp_path_factory.mktemp("packages")
    for version in VERSIONS:
        subprocess.run([sys.executable, str(ROOT / "packaging" / "build.py"), str(out), "--version", version, "--plain"], check=True, timeout=600,
                       stdout=subprocess.DEVNULL)
    found = {}
    for path in out.iterdir():
        name = next(name for name in ("orion-virt", "orion-client") if path.name.startswith(name))
        version = next(v for v in VERSIONS if v in path.name)
        found[f"{name} {version} {path.suffix[1:]}"] = path
    assert len(found) == 8
    return found
