# SPDX-License-Identifier: Apache-2.0
"""The rarer parts of the driver API on the simulated card: the bodies that are compared with a real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import host as hosts
import pytest
from programs import nvcc

#: body -> what it says beside that it is right
SAYS = {
    "legacy": "gone with its last user: right",
    "profiler": "start without a context: 201",
    "memops": "a batch: right",
    "ranges": "nothing said: 0 -2 -2\nread mostly: 1 1 0\nread mostly but one page: 0 1\nprefers the host: -1\n"
              "prefers the card: 0 type 1 id 0\nprefers nothing: -2\nboth: 0, 0 -2 -2\nprefetched: 0 -2\na variable: 1 1\n",
    "affinity": "a context of two: 224",
    "linker": "a file that is not there: 301\nno data: 1",
    "green": "no such kind: 914\nno description: 1\nwithout its stream: 1\n",
    "multi": "no launch: 1\nno device: 1\n",
    "newer": "prefetched: 0 0\nnothing to prefetch: 1\nflags: 1\nother memory: 1\natomic to the host: 1f 1e f\n",
}  # fmt: skip
TCP = ["legacy", "memops", "linker", "green", "multi"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("host"), region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("driver"), "driver.cu")


def check(done: subprocess.CompletedProcess, name: str) -> None:
    print(done.stdout, done.stderr)
    assert done.returncode == 0 and "WRONG" not in done.stdout
    assert SAYS[name] in done.stdout


@pytest.mark.parametrize("name", SAYS)
def test_body(host: hosts.Host, program: Path, name: str) -> None:
    check(host.run([program, name]), name)


@pytest.mark.parametrize("name", TCP)
def test_body_over_tcp(host: hosts.Host, program: Path, name: str) -> None:
    check(host.run([program, name], env=host.tcp_env), name)


def test_every_body_is_named(host: hosts.Host, program: Path) -> None:
    assert host.run([program]).stdout.split() == list(SAYS)


LOGS = """
import ctypes, sys
from ctypes import byref, c_size_t, c_uint, c_void_p, create_string_buffer
cu = ctypes.CDLL("libcuda.so.1")
context, pointer, first, told = c_void_p(), c_void_p(), c_uint(), []
CALLBACK = ctypes.CFUNCTYPE(None, c_void_p, c_uint, ctypes.c_char_p, c_size_t)
reader, handle = CALLBACK(lambda data, level, text, size: told.append((level, text, size))), c_void_p()
def ok(result): assert result == 0, result
def dump(size, iterator=None):
    text, room = create_string_buffer(size), c_size_t(size)
    ok(cu.cuLogsDumpToMemory(iterator, text, byref(room), 0))
    assert room.value == len(text.value) < size
    return text.value.decode().splitlines()
ok(cu.cuInit(0))
ok(cu.cuDevicePrimaryCtxRetain(byref(context), 0))
ok(cu.cuCtxSetCurrent(context))
ok(cu.cuLogsRegisterCallback(reader, None, byref(handle)))
assert cu.cuMemAlloc_v2(byref(pointer), c_size_t(1 << 45)) == 2
line = "[2] cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY"
assert told == [(0, line.encode(), len(line))]
ok(cu.cuLogsUnregisterCallback(handle))
ok(cu.cuLogsCurrent(byref(first), 0))
for _ in range(200):
    assert cu.cuMemAlloc_v2(byref(pointer), c_size_t(1 << 46)) == 2
assert len(told) == 1 and dump(1 << 16) == [line] * 128 and dump(100) == [line] * 2
assert dump(1 << 16, byref(first)) == [line] * 128 and dump(1 << 16, byref(first)) == []
ok(cu.cuLogsDumpToFile(None, sys.argv[1].encode(), 0))
assert open(sys.argv[1]).read() == (line + chr(10)) * 128
assert cu.cuLogsUnregisterCallback(handle) == 1 and cu.cuLogsDumpToFile(None, b"/none/there", 0) == 304
"""


def test_logs(host: hosts.Host, tmp_path: Path) -> None:
    done = host.run([sys.executable, "-c", LOGS, str(tmp_path / "log")])
    assert done.returncode == 0, done.stderr


GREEN = """
import ctypes
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p, create_string_buffer
cu = ctypes.CDLL("libcuda.so.1")
context, desc, green, own, stream, found, pointer = c_void_p(), c_void_p(), c_void_p(), c_void_p(), c_void_p(), c_void_p(), c_uint64()
part, flags, active = create_string_buffer(144), c_uint(), c_int()
def call(name, *args, want=0):
    got = getattr(cu, name)(*args)
    assert got == want, (name, got)
def state():
    call("cuDevicePrimaryCtxGetState", 0, byref(flags), byref(active))
    return active.value
call("cuInit", 0)
call("cuDeviceGetDevResource", 0, part, 1)
call("cuDevResourceGenerateDesc", byref(desc), part, 1)
part[4] = bytes([(part[4][0] + 77) % 256])
call("cuDevResourceGenerateDesc", byref(desc), part, 1, want=914)
assert state() == 0
call("cuGreenCtxCreate", byref(green), desc, 0, 1)
assert state() == 1
call("cuGreenCtxDestroy", green)
assert state() == 0
call("cuGreenCtxDestroy", green, want=201)
call("cuDevicePrimaryCtxRetain", byref(context), 0)
call("cuCtxSetCurrent", context)
call("cuGreenCtxCreate", byref(green), desc, 0, 1)
call("cuGreenCtxStreamCreate", byref(stream), green, 1, 0)
call("cuCtxFromGreenCtx", byref(own), green)
call("cuCtxSetCurrent", own)
call("cuMemAlloc_v2", byref(pointer), c_size_t(4096))
call("cuCtxSetCurrent", context)
call("cuGreenCtxDestroy", green)
call("cuStreamDestroy_v2", stream, want=709)
call("cuMemsetD8_v2", pointer, 1, c_size_t(4096))
call("cuCtxSynchronize")
call("cuGreenCtxCreate", byref(green), desc, 0, 1)
call("cuGreenCtxStreamCreate", byref(stream), green, 1, 0)
call("cuDevicePrimaryCtxReset_v2", 0)
call("cuGreenCtxDestroy", green, want=201)
call("cuStreamDestroy_v2", stream, want=709)
"""


def test_green_contexts_end_with_their_primary_one(host: hosts.Host) -> None:
    done = host.run([sys.executable, "-c", GREEN])
    assert done.returncode == 0, done.stderr


def test_green_contexts_are_the_first_vgpu_s(host: hosts.Host, program: Path) -> None:
    script = GREEN.split("call(\"cuInit\"")[0] + 'call("cuInit", 0)\ncall("cuDeviceGetDevResource", 1, part, 1, want=801)\n'
    done = host.run([sys.executable, "-c", script], ORION_VGPU=2, ORION_GMEM=512)
    assert done.returncode == 0, done.stderr
