# SPDX-License-Identifier: Apache-2.0
"""Graphs by NVIDIA's runtime on the simulated card, as the common samples build them: they check themselves."""

from __future__ import annotations

import sys
from pathlib import Path

import host as hosts
import programs
import pytest

#: body -> what it says beside that it is right
SAYS = {"simple": "by hand has 6 nodes", "captured": "captured has 6 nodes", "memory_nodes": "freed outside: right",
        "footprint": "used 0 reserved 1", "jacobi_update": "updated 19 times", "jacobi_params": "by parameters: right",
        "generic": "destroyed 0", "to_graph": "captured into it: right"}  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return programs.nvcc(tmp_path_factory.mktemp("cudagraphs"), "cudagraphs.cu")


@pytest.mark.parametrize("name", SAYS)
@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_body(host: hosts.Host, program: Path, name: str, transport: str) -> None:
    done = host.run([program, name], env=host.env if transport == "shm" else host.tcp_env)
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "WRONG" not in done.stdout
    assert SAYS[name] in done.stdout


def test_every_body_is_named(host: hosts.Host, program: Path) -> None:
    assert host.run([program]).stdout.split() == list(SAYS)


def test_memory_of_graphs_is_booked(host: hosts.Host, program: Path) -> None:
    """An allocation of 16 MiB in a graph is beyond what was granted."""
    done = host.run([program, "footprint"], ORION_GMEM=12)
    print(done.stdout, done.stderr)
    assert done.returncode == 1 and "cudaMallocAsync" in done.stdout and "cudaErrorMemoryAllocation" in done.stdout


TWO_BLOCKS = """
import ctypes, sys
from ctypes import byref, c_size_t, c_uint64, c_void_p
cu = ctypes.CDLL("libcuda.so.1")
context, stream, graph, run = c_void_p(), c_void_p(), c_void_p(), c_void_p()
def ok(result): assert result == 0, result
ok(cu.cuInit(0)); ok(cu.cuDevicePrimaryCtxRetain(byref(context), 0)); ok(cu.cuCtxSetCurrent(context))
ok(cu.cuStreamCreate(byref(stream), 1)); ok(cu.cuStreamBeginCapture_v2(stream, 0))
for _ in range(2):
    ok(cu.cuMemAllocAsync(byref(c_uint64()), c_size_t(16 << 20), stream))
ok(cu.cuStreamEndCapture(stream, byref(graph)))
print(cu.cuGraphInstantiateWithFlags(byref(run), graph, c_uint64(0)))
if run.value:
    ok(cu.cuGraphLaunch(run, stream)); ok(cu.cuStreamSynchronize(stream))
    print(cu.cuMemAlloc_v2(byref(c_uint64()), c_size_t(16 << 20)))
"""


@pytest.mark.parametrize(("granted", "said"), [(24, "2"), (40, "0\n2"), (56, "0\n0")])
def test_what_a_graph_allocates_counts(host: hosts.Host, granted: int, said: str) -> None:
    """Two blocks of 16 MiB at once; after the launch they leave that much less for an ordinary allocation."""
    done = host.run([sys.executable, "-c", TWO_BLOCKS], ORION_GMEM=granted)
    assert done.stdout.strip() == said, done.stderr


def test_device_code_of_the_samples_compiles(tmp_path: Path) -> None:
    """What launches and changes graphs from the device runs on a real card only."""
    programs.nvcc(tmp_path, "conditional.cu", "-rdc=true", "-lcudadevrt")
