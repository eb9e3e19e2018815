# SPDX-License-Identifier: Apache-2.0
"""When kernels become machine code, where that is kept, and what is said when it cannot be."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LIBRARY, compile_ptx
from host import wait_for

SOURCE = r"""
extern "C" __global__ void hot(int *p, long long n) { int v = threadIdx.x; for (int k = 0; k < n; k++) v = v * 3 + k % 7; p[threadIdx.x] = v; }
"""
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from device import Device
d = Device(sys.argv[2])
f = d.function(d.load(open(sys.argv[3], "rb").read()), "hot")
p = d.put(np.zeros(64, np.int32))
n = int(sys.argv[4])
d.launch(f, 4, 64, p, n)
want = np.arange(64, dtype=np.uint32)
for k in range(n):
    want = want * np.uint32(3) + np.uint32(k % 7)
print("right" if (d.get(p, np.zeros(64, np.uint32)) == want).all() else "wrong")
"""
LONG = 400000  # turns of the loop: the compiler is done before they are


@pytest.fixture(scope="module")
def ptx(tmp_path_factory):
    path = tmp_path_factory.mktemp("hot") / "hot.ptx"
    path.write_bytes(compile_ptx(SOURCE).rstrip(b"\0 "))
    return path


@pytest.fixture
def run(ptx, tmp_path):
    def go(turns: int = 100, **variables: str) -> str:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ORION_SIM", "XDG_"))} | {"HOME": str(tmp_path)} | variables
        done = subprocess.run([sys.executable, "-c", PROGRAM, Path(__file__).parent, LIBRARY, ptx, str(turns)], env=env,
                              capture_output=True, text=True, timeout=300, check=True)
        assert done.stdout == "right\n"
        return done.stderr

    return go


def compilers(folder: Path) -> list[str]:
    """Processes that were told to work in `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            found += [path.parent.name] if os.fsencode(folder) + b"/" in words else []
    return found


def kept(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*.so"))


def test_a_cold_kernel_is_not_translated(run, tmp_path):
    assert run() == "" and kept(tmp_path) == []


def test_a_hot_kernel_is_translated_and_kept(run, tmp_path):
    assert run(LONG) == ""
    (name,) = kept(tmp_path)
    folder = tmp_path / ".cache" / "orion-virt" / "simgpu"
    assert folder.stat().st_mode & 0o777 == 0o700 and sorted(p.name for p in folder.iterdir()) == [name[:-3] + ".c", name]
    before = (folder / name).stat().st_mtime_ns
    assert run(ORION_SIM_TRANSLATE="always") == ""
    assert (folder / name).stat().st_mtime_ns == before and kept(tmp_path) == [name]


def test_a_process_that_ends_meanwhile_leaves_nothing(run, tmp_path):
    run(20000, ORION_SIM_CACHE=str(tmp_path / "c"))
    assert [p.name for p in (tmp_path / "c").glob("*") if p.suffix not in (".c", ".so")] == []


def test_a_process_that_is_killed_meanwhile_leaves_nothing(ptx, tmp_path):
    """Nor one that ends without its destructors, as the executor's worker does."""
    cache, started = tmp_path / "c", tmp_path / "started"
    (tmp_path / "cc").write_text(f"#!/bin/sh\ntouch {started}\nsleep 300 &\nwait\n")
    (tmp_path / "cc").chmod(0o755)
    env = os.environ | {"ORION_SIM_CACHE": str(cache), "ORION_SIM_TRANSLATE": "always", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = [sys.executable, "-c", PROGRAM, Path(__file__).parent, LIBRARY, ptx, "100"]
    with subprocess.Popen(argv, env=env) as process:
        assert wait_for(started.exists)
        assert len(list(cache.iterdir())) == 1 and compilers(cache)
        process.kill()
    assert wait_for(lambda: not compilers(cache) and not list(cache.iterdir())), [compilers(cache), list(cache.iterdir())]


def test_other_text_under_the_same_name_is_not_taken_for_it(run, tmp_path):
    run(ORION_SIM_TRANSLATE="always", ORION_SIM_CACHE=str(tmp_path / "c"))
    (source,) = (tmp_path / "c").glob("*.c")
    source.write_text("something else")
    run(ORION_SIM_TRANSLATE="always", ORION_SIM_CACHE=str(tmp_path / "c"))
    assert "ptx_translated" in source.read_text()


@pytest.mark.parametrize("make", [lambda p: p.mkdir() or p.chmod(0o777), lambda p: p.symlink_to("/tmp"), lambda p: p.write_text("")],
                         ids=["all may write", "a link", "a file"])
def test_a_folder_of_others_is_not_used(run, tmp_path, make):
    make(tmp_path / "c")
    said = run(ORION_SIM_TRANSLATE="always", ORION_SIM_CACHE=str(tmp_path / "c"))
    assert "not kept for the next process" in said and str(tmp_path / "c") in said
    assert kept(tmp_path) == []


def test_directories_of_killed_processes_go(run):
    """Without a place to keep code each process makes one for once, which it removes only when it ends by itself."""
    left, live, new = (Path("/tmp") / f"orion-simgpu.test{n}{os.getpid()}" for n in range(3))
    for folder in (left, live, new):
        folder.mkdir(mode=0o700)
        (folder / "x.c").write_text("")
        if folder is not new:
            os.utime(folder, (0, 0))
    lock = os.open(live, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        run(ORION_SIM_TRANSLATE="always", HOME="")
        assert [folder.exists() for folder in (left, live, new)] == [False, True, True]
    finally:
        os.close(lock)
        for folder in (left, live, new):
            shutil.rmtree(folder, ignore_errors=True)


def test_without_a_compiler_kernels_are_interpreted_and_that_is_said(run, tmp_path):
    said = run(ORION_SIM_TRANSLATE="always", PATH=str(tmp_path))
    assert said.count("kernel hot is interpreted, which is slow: the C compiler, cc, could not be started") == 1


@pytest.mark.parametrize("name,value", [("ORION_SIM_TRANSLATE", "perhaps"), ("ORION_SIM_THREADS", "-2"), ("ORION_SIM_TIMEOUT", "1h")])
def test_a_bad_setting_is_named(run, name, value):
    assert f"{name}={value} is not" in run(**{name: value})
