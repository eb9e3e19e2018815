# SPDX-License-Identifier: Apache-2.0
"""What the demo says, in one line each, where a machine lacks something."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orion_virt.errors import OrionError
from vm.harness import cache as caches

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "guest-agent" / "demo" / "run.py"
ENOUGH = 100_000


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., None]:
    """check_machine of the demo, with enough of everything, an empty cache and something built."""
    function = runpy.run_path(str(SCRIPT))["check_machine"]
    (tmp_path / "install-client").touch()
    function.__globals__["LIB"] = tmp_path
    function.__globals__["TOOLS"] = ()

    def run(memory_mib: int = ENOUGH, disk_mib: int = ENOUGH, **changed: object) -> None:
        function.__globals__.update(changed)
        function(tmp_path / "cache", memory_mib, disk_mib)

    return run


@pytest.mark.parametrize(("options", "said"), [
    ({"memory_mib": 300}, "1200 MiB of memory are needed, 300 are available. "),
    ({"disk_mib": 300}, "300 are free. Free some, or set ORION_CACHE"),
    ({"TOOLS": ("sh", "no-such-tool")}, "not installed: no-such-tool. "),
    ({"LIB": Path("/nowhere")}, "nothing is built. Run `make demo`"),
])
def test_what_is_missing(check: Callable[..., None], options: dict[str, object], said: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("the demo needs root")
    with pytest.raises(OrionError) as error:
        check(**options)
    assert said in str(error.value)


def test_not_root(check: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OrionError, match="root is needed"):
        check()


def test_no_namespaces(tmp_path: Path) -> None:
    """As in a container without privileges."""
    if os.geteuid() != 0:
        pytest.skip("the demo needs root")
    program = "import runpy, sys; f = runpy.run_path(sys.argv[1]); f['check_machine'].__globals__.update(" \
              "LIB=f['Path'](sys.argv[2]), TOOLS=()); f['main']()"
    (tmp_path / "install-client").touch()
    done = subprocess.run(["setpriv", "--bounding-set=-sys_admin", sys.executable, "-c", program, SCRIPT, tmp_path],
                          capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 1
    assert "no namespaces" in done.stderr and "--privileged" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_the_cache_is_where_qemu_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORION_CACHE", raising=False)
    monkeypatch.setattr(caches, "REPO", tmp_path)  # below a directory of mode 0700
    assert caches.guest_cache() == caches.FALLBACK
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.getuid() and str(above).startswith("/tmp/"):
            above.chmod(0o755)
    assert caches.guest_cache() == tmp_path / ".cache" / "vm"
    monkeypatch.setattr(os, "geteuid", lambda: 4711)  # a user's checkout stays free of root's files
    assert caches.guest_cache() == caches.FALLBACK
    monkeypatch.setenv("ORION_CACHE", str(tmp_path))
    assert caches.guest_cache() == tmp_path
    tmp_path.chmod(0o700)
    with pytest.raises(OrionError, match="QEMU's user cannot enter"):
        caches.guest_cache()
    monkeypatch.setenv("ORION_CACHE", "relative")
    with pytest.raises(OrionError, match="absolute path"):
        caches.guest_cache()
