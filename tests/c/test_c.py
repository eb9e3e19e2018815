# SPDX-License-Identifier: Apache-2.0
"""Compiles and runs the C test programs: ring under Address- and ThreadSanitizer, executor in a loop."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from c_build import ADDRESS, CC, CORE, HERE, ROOT, THREAD, compile_c, includes

RING = ["layout", "ring_full", "ring_malformed", "ring_pad", "ring_park", "ring_stale", "ring_stress", "ring_wrap"]
RING_THREADS = ["ring_park", "ring_stress"]
LOOP = ["group", "handles", "ledger", "loop_blocking", "loop_deferred", "loop_doorbell", "loop_eof", "loop_grant"]
LOOP += ["loop_malformed", "loop_ping", "loop_polled", "loop_resume", "loop_sigbus", "loop_tcp", "loop_threads", "quota"]
LOOP_THREADS = ["handles", "loop_blocking", "loop_doorbell", "loop_ping", "loop_polled", "loop_resume", "loop_tcp", "loop_threads", "quota"]

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler (cc or gcc) on this machine")


def run(program: Path, **env: str) -> None:
    """Runs a test program: 0 passes, 77 skips with its last line as the reason."""
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=300, env=os.environ | env)
    if done.returncode == 77:
        pytest.skip((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    assert done.returncode == 0, done.stderr
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr


def core_objects(root: Path, sanitizer: str) -> list[Path]:
    """The executor's core and the harness, compiled with a sanitizer once a session."""
    folder = root / sanitizer.replace(",", "-")
    executor = root / "orion_virt/executor"
    sources = [executor / f"{name}.c" for name in CORE] + [executor / "gen/driver.c", HERE / "harness.c", HERE / "fake_ops.c"]
    if not folder.exists():
        folder.mkdir()
        for source in sources:
            compile_c([f"-fsanitize={sanitizer}", *includes(root), "-c", source, "-o", folder / f"{source.stem}.o"])
        compile_c(["-shared", "-fPIC", HERE / "fake_driver.c", "-o", folder / "fake.so"])
    return sorted(folder.glob("*.o"))


def build_loop(root: Path, name: str, sanitizer: str) -> Path:
    objects = core_objects(root, sanitizer)
    program = objects[0].parent / name
    compile_c([f"-fsanitize={sanitizer}", *includes(root), HERE / f"{name}.c", *objects, "-ldl", "-o", program])
    return program


def build_ring(folder: Path, name: str, sanitizer: str) -> Path:
    program = folder / name
    compile_c([f"-fsanitize={sanitizer}", f"-I{ROOT}/ivshmem/include", HERE / f"{name}.c", "-o", program])
    return program


@pytest.mark.parametrize("name", RING)
def test_ring(name: str, tmp_path: Path) -> None:
    run(build_ring(tmp_path, name, ADDRESS))


@pytest.mark.parametrize("name", RING_THREADS)
def test_ring_threads(name: str, tmp_path: Path) -> None:
    run(build_ring(tmp_path, name, THREAD))


@pytest.mark.parametrize("name", LOOP)
def test_loop(name: str, generated: Path) -> None:
    program = build_loop(generated, name, ADDRESS)
    run(program, FAKE_DRIVER=str(program.parent / "fake.so"))


@pytest.mark.parametrize("name", LOOP_THREADS)
def test_loop_threads(name: str, generated: Path) -> None:
    program = build_loop(generated, name, THREAD)
    run(program, FAKE_DRIVER=str(program.parent / "fake.so"))


def test_ring_dump(tmp_path: Path, generated: Path) -> None:
    dump, writer, region = tmp_path / "ring-dump", tmp_path / "writer", tmp_path / "region"
    compile_c([*includes(generated), *sorted((ROOT / "ivshmem/tools").glob("*.c")), "-o", dump])
    compile_c([*includes(generated), HERE / "write_region.c", "-o", writer])
    subprocess.run([writer, region], check=True, timeout=10)
    text = subprocess.run([dump, region, "0x200000"], check=True, capture_output=True, text=True, timeout=10).stdout
    assert "00112233-4455-6677-8899-aabbccddeeff" in text
    assert "served, epoch 0000000000000abc" in text and text.count("slot ") == 1
    assert "its owner died, server, opening 0 of 3, packets 0/9 to the host" in text
    assert "channel 5" in text and "orion_ping" in text and "pending: 2" in text
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    refused = subprocess.run([dump, empty], capture_output=True, text=True, timeout=10)
    assert refused.returncode == 1 and "no region" in refused.stderr
