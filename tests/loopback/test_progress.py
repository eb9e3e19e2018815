# SPDX-License-Identifier: Apache-2.0
"""What oriond tells of a running process: its memory, calls and copies, and how far a long kernel is, for `orion-virt list` and `top`."""

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

    found = host.wait_for(told)
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
    assert host.wait_for(lambda: oriond_env.command("processes")["processes"] == [])


PTX = """
.version 7.5
.target sm_75
.address_size 64
.visible .entry waits(.param .u64 flag)
{
    .reg .u64 %at; .reg .u32 %n; .reg .pred %p;
    ld.param.u64 %at, [flag];
    mov.u32 %n, %ctaid.x;
    setp.lt.u32 %p, %n, 3;
    @%p ret;
again:
    ld.volatile.global.u32 %n, [%at];
    setp.eq.u32 %p, %n, 0;
    @%p bra again;
    ret;
}
"""
#: Three of four blocks end at once; the fourth waits until a line comes in.
WAITS = f"""
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def must(status):
    if status: sys.exit(f"status {{status}}")
context, module, f, stream, p = (ctypes.c_void_p() for _ in range(5))
must(cuda.cuInit(0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
must(cuda.cuModuleLoadData(ctypes.byref(module), {PTX.encode()!r}))
must(cuda.cuModuleGetFunction(ctypes.byref(f), module, b"waits"))
must(cuda.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(4)))
must(cuda.cuMemcpyHtoD_v2(p, bytes(4), ctypes.c_size_t(4)))
must(cuda.cuStreamCreate(ctypes.byref(stream), 1))
must(cuda.cuLaunchKernel(f, 4, 1, 1, 32, 1, 1, 0, stream, (ctypes.c_void_p * 1)(ctypes.addressof(p)), None))
print("runs", flush=True)
sys.stdin.readline()
must(cuda.cuMemcpyHtoD_v2(p, bytes([1] * 4), ctypes.c_size_t(4)))
must(cuda.cuStreamSynchronize(stream))
print("done", flush=True)
sys.stdin.read()
"""


def test_a_long_kernel_tells_how_far_it_is(oriond_env):
    process = subprocess.Popen([sys.executable, "-c", WAITS], env=oriond_env.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "runs\n"

    def kernel():
        found = oriond_env.command("processes")["processes"]
        return found[0]["kernel"] if found else None

    found = host.wait_for(kernel)
    assert found and found | {"seconds": 0} == {"name": "waits", "blocks_done": 3, "blocks": 4, "seconds": 0}, found
    assert found["seconds"] >= 1
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
    assert host.wait_for(lambda: kernel() is None), "a kernel that has ended is not told of"
    process.communicate()
