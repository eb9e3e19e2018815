# SPDX-License-Identifier: Apache-2.0
"""What oriond tells of a running process: its memory, calls and copies, for `orion-virt list` and `top`."""

import subprocess
import sys

import host
import pytest

BYTES = 3 << 20
PROGRAM = f"""
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def must(status):
    if status: sys.exit(f"status {{status}}")
context, pointer, size = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_size_t({BYTES})
must(cuda.cuInit(0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
must(cuda.cuMemAlloc_v2(ctypes.byref(pointer), size))
data = bytes({BYTES})
for _ in range(4):
    must(cuda.cuMemcpyHtoD_v2(pointer, data, size))
print("done", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_process_is_counted(oriond_env, transport):
    env = oriond_env.env if transport == "shm" else oriond_env.tcp_env
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=env | {"ORION_GMEM": "100"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "done\n"

    def told():
        found = oriond_env.command("processes")["processes"]
        return (
            found[0]
            if found and found[0]["copied_bytes"] >= 4 * BYTES and found[0]["devices"][0]["used_bytes"]
            else None
        )

    found = host.wait_for(told, 10)
    assert found, oriond_env.command("processes")
    assert (found["pid"], found["transport"], found["devices"][0]["used_bytes"]) == (process.pid, transport, BYTES)
    assert found["calls"] >= 5 and found["copied_bytes"] == 4 * BYTES
    answer = oriond_env.command("processes")
    assert answer["total"] | {"calls_per_second": 0, "bytes_per_second": 0} == {
        "processes": 1,
        "vgpus": 1,
        "memory_bytes": 100 << 20,
        "used_bytes": BYTES,
        "calls_per_second": 0,
        "bytes_per_second": 0,
    }
    assert [gpu["name"] for gpu in answer["gpus"]] == ["Orion Simulated GPU"]
    process.communicate()
    assert host.wait_for(lambda: oriond_env.command("processes")["processes"] == [], 10)
