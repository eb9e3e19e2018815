# SPDX-License-Identifier: Apache-2.0
"""Four kernels on the simulated GPU: interpreted by one thread, translated by one, translated by all.

    .venv/bin/python tests/bench/simgpu.py [N]

CPU seconds count what the machine's other work does not disturb; wall seconds what a user waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "simgpu"))

SOURCE = r"""
extern "C" __global__ void plain(const float *a, const float *b, float *c, long long n)
{
    int x = blockIdx.x % (n / 16) * 16 + threadIdx.x % 16, y = blockIdx.x / (n / 16) * 16 + threadIdx.x / 16;
    float s = 0;
    for (int k = 0; k < n; k++) s += a[y * n + k] * b[k * n + x];
    c[y * n + x] = s;
}
extern "C" __global__ void tiled(const float *a, const float *b, float *c, long long n)
{
    __shared__ float A[16][16], B[16][16];
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    int x = blockIdx.x % (n / 16) * 16 + tx, y = blockIdx.x / (n / 16) * 16 + ty;
    float s = 0;
    for (int k = 0; k < n; k += 16) {
        A[ty][tx] = a[y * n + k + tx];
        B[ty][tx] = b[(k + ty) * n + x];
        __syncthreads();
        for (int j = 0; j < 16; j++) s += A[ty][j] * B[j][tx];
        __syncthreads();
    }
    c[y * n + x] = s;
}
extern "C" __global__ void reduction(const float *a, const float *b, float *c, long long n)
{
    __shared__ float sums[32];
    float s = 0;
    for (long long i = blockIdx.x * blockDim.x + threadIdx.x; i < n * n; i += gridDim.x * blockDim.x) s += a[i] * b[i];
    for (int k = 16; k; k >>= 1) s += __shfl_down_sync(~0u, s, k);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = s;
    __syncthreads();
    for (int k = blockDim.x / 64; k; k >>= 1) {
        if (threadIdx.x < k) sums[threadIdx.x] += sums[threadIdx.x + k];
        __syncthreads();
    }
    if (threadIdx.x == 0) atomicAdd(c, sums[0]);
}
extern "C" __global__ void elementwise(const float *a, const float *b, float *c, long long n)
{
    long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n * n) c[i] = sqrtf(a[i]) * 2.5f + fmaxf(b[i], 0.5f);
}
"""
KERNELS = {"plain": (lambda n: (n // 16) ** 2, lambda a, b: a @ b, "product"),
           "tiled": (lambda n: (n // 16) ** 2, lambda a, b: a @ b, "product by tiles of shared memory"),
           "reduction": (lambda n: 64, lambda a, b: (a * b).sum(), "dot product by shuffles, shared memory, atomics"),
           "elementwise": (lambda n: n * n // 256, lambda a, b: a ** 0.5 * 2.5 + b.clip(0.5), "of two arrays")}
REPEAT = {"reduction": 50, "elementwise": 50}  # launches of a measurement, since one is short
WAYS = {"interpreted, 1 thread": ("never", "1"), "translated, 1 thread": ("always", "1"), "translated, all": ("always", "")}


def compile_ptx() -> bytes:
    """The kernels by NVRTC."""
    from cuda.bindings import nvrtc

    _, program = nvrtc.nvrtcCreateProgram(SOURCE.encode(), b"product.cu", 0, [], [])
    (code,) = nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=compute_90"])
    assert int(code) == 0, code
    _, size = nvrtc.nvrtcGetPTXSize(program)
    ptx = b" " * size
    nvrtc.nvrtcGetPTX(program, ptx)
    return ptx.rstrip(b"\0 ")


def measure(n: int) -> dict[str, list[float]]:
    """Best wall and CPU seconds of three launches on n x n numbers, by kernel; results are compared with NumPy's."""
    import numpy as np
    from device import Device

    device = Device(str(ROOT / "orion_virt/_lib/simgpu/libcuda.so.1"))
    module, rng = device.load(compile_ptx()), np.random.default_rng(1)
    a, b = rng.random((2, n, n), dtype=np.float32)
    pa, pb, pc = device.put(a), device.put(b), device.put(np.zeros_like(a))
    best = {}
    for kernel, (blocks, expected, _) in KERNELS.items():
        f, times, repeat = device.function(module, kernel), [], REPEAT.get(kernel, 1)
        for _ in range(3):
            device.free(pc)
            pc = device.put(np.zeros_like(a))
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeat):
                device.launch(f, blocks(n), 256, pa, pb, pc, n)
            times.append(((time.perf_counter() - wall) / repeat, (time.process_time() - cpu) / repeat))
        found, want = device.get(pc, a), expected(a, b)
        np.testing.assert_allclose(found if want.shape else found.flat[0] / repeat, want, rtol=1e-3)
        best[kernel] = [min(t[k] for t in times) for k in (0, 1)]
    return best


def main(argv: list[str]) -> None:
    """Runs each way in a process of its own and prints a table."""
    n = int(argv[0]) if argv else 256
    with tempfile.TemporaryDirectory() as cache:
        found = {}
        for way, (translate, threads) in WAYS.items():
            env = os.environ | {"ORION_SIM_TRANSLATE": translate, "ORION_SIM_CACHE": cache, "OPENBLAS_NUM_THREADS": "1"}
            env |= {"ORION_SIM_THREADS": threads} if threads else {}
            code = f"import sys; sys.path[:0] = {[str(ROOT / 'tests' / 'bench')]!r}; import json, simgpu; print(json.dumps(simgpu.measure({n})))"
            done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
            found[way] = json.loads(done.stdout)
    slow = found["interpreted, 1 thread"]
    print(f"{n} x {n} floats, {os.cpu_count()} CPUs; the interpreter executes an instruction for 32 lanes at a time")
    for kernel, (_, _, what) in KERNELS.items():
        print(f"{kernel}: {what}")
        for way, kernels in found.items():
            wall, cpu = kernels[kernel]
            print(f"    {way:22} {wall * 1e3:9.3f} ms ({slow[kernel][0] / wall:5.1f}x), CPU {cpu * 1e3:9.3f} ms ({slow[kernel][1] / cpu:5.1f}x)")


if __name__ == "__main__":
    main(sys.argv[1:])
