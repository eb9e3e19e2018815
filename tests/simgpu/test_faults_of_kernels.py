# SPDX-License-Identifier: Apache-2.0
"""What a faulty kernel is reported as, interpreted and translated: kernel, thread, address, nearest memory."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LIBRARY, compile_ptx

SOURCE = r"""
extern "C" __global__ void beyond(int *p, long long n) { p[n + blockIdx.x * 64 + threadIdx.x] = 1; }
extern "C" __global__ void reads(int *p, long long n) { p[threadIdx.x] = p[n + (threadIdx.x == 37 ? 4096 : 0)]; }
extern "C" __global__ void odd(char *p, long long n) { *(int *)(p + n + (threadIdx.x == 3)) = 1; }
extern "C" __global__ void within_shared(int *p, long long n) { __shared__ int s[8]; s[threadIdx.x & 7] = 2; __syncthreads(); p[threadIdx.x] = s[n + threadIdx.x]; }
extern "C" __global__ void null(int *p, long long n) { *(int *)(n - 1) = 1; }
extern "C" __global__ void adds(int *p, long long n) { atomicAdd(p + n * 100000000, 1); }
extern "C" __global__ void stops(int *p, long long n) { if (threadIdx.x == n) asm volatile("trap;"); p[0] = 1; }
extern "C" __global__ void calls(int *p, long long n) { int (*f)(int) = (int (*)(int))n; p[0] = f(3); }
extern "C" __global__ void endless(volatile int *p, long long n) { while (p[0] != n) { } }
extern "C" __global__ void frees(int *p, long long n) { free(p + n); }
__device__ __noinline__ int deep(int n) { volatile int a[64]; a[n & 63] = n; return n <= 0 ? 0 : deep(n - 1) + a[n & 63]; }
extern "C" __global__ void overflows(int *p, long long n) { p[0] = deep((int)n); }
extern "C" __global__ void waits(int *p, long long n) { if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;"); p[0] = 1; }
"""
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
from device import Device, DeviceError
import numpy as np
d = Device(sys.argv[2])
module = d.load(open(sys.argv[3], "rb").read())
p = d.put(np.zeros(256, np.int32))
try:
    d.launch(d.function(module, sys.argv[4]), 2, 64, p, int(sys.argv[5]))
    print("fine")
except DeviceError as e:
    print(e.code)
"""
# kernel, its second argument, CUresult, what stderr says
CASES = [
    ("beyond", 256, 700, r"block \(\d,0,0\), thread \(0,0,0\), PTX line \d+: invalid write of 4 bytes at address 0x[0-9a-f]+, which is not "
     r"device memory: (0|256) bytes behind the end of the allocation of 1024 bytes"),
    ("reads", 0, 700, r"thread \(37,0,0\), PTX line \d+: invalid read of 4 bytes .* 15360 bytes behind the end"),
    ("odd", 8, 716, r"thread \(3,0,0\), PTX line \d+: write of 4 bytes at address 0x[0-9a-f]+, which is not a multiple of 4"),
    ("within_shared", 1, 700, r"thread \(7,0,0\), PTX line \d+: invalid read of 4 bytes at shared memory address 0x20: outside its 32 bytes"),
    ("null", 1, 700, r"invalid write of 4 bytes at address 0x0"),
    ("adds", 1, 700, r"invalid atomic access of 4 bytes"),
    ("stops", 40, 719, r"block \(\d,0,0\), thread \(40,0,0\), PTX line \d+: trap"),
    ("calls", 64, 715, r"call through pointer 0x40, which is no function's address"),
    ("endless", 7, 702, r"the kernel ran longer than 1 s"),
    ("frees", 4, 719, r"free of 0x[0-9a-f]+, which malloc did not give"),
    ("overflows", 5000, 700, r"stack overflow in function .*deep"),
    ("waits", 0, 719, r"threads wait at a barrier that the others never reach"),
]


@pytest.fixture(scope="module")
def ptx(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "faults.ptx"
    path.write_bytes(compile_ptx(SOURCE).rstrip(b"\0 "))
    return path


@pytest.mark.parametrize("translate", ["never", "always"])
@pytest.mark.parametrize("kernel,argument,code,report", CASES, ids=[c[0] for c in CASES])
def test_fault_is_reported(ptx, tmp_path, kernel, argument, code, report, translate):
    env = os.environ | {"ORION_SIM_TRANSLATE": translate, "ORION_SIM_CACHE": str(tmp_path / "cache"), "ORION_SIM_TIMEOUT": "1"}
    done = subprocess.run([sys.executable, "-c", PROGRAM, Path(__file__).parent, LIBRARY, ptx, kernel, str(argument)], env=env,
                          capture_output=True, text=True, timeout=120, check=True)
    print(done.stderr)
    assert done.stdout.strip() == str(code)
    assert re.search(rf"^orion simulated GPU: kernel {kernel}, .*{report}", done.stderr, re.M)
