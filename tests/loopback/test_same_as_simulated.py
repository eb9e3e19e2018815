# SPDX-License-Identifier: Apache-2.0
"""Programs on the simulated driver directly and through a vGPU on it: what they print and how they end must be equal."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import host as hosts
import programs
import pytest

PROGRAMS = ["graphs", "graphlife", "output", "registered", "faults", "order", "life", "managed", "clusters", "pools"]
NATIVE = programs.without_vgpu() | {"LD_LIBRARY_PATH": str(hosts.LIB / "simgpu")}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    return {name: programs.compiled(folder, name) for name in PROGRAMS}


@pytest.mark.parametrize(("program", "body"), [(p, body) for p in PROGRAMS for body in programs.names(p)])
def test_same(host: hosts.Host, built: dict[str, Path], program: str, body: str) -> None:
    programs.same(built[program], body, NATIVE, host.env)


# What needs memory that both sides see is left out.
OVER_TCP = [("output", programs.names("output")), ("faults", ["illegal_address", "assertion", "recovered", "launches"]),
            ("life", ["exit_with_work", "late_handler_at_exit", "forked", "reset", "threads"]),
            ("managed", ["variables", "of_a_library"]), ("registered", ["errors", "shared"])]  # fmt: skip


@pytest.mark.parametrize(("program", "body"), [(p, body) for p, names in OVER_TCP for body in names])
def test_over_tcp(host: hosts.Host, built: dict[str, Path], program: str, body: str) -> None:
    programs.same(built[program], body, NATIVE, host.tcp_env)


@pytest.mark.parametrize(("program", "body"), [(p, body) for p in ("graphs", "graphlife") for body in programs.names(p)])
def test_graphs_over_tcp(host: hosts.Host, built: dict[str, Path], program: str, body: str) -> None:
    programs.same(built[program], body, NATIVE, host.tcp_env)


@pytest.mark.parametrize(("transport", "refused"), [("shm", "OUT_OF_MEMORY"), ("tcp", "NOT_SUPPORTED")])
def test_registered_memory_that_cannot_move(make_oriond, built: dict[str, Path], transport: str, refused: str) -> None:
    """Kernels cannot have it, and the application is told; copies work all the same."""
    with make_oriond(region_mib=16) as small:
        done = programs.run(built["registered"], "too_large", small.env if transport == "shm" else small.tcp_env)
    print(done.stdout, done.stderr)
    asked = "cuMemHostRegister_v2(p, (size_t)n * 4, "
    assert done.stdout.splitlines() == [f"{asked}DEVICEMAP): CUDA_ERROR_{refused}", f"{asked}0): CUDA_SUCCESS",
                                        "cuMemHostUnregister(p): CUDA_SUCCESS", "0"]
    assert ("shm_buffer_size" in done.stderr) == (transport == "shm")


def test_registered_memory_outlives_the_worker(host: hosts.Host, built: dict[str, Path]) -> None:
    """Its bytes are back in pages of the application before the host wipes the region's."""
    process = subprocess.Popen([built["registered"], "lost", programs.KERNELS], env=host.env, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "READY\n"
    os.kill(host.status()["channels"][-1]["worker"], signal.SIGKILL)
    assert process.communicate(timeout=180)[0] == "wrong 0\n"
    assert process.returncode == 0


def test_a_flood_is_bounded_and_said(host: hosts.Host, built: dict[str, Path]) -> None:
    """More text than the worker keeps: what comes is a prefix, and the rest is owned up to."""
    done = programs.run(built["output"], "flood", host.env)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    shown = [line for line in printed if line.startswith("line ")]
    assert 100_000 < len(shown) < 1 << 20
    assert shown[:-1] == [f"line {i:08d} of the many that are printed here" for i in range(len(shown) - 1)]
    assert printed[-1].endswith("CUDA_SUCCESS")
    assert "bytes that kernels printed were lost" in done.stderr
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert children.ru_maxrss < 1 << 21, "KiB"


def test_no_text_reaches_the_log(host: hosts.Host, built: dict[str, Path]) -> None:
    programs.run(built["output"], "many", host.env)
    for log in (host.dir / "log").rglob("*.log"):
        assert "line 000" not in log.read_text(errors="replace")
