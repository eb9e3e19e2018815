# SPDX-License-Identifier: Apache-2.0
"""Bodies on Triton, JAX, CuPy, Numba and NVIDIA's own Python packages, `on_others.py NAME`."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile

import numpy as np

os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp(prefix="triton")  # each run compiles by itself
os.environ["CUPY_CACHE_DIR"] = tempfile.mkdtemp(prefix="cupy")
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0")


def digest(x: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:16]


def triton_kernels() -> None:
    """Vector addition, softmax over rows, a matrix product with a descriptor-free loop."""
    import torch
    import triton
    import triton_bodies as kernels

    torch.manual_seed(0)
    x, y = torch.randn(100003).cuda(), torch.randn(100003).cuda()
    total = torch.empty_like(x)
    kernels.add[(triton.cdiv(x.numel(), 1024),)](x, y, total, x.numel(), B=1024)
    print("add", bool(torch.equal(total, x + y)))
    m = torch.randn(333, 781).cuda()
    soft = torch.empty_like(m)
    kernels.softmax[(333,)](m, soft, 781, B=1024)
    print("softmax", bool(torch.allclose(soft, torch.softmax(m, 1), atol=1e-6)), digest(soft.cpu().numpy()))
    for kind in (torch.float16, torch.bfloat16):
        a, b = torch.randn(512, 256).cuda().to(kind), torch.randn(256, 384).cuda().to(kind)
        c = torch.empty(512, 384, device="cuda", dtype=torch.float32)
        kernels.matmul[(512 // 64, 384 // 64)](a, b, c, 384, 256, B=64, K=32)
        print("matmul", bool(torch.allclose(c, a.float() @ b.float(), atol=1e-1)), digest(c.cpu().numpy()))


def jax_more() -> None:
    """jit, grad, vmap, pmap of one, scan, random numbers, linear algebra, donation, several types."""
    import jax
    import jax.numpy as jnp

    print("devices", jax.device_count(), jax.devices()[0].platform)

    @jax.jit
    def loss(w: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((jnp.tanh(x @ w) - y) ** 2)

    key = jax.random.PRNGKey(0)
    x, w = jax.random.normal(key, (64, 32)), jax.random.normal(jax.random.split(key)[0], (32,)) * 0.1
    y, step = jnp.sin(x[:, 0]), jax.jit(jax.value_and_grad(loss))
    for _ in range(5):
        value, slope = step(w, x, y)
        w = w - 0.5 * slope
        print(f"jax {float(value):.8f}")
    print("vmap", digest(np.asarray(jax.vmap(lambda v: v @ v)(x))))
    print("pmap", float(jax.pmap(lambda v: v * 2)(jnp.ones((1, 4))).sum()))
    print("scan", np.asarray(jax.lax.scan(lambda c, v: (c + v, c), 0.0, jnp.arange(5.0))[1]).tolist())
    print("random", digest(np.asarray(jax.random.uniform(key, (1000,)))), digest(np.asarray(jax.random.permutation(key, 100))))
    m = jax.random.normal(key, (48, 48))
    s = m @ m.T + 48 * jnp.eye(48)
    print("cholesky", bool(jnp.allclose(jnp.linalg.cholesky(s) @ jnp.linalg.cholesky(s).T, s, atol=1e-2)))
    print("solve", bool(jnp.allclose(s @ jnp.linalg.solve(s, m), m, atol=1e-2)))
    print("svd", bool(jnp.allclose(jnp.linalg.svd(m, compute_uv=False)[0], np.linalg.svd(np.asarray(m))[1][0], rtol=1e-3)))
    print("fft", bool(jnp.allclose(jnp.fft.ifft(jnp.fft.fft(x)).real, x, atol=1e-4)))
    image, kernel = jnp.ones((1, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    made = jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    print("conv", float(made.sum()), made.shape)
    print("bf16", float((jnp.ones((64, 64), jnp.bfloat16) @ jnp.ones((64, 64), jnp.bfloat16)).sum()))
    print("sort", digest(np.asarray(jnp.sort(jax.random.normal(key, (5000,))))))


def cupy_more() -> None:
    """RawModule, FFT, linear algebra, random numbers, sparse matrices, pools, graphs, fused kernels."""
    import cupy as cp
    from cupyx.scipy import sparse

    code = 'extern "C" { __constant__ float k[4]; __global__ void f(float *x, int n) {' \
           " int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] = x[i] * k[i % 4]; } }"
    module = cp.RawModule(code=code)
    view = cp.ndarray(4, cp.float32, module.get_global("k"))
    view[:] = cp.arange(1, 5, dtype=cp.float32)
    x = cp.ones(1000, cp.float32)
    module.get_function("f")((4,), (256,), (x, np.int32(1000)))
    print("module", float(x.sum()))
    print("fused", float(cp.fuse(kernel_name="fused")(lambda a, b: cp.sqrt(a * a + b))(x, x).sum()))
    r = cp.random.RandomState(7)
    print("random", digest(r.rand(1000).get()), digest(r.randint(0, 100, 1000).get()), digest(r.standard_normal(1000).get()))
    m = r.rand(64, 64)
    s = m @ m.T + 64 * cp.eye(64)
    print("solve", bool(cp.allclose(s @ cp.linalg.solve(s, m), m)), "eigh", f"{float(cp.linalg.eigh(s)[0][-1]):.6f}")
    u, values, v = cp.linalg.svd(m)
    print("svd", bool(cp.allclose(u * values @ v, m)), "inverse", bool(cp.allclose(cp.linalg.inv(s) @ s, cp.eye(64))))
    print("fft", bool(cp.allclose(cp.fft.ifft(cp.fft.fft(m)).real, m)))
    dense = m * (m < 0.1)
    matrix = sparse.csr_matrix(dense)
    print("sparse", matrix.nnz, bool(cp.allclose(matrix @ m, dense @ m)), bool(cp.allclose((matrix.T @ matrix).toarray(), dense.T @ dense)))
    print("sort", digest(cp.sort(r.rand(5000)).get()), int(cp.argmax(x)), digest(cp.cumsum(cp.arange(1000)).get()))
    pool = cp.get_default_memory_pool()
    before = pool.used_bytes()
    held = cp.empty(1 << 20, cp.uint8)
    print("pool", pool.used_bytes() - before, held.nbytes)
    with cp.cuda.using_allocator(cp.cuda.MemoryAsyncPool().malloc):
        print("async", float(cp.arange(1000).sum()))
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        x *= 1
        stream.begin_capture()
        x += 1
        graph = stream.end_capture()
        for _ in range(3):
            graph.launch()
        stream.synchronize()
    print("graph", float(x.sum()))
    pinned = cp.cuda.alloc_pinned_memory(4096)
    host = np.frombuffer(pinned, np.float32, 1000)
    host[:] = 2
    x.set(host)
    print("pinned", float(x.sum()))


def numba_more() -> None:
    """Shared memory, atomics, shuffles, streams, reductions, ufuncs, a device function."""
    import math

    if not hasattr(np, "row_stack"):  # a name that NumPy dropped and that releases of numba-cuda before it ask for
        np.row_stack = np.vstack
    import numba_bodies as kernels
    from numba import cuda

    x = np.arange(10000, dtype=np.float32) / 100
    total, out = cuda.to_device(np.zeros(1, np.float64)), cuda.device_array_like(x)
    kernels.sums[(x.size + 255) // 256, 256](cuda.to_device(x), total, out)
    print("sums", float(total.copy_to_host()[0]), bool(np.allclose(out.copy_to_host(), [math.sin(v) ** 2 for v in x], atol=1e-5)))
    counts = cuda.to_device(np.zeros(10, np.int32))
    kernels.histogram[8, 128](cuda.to_device(np.arange(5000, dtype=np.int32) % 10), counts)
    print("histogram", counts.copy_to_host().tolist())
    warp = cuda.device_array(64, np.int32)
    kernels.shuffled[1, 64](warp)
    print("shuffle", warp.copy_to_host().tolist())
    stream = cuda.stream()
    with cuda.pinned(x):
        there = cuda.to_device(x, stream=stream)
        back = there.copy_to_host(stream=stream)
        stream.synchronize()
    print("pinned", bool((back == x).all()))
    print("ufunc", float(kernels.shifted(x, x).sum()))


def cuda_python() -> None:
    """cuda.bindings: NVRTC, driver and runtime side by side; and cuda.core on top of them."""
    from cuda.bindings import driver, nvrtc, runtime

    def ok(result: tuple) -> object:
        assert int(result[0]) == 0, result[0]
        return result[1] if len(result) == 2 else result[1:]

    ok(driver.cuInit(0))
    context = ok(driver.cuDevicePrimaryCtxRetain(ok(driver.cuDeviceGet(0))))
    ok(driver.cuCtxSetCurrent(context))
    source = b'extern "C" __global__ void add(float *x, float y, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] += y; }'
    program = ok(nvrtc.nvrtcCreateProgram(source, b"add.cu", 0, [], []))
    ok(nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=compute_80"]))
    ptx = b" " * ok(nvrtc.nvrtcGetPTXSize(program))
    ok(nvrtc.nvrtcGetPTX(program, ptx))
    add = ok(driver.cuModuleGetFunction(ok(driver.cuModuleLoadData(ptx)), b"add"))
    x = np.arange(1000, dtype=np.float32)
    there = ok(runtime.cudaMalloc(x.nbytes))
    ok(runtime.cudaMemcpy(there, x.ctypes.data, x.nbytes, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice))
    args = [np.array([int(there)], np.uint64), np.array([2.5], np.float32), np.array([1000], np.int32)]
    ok(driver.cuLaunchKernel(add, 4, 1, 1, 256, 1, 1, 0, 0, np.array([a.ctypes.data for a in args], np.uint64).ctypes.data, 0))
    back = np.empty_like(x)
    ok(runtime.cudaMemcpy(back.ctypes.data, there, x.nbytes, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost))
    print("bindings", bool((back == x + 2.5).all()), ok(runtime.cudaGetDeviceCount()) >= 1)
    ok(runtime.cudaFree(there))


def cuda_core() -> None:
    """cuda.core: Program, LaunchConfig, streams, events, memory."""
    try:
        from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch
    except ImportError:
        from cuda.core.experimental import Device, LaunchConfig, Program, ProgramOptions, launch

    device = Device()
    device.set_current()
    stream = device.create_stream()
    major, minor = device.compute_capability
    code = 'extern "C" __global__ void twice(float *x, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] *= 2; }'
    kernel = Program(code, "c++", ProgramOptions(arch=f"sm_{major}{minor}")).compile("cubin").get_kernel("twice")
    import cupy as cp

    x = cp.arange(1000, dtype=cp.float32)
    cp.cuda.runtime.deviceSynchronize()
    launch(stream, LaunchConfig(grid=4, block=256), kernel, x.data.ptr, np.int32(1000))
    stream.sync()
    print("core", float(x.sum()))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
