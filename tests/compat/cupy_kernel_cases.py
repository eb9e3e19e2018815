# SPDX-License-Identifier: Apache-2.0
"""Kernels that a program of CuPy brings itself, and what it does with streams, memory and graphs: more of cupy_cases.py."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import cupy as cp
import cupyx
import numpy as np
from cupyx import jit
from named_cases import CASES, case


def equal(got: cp.ndarray, want: object) -> None:
    np.testing.assert_array_equal(cp.asnumpy(got), want)


def close(got: cp.ndarray, want: object, up_to: float = 1e-6) -> None:
    np.testing.assert_allclose(cp.asnumpy(got), want, rtol=up_to, atol=up_to)


def numbers(*shape: int, of: str = "f") -> np.ndarray:
    return np.random.default_rng(3).uniform(-4, 4, shape).astype(of)


def raw(code: str, name: str, **words: object) -> cp.RawKernel:
    return cp.RawKernel(f'extern "C" __global__ {code}', name, **words)


def output(descriptor: int, body: Callable[[], object]) -> str:
    """What is written to a descriptor meanwhile, by libraries too."""
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), descriptor)
        try:
            body()
        finally:
            os.dup2(kept, descriptor)
            os.close(kept)
        file.seek(0)
        return file.read().decode()


# ---- kernels of expressions ----


@case
def elementwise_kernels() -> None:
    square = cp.ElementwiseKernel("float32 x, float32 y", "float32 z", "z = (x - y) * (x - y)", "squared_difference")
    x, y = numbers(5, 40), numbers(40)
    close(square(cp.asarray(x), cp.asarray(y)), (x - y) ** 2)
    close(square(cp.asarray(x)[::2, ::-3], 2), (x[::2, ::-3] - 2) ** 2)
    generic = cp.ElementwiseKernel("T x, S y, raw T all", "T z, bool more", "T t = all[_ind.size() - 1 - i]; z = t + x * T(y); more = x > t;")
    a = np.arange(30, dtype=np.int64)
    z, more = generic(cp.asarray(a), cp.full(30, 3.0), cp.asarray(a))
    equal(z, a[::-1] + 3 * a)
    equal(more, a > a[::-1])
    neighbours = cp.ElementwiseKernel("raw T x, int32 n", "T y", "int k = i; y = x[(k + 1) % n] - x[(k + n - 1) % n]",
                                      preamble="__device__ int unused(int v) { return v; }", loop_prep="int turns = 0;", after_loop="turns++;")  # fmt: skip
    equal(neighbours(cp.asarray(a), 30, size=30), np.roll(a, -1) - np.roll(a, 1))


@case
def reduction_kernels() -> None:
    norm = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "norm_of_rows")
    x = numbers(6, 500, of="d")
    close(norm(cp.asarray(x), axis=1), np.sqrt((x * x).sum(1)), 1e-12)
    close(norm(cp.asarray(x)), np.sqrt((x * x).sum()), 1e-12)
    furthest = cp.ReductionKernel("T x, T y", "int64 at", "pair(fabs(x - y), _J)", "a.far >= b.far ? a : b", "at = a.at", "pair(-1, 0)", "furthest",
                                  reduce_type="pair", preamble="""
        struct pair { double far; long long at; __device__ pair(double f = -1, long long a = 0) : far(f), at(a) {} };""")  # fmt: skip
    y = numbers(500, of="d")
    equal(furthest(cp.asarray(x), cp.asarray(y), axis=1), np.abs(x - y).argmax(1))


@case
def fused_functions() -> None:
    @cp.fuse()
    def wave(x, y):
        return cp.sin(x) * 2 + cp.where(y > 0, y, x) ** 2

    @cp.fuse(kernel_name="spread")
    def spread(x):
        return cp.sqrt(cp.sum(cp.square(x - 1), axis=1))

    x, y = numbers(7, 90), numbers(7, 90)[::-1].copy()
    close(wave(cp.asarray(x), cp.asarray(y)), np.sin(x) * 2 + np.where(y > 0, y, x) ** 2, 1e-5)
    close(spread(cp.asarray(x)), np.sqrt(np.square(x - 1).sum(1)), 1e-5)


@case
def vectorized_functions() -> None:
    @cp.vectorize
    def collatz(n):
        turns = 0
        while n != 1:
            n = n // 2 if n % 2 == 0 else 3 * n + 1
            turns += 1
        return turns

    def here(n: int) -> int:
        return 0 if n == 1 else 1 + here(n // 2 if n % 2 == 0 else 3 * n + 1)

    equal(collatz(cp.arange(1, 200)), [here(n) for n in range(1, 200)])


# ---- kernels in CUDA C++ ----


@case
def raw_kernel_of_a_matrix_product() -> None:
    product = raw("""void product(const float *a, const float *b, float *c, int n) {
        __shared__ float s[16][17], t[16][17];
        int x = threadIdx.x, y = threadIdx.y, row = blockIdx.y * 16 + y, column = blockIdx.x * 16 + x;
        float sum = 0;
        for (int k = 0; k < n; k += 16) {
            s[y][x] = a[row * n + k + x]; t[y][x] = b[(k + y) * n + column];
            __syncthreads();
            for (int j = 0; j < 16; j++) sum += s[y][j] * t[j][x];
            __syncthreads();
        }
        c[row * n + column] = sum; }""", "product")  # fmt: skip
    a, b = numbers(96, 96), numbers(96, 96).T.copy()
    c = cp.empty((96, 96), cp.float32)
    product((6, 6), (16, 16), (cp.asarray(a), cp.asarray(b), c, np.int32(96)))
    close(c, a @ b, 1e-4)


@case
def dynamic_shared_memory() -> None:
    code = """void backwards(int *x, int n) { extern __shared__ int s[];
        for (int i = threadIdx.x; i < n; i += blockDim.x) s[i] = x[i];
        __syncthreads();
        for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = s[n - 1 - i]; }"""
    backwards = raw(code, "backwards")
    for n in (100, 20000):  # 80,000 bytes must be asked for
        backwards.max_dynamic_shared_size_bytes = max(4 * n, 49152)
        x = cp.arange(n, dtype=cp.int32)
        backwards((1,), (256,), (x, np.int32(n)), shared_mem=4 * n)
        equal(x, np.arange(n)[::-1])


@case
def shuffles_and_votes() -> None:
    sums = raw("""void sums(const int *x, int *out) { int v = x[threadIdx.x + blockIdx.x * blockDim.x], lane = threadIdx.x % 32;
        unsigned odd = __ballot_sync(~0u, v & 1);
        for (int d = 16; d; d /= 2) v += __shfl_down_sync(~0u, v, d);
        if (lane == 0) { atomicAdd(out, v); atomicAdd(out + 1, __popc(odd)); atomicMax(out + 2, v); } }""", "sums")  # fmt: skip
    x, out = cp.arange(1024, dtype=cp.int32), cp.zeros(3, cp.int32)
    sums((4,), (256,), (x, out))
    equal(out, [1023 * 512, 512, sum(range(992, 1024))])


@case
def atomics_of_many_types() -> None:
    module = cp.RawModule(code="""template<typename T> __global__ void add(T *x) { atomicAdd(x + threadIdx.x % 3, T(threadIdx.x % 5)); }
        extern "C" __global__ void swap(unsigned long long *x) { unsigned long long old = *x, seen;
            while ((seen = atomicCAS(x, old, old + threadIdx.x)) != old) old = seen;
            atomicXor(x + 1, threadIdx.x); atomicMin(x + 2, threadIdx.x); atomicExch(x + 3, 5ull); }""", options=("-std=c++17",),
                          name_expressions=["add<int>", "add<unsigned long long>", "add<float>", "add<double>"])  # fmt: skip
    want = np.zeros(3)
    np.add.at(want, np.arange(300) % 3, np.arange(300) % 5)
    for name, of in (("int", "i"), ("unsigned long long", "L"), ("float", "f"), ("double", "d")):
        x = cp.zeros(3, of)
        module.get_function(f"add<{name}>")((1,), (300,), (x,))
        equal(x, want)
    x = cp.asarray([0, 0, 99, 0], cp.uint64)
    module.get_function("swap")((1,), (128,), (x,))
    equal(x, [127 * 64, 0, 0, 5])


@case
def templates_of_a_module() -> None:
    code = """#include <cupy/complex.cuh>
        template<typename T, int N> __global__ void powers(T *x, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < n) { T v = 1; for (int k = 0; k < N; k++) v *= x[i]; x[i] = v; } }"""
    names = {"powers<float, 2>": "f", "powers<long long, 5>": "q", "powers<complex<double>, 3>": "D", "powers<signed char, 1>": "b"}
    module = cp.RawModule(code=code, options=("-std=c++17",), name_expressions=list(names))
    for name, of in names.items():
        n = np.arange(-20, 20).astype(of)
        x = cp.asarray(n)
        module.get_function(name)((2,), (32,), (x, np.int32(n.size)))
        close(x, n ** int(name[-2]), 1e-12)


@case
def constants_and_variables_of_a_module() -> None:
    module = cp.RawModule(code="""extern "C" { __constant__ float weights[4]; __device__ int calls = 40;
        __global__ void weigh(float *x) { x[threadIdx.x] *= weights[threadIdx.x % 4]; if (threadIdx.x == 0) calls++; } }""")  # fmt: skip
    weights = cp.ndarray((4,), cp.float32, module.get_global("weights"))
    weights[...] = cp.asarray([1, 10, 100, 1000], cp.float32)
    x = cp.ones(8, cp.float32)
    for _ in range(2):
        module.get_function("weigh")((1,), (8,), (x,))
    equal(x, [1, 100, 10000, 1000000] * 2)
    assert int(cp.ndarray((), cp.int32, module.get_global("calls"))) == 42


@case
def structures_by_value() -> None:
    move = cp.RawKernel("""
        struct points { char sign; double scale; float x[4]; short last; };
        extern "C" __global__ void move(points p, double *out) { out[threadIdx.x] = p.x[threadIdx.x] * p.scale + p.sign + p.last; }""", "move")
    points = np.zeros((), np.dtype([("sign", "i1"), ("scale", "f8"), ("x", "f4", 4), ("last", "i2")], align=True))
    points["sign"], points["scale"], points["x"], points["last"] = -3, 2.5, [1, 2, 3, 4], 1000
    out = cp.zeros(4)
    move((1,), (4,), (points[()], out))
    equal(out, np.array([1, 2, 3, 4]) * 2.5 + 997)


@case
def arguments_of_every_type() -> None:
    code = """#include <cupy/complex.cuh>
        extern "C" __global__ void all(bool a, signed char b, unsigned short c, int d, long long e, float f, double g, complex<float> h,
            complex<double> i, double *out) { double v[] = {double(a), double(b), double(c), double(d), double(e), f, g, h.real(), h.imag(), i.real(), i.imag()};
            for (int k = 0; k < 11; k++) out[k] = v[k]; }"""
    out = cp.zeros(11)
    values = (True, np.int8(-5), np.uint16(60000), np.int32(-7), 2**40, np.float32(1.5), 2.25, np.complex64(3 - 4j), 5 + 6j)
    cp.RawKernel(code, "all")((1,), (1,), (*values, out))
    equal(out, [1, -5, 60000, -7, 2**40, 1.5, 2.25, 3, -4, 5, 6])


@case
def half_precision() -> None:
    code = """#include <cuda_fp16.h>
        extern "C" __global__ void halves(__half2 *x, const __half *y, int n) { int i = threadIdx.x;
            if (i < n) x[i] = __hfma2(x[i], __half2half2(y[i]), __floats2half2_rn(0.5f, -0.5f)); }"""
    x, y = np.arange(64, dtype="e"), np.arange(32, dtype="e") / 4
    there = cp.asarray(x)
    cp.RawKernel(code, "halves")((1,), (32,), (there, cp.asarray(y), np.int32(32)))
    equal(there, (x.reshape(-1, 2) * y[:, None] + np.array([0.5, -0.5], "e")).ravel())


@case
def three_dimensions() -> None:
    where = raw("""void where(unsigned *x) { unsigned i = threadIdx.x + blockDim.x * blockIdx.x, j = threadIdx.y + blockDim.y * blockIdx.y,
        k = threadIdx.z + blockDim.z * blockIdx.z; x[(k * gridDim.y * blockDim.y + j) * gridDim.x * blockDim.x + i] = i + 100 * j + 10000 * k; }""", "where")  # fmt: skip
    x = cp.zeros((8, 9, 10), cp.uint32)
    where((5, 3, 2), (2, 3, 4), (x,))
    k, j, i = np.indices((8, 9, 10))
    equal(x, i + 100 * j + 10000 * k)


@case
def pointers_to_functions_and_recursion() -> None:
    code = """typedef int (*step)(int);
        __device__ __noinline__ int twice(int v) { return 2 * v; }
        __device__ __noinline__ int fibonacci(int v) { return v < 2 ? v : fibonacci(v - 1) + fibonacci(v - 2); }
        __device__ step steps[] = {twice, fibonacci};
        extern "C" __global__ void apply(int *x) { x[threadIdx.x] = steps[threadIdx.x % 2](threadIdx.x); }"""
    x = cp.zeros(16, cp.int32)
    cp.RawKernel(code, "apply")((1,), (16,), (x,))
    equal(x, [2 * n if n % 2 == 0 else [0, 1, 0, 2, 0, 5, 0, 13, 0, 34, 0, 89, 0, 233, 0, 610][n] for n in range(16)])


@case
def cooperative_grids() -> None:
    code = """#include <cooperative_groups.h>
        extern "C" __global__ void turns(int *x, int n) { auto grid = cooperative_groups::this_grid(); int i = grid.thread_rank();
            for (int k = 0; k < 5; k++) { int right = x[(i + 1) % n]; grid.sync(); x[i] += right; grid.sync(); } }"""
    x, n = cp.arange(512, dtype=cp.int32), np.arange(512, dtype=np.int32)
    cp.RawKernel(code, "turns", enable_cooperative_groups=True)((4,), (128,), (x, np.int32(512)))
    for _ in range(5):
        n = n + np.roll(n, -1)
    equal(x, n)


@case
def what_kernels_print() -> None:
    hello = raw('void hello(int n) { if (threadIdx.x == 3) printf("thread %d of %s, %.2f %llx\\n", n, "block", 1.25, 0xfeedfacecafeull); }', "hello")
    said = output(1, lambda: (hello((1,), (32,), (np.int32(7),)), cp.cuda.Device().synchronize()))
    assert said == "thread 7 of block, 1.25 feedfacecafe\n", said


@case
def attributes_of_kernels() -> None:
    busy = raw("void busy(float *x) { __shared__ float s[64]; s[threadIdx.x] = x[threadIdx.x]; __syncthreads(); x[threadIdx.x] = s[63 - threadIdx.x]; }", "busy")
    told = busy.attributes
    assert told["shared_size_bytes"] == 256 and told["max_threads_per_block"] == 1024 and told["num_regs"] > 0, told


@case
def textures_in_a_kernel() -> None:
    from cupy.cuda import runtime, texture

    channel = texture.ChannelFormatDescriptor(32, 0, 0, 0, runtime.cudaChannelFormatKindFloat)
    array = texture.CUDAarray(channel, 16, 8)
    n = numbers(8, 16)
    array.copy_from(cp.asarray(n))
    look = texture.TextureDescriptor((runtime.cudaAddressModeClamp,) * 2, runtime.cudaFilterModePoint, runtime.cudaReadModeElementType)
    seen = texture.TextureObject(texture.ResourceDescriptor(runtime.cudaResourceTypeArray, cuArr=array), look)
    read = raw("void look(cudaTextureObject_t t, float *out) { out[threadIdx.y * 16 + threadIdx.x] = tex2D<float>(t, threadIdx.x + 1, threadIdx.y); }", "look")
    out = cp.zeros((8, 16), cp.float32)
    read((1,), (16, 8), (seen, out))
    equal(out, np.concatenate([n[:, 1:], n[:, -1:]], 1))


# ---- kernels in Python ----


@case
def jit_kernels() -> None:
    @jit.rawkernel()
    def scaled(x, y, n, factor):
        for i in range(jit.grid(1), n, jit.gridsize(1)):
            if x[i] > 0 and i % 2 == 0:
                y[i] = x[i] * factor
            else:
                y[i] = cp.float32(-1)

    x, y = numbers(1000), cp.zeros(1000, cp.float32)
    scaled((3,), (64,), (cp.asarray(x), y, cp.int32(1000), cp.float32(2.5)))
    equal(y, np.where((x > 0) & (np.arange(1000) % 2 == 0), x * np.float32(2.5), -1).astype("f"))


@case
def jit_shared_memory_and_warps() -> None:
    @jit.rawkernel()
    def sums(x, total, biggest):
        part = jit.shared_memory(cp.int32, 8)
        i = jit.blockIdx.x * jit.blockDim.x + jit.threadIdx.x
        v = x[i]
        for d in jit.range(5):
            v += jit.shfl_xor_sync(0xFFFFFFFF, v, 1 << d)
        if jit.laneid() == 0:
            part[jit.threadIdx.x // 32] = v
        jit.syncthreads()
        if jit.threadIdx.x < 8:
            jit.atomic_add(total, 0, part[jit.threadIdx.x])
            jit.atomic_max(biggest, 0, part[jit.threadIdx.x])

    x = np.arange(1024, dtype=np.int32)
    total, biggest = cp.zeros(1, cp.int32), cp.zeros(1, cp.int32)
    sums[4, 256](cp.asarray(x), total, biggest)
    assert int(total[0]) == x.sum() and int(biggest[0]) == x[-32:].sum()


# ---- streams, memory, graphs ----


@case
def streams_and_events() -> None:
    first, second = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    begun, ended, told = cp.cuda.Event(), cp.cuda.Event(), []
    x = cp.zeros(100_000)
    cp.cuda.Device().synchronize()
    with first:
        begun.record()
        for _ in range(20):
            x += 1
        ended.record()
    second.wait_event(ended)
    with second:
        x *= 3
    second.launch_host_func(told.append, "done")
    second.synchronize()
    assert first.done and second.done and ended.done and told == ["done"] and cp.cuda.get_elapsed_time(begun, ended) > 0
    equal(x, np.full(100_000, 60.0))


@case
def pools_of_memory() -> None:
    pool = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(pool.malloc):
        x = cp.zeros(1 << 20, cp.uint8)
        assert pool.used_bytes() == 1 << 20
        del x
        assert pool.used_bytes() == 0 and pool.free_bytes() == 1 << 20
        pool.free_all_blocks()
        assert pool.total_bytes() == 0
        pool.set_limit(1 << 20)
        try:
            cp.zeros(1 << 21, cp.uint8)
        except cp.cuda.memory.OutOfMemoryError as error:
            assert "limit set to: 1,048,576" in str(error), error
        else:
            raise AssertionError("the limit was passed")


@case
def out_of_memory() -> None:
    free, total = cp.cuda.runtime.memGetInfo()
    with cp.cuda.using_allocator(None):
        try:
            cp.empty(total + 1, cp.uint8)
        except (cp.cuda.runtime.CUDARuntimeError, cp.cuda.memory.OutOfMemoryError) as error:
            assert "emory" in str(error), error
        else:
            raise AssertionError(f"{total + 1} bytes of {total}")
    equal(cp.arange(9) * 2, np.arange(9) * 2)


@case
def memory_of_the_host() -> None:
    n, stream = numbers(50_000), cp.cuda.Stream(non_blocking=True)
    pinned, back = cupyx.empty_pinned(n.shape, n.dtype), cupyx.zeros_pinned(n.shape, n.dtype)
    pinned[...] = n
    there = cp.empty(n.shape, n.dtype)
    with stream:
        there.set(pinned)
        there *= 2
        there.get(out=back, blocking=False)
    stream.synchronize()
    equal(cp.asarray(back), n * 2)


@case
def memory_by_other_allocators() -> None:
    for allocator in (cp.cuda.malloc_managed, cp.cuda.malloc_async, None):
        with cp.cuda.using_allocator(allocator):
            x = cp.arange(5000.0)
            x[::2] = 0
            assert float(x.sum()) == 2500 * 2500
            del x


@case
def views_of_others() -> None:
    x = cp.arange(12, dtype=cp.float32)
    shared = cp.from_dlpack(x.reshape(3, 4))
    shared[1] = 0
    memory = cp.cuda.MemoryPointer(cp.cuda.UnownedMemory(x.data.ptr, x.nbytes, x), 16)
    equal(cp.ndarray((8,), cp.float32, memory), [0, 0, 0, 0, 8, 9, 10, 11])


@case
def graphs_by_capture() -> None:
    add = raw("void add(float *x, float v) { x[threadIdx.x] += v; }", "add")
    x, y = cp.ones(256, cp.float32), cp.zeros(256, cp.float32)
    y += x * 2  # compiles
    y[...] = 0
    stream = cp.cuda.Stream(non_blocking=True)
    cp.cuda.Device().synchronize()
    with stream:
        stream.begin_capture()
        add((1,), (256,), (x, np.float32(2)))
        cp.multiply(x, 2, out=y)
        graph = stream.end_capture()
        for _ in range(3):
            graph.launch()
        stream.synchronize()
    equal(x, np.full(256, 7))
    equal(y, np.full(256, 14))


@case
def two_devices() -> None:
    with cp.cuda.Device(1):
        far = cp.arange(1000) * 2
        assert far.device.id == 1
        total = int(far.sum())
    near = cp.asarray(cp.asnumpy(far))
    moved = cp.empty_like(near)
    moved.data.copy_from_device_async(far.data, far.nbytes, cp.cuda.Stream.null)
    cp.cuda.Stream.null.synchronize()
    equal(moved, np.arange(1000) * 2)
    assert total == 999_000 and near.device.id == 0


@case
def short_fourier_transforms() -> None:
    """For few elements cuFFT brings PTX."""
    for n in (8, 64, 1000, 1024):
        x = numbers(n, of="D") + 1j * numbers(n, of="d")[::-1]
        close(cp.fft.fft(cp.asarray(x)), np.fft.fft(x), 1e-10)


# ---- what cannot work: machine code ----


def refused(body: Callable[[], object]) -> None:
    """It fails with an error, and a line that says why; what comes next computes."""

    def must_fail() -> None:
        try:
            body()
        except Exception as error:
            assert any(word in str(error) for word in ("NoKernelImage", "STATUS", "EXEC_FAILED")), error
        else:
            raise AssertionError("machine code ran")

    said = output(2, must_fail)
    assert "exists as machine code only, which the simulated GPU cannot run" in said, said
    equal(cp.arange(5) + 1, np.arange(5) + 1)


CASES |= {f"refused:{name}": lambda body=body: refused(body) for name, body in {
    "sort": lambda: cp.sort(cp.asarray(numbers(100))),
    "cublas": lambda: cp.asarray(numbers(64, 64, of="d")) @ cp.asarray(numbers(64, 64, of="d")),
    "curand": lambda: cp.random.RandomState(1).random_sample(1000),
    "cufft": lambda: cp.fft.fft(cp.asarray(numbers(1 << 16, of="D"))),
    "cusolver": lambda: cp.linalg.cholesky(cp.eye(32)),
}.items()}  # fmt: skip
