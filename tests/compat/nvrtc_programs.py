# SPDX-License-Identifier: Apache-2.0
"""Programs of cuda.bindings, `nvrtc_programs.py [PREFIX ...]`: NVRTC compiles, the driver's calls allocate, launch and wait.

Each does what one of the examples of cuda-python shows, and compares every result with NumPy. Prints the names of those that passed.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cuda_source
import numpy as np
from cuda.bindings import driver
from cuda_source import ok
from named_cases import case, run

# ---- what all need ----


def compiled(source: str, *options: bytes) -> Any:
    """A module of the current context."""
    return ok(driver.cuModuleLoadData(cuda_source.ptx(source, 90, *options)))


def kernel(source: str, name: str, *options: bytes) -> Any:
    return ok(driver.cuModuleGetFunction(compiled(source, *options), name.encode()))


class Arguments:
    """The array of pointers that a launch takes; NumPy scalars as they are, addresses as 64 bits."""

    def __init__(self, *values: Any) -> None:
        self._kept = [np.array([v] if isinstance(v, np.generic) else [int(v)], None if isinstance(v, np.generic) else np.uint64)
                      for v in values]
        self._table = np.array([kept.ctypes.data for kept in self._kept], np.uint64)

    @property
    def address(self) -> int:
        return int(self._table.ctypes.data)


def launch(function: Any, grid: int, block: int, *values: Any, shared: int = 0, stream: int = 0) -> None:
    ok(driver.cuLaunchKernel(function, grid, 1, 1, block, 1, 1, shared, stream, Arguments(*values).address, 0))


def to_device(array: np.ndarray) -> Any:
    pointer = ok(driver.cuMemAlloc(array.nbytes))
    ok(driver.cuMemcpyHtoD(pointer, array.ctypes.data, array.nbytes))
    return pointer


def from_device(pointer: Any, like: np.ndarray) -> np.ndarray:
    array = np.empty_like(like)
    ok(driver.cuMemcpyDtoH(array.ctypes.data, pointer, array.nbytes))
    return array


def seen(address: int, like: np.ndarray) -> np.ndarray:
    """Host memory at an address, as an array."""
    size = (ctypes.c_byte * like.nbytes).from_address(address)
    return np.frombuffer(size, like.dtype).reshape(like.shape)


@contextmanager
def context(ordinal: int = 0) -> Iterator[Any]:
    ok(driver.cuInit(0))
    device = ok(driver.cuDeviceGet(ordinal))
    ok(driver.cuCtxSetCurrent(ok(driver.cuDevicePrimaryCtxRetain(device))))
    try:
        yield device
    finally:
        ok(driver.cuDevicePrimaryCtxRelease(device))


ADD = 'extern "C" __global__ void add(const float *a, const float *b, float *c, int n) {' \
      " int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) c[i] = a[i] + b[i]; }"


def numbers(n: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random(n, np.float32)


# ---- the programs ----


@case
def vector_addition() -> None:
    with context():
        a, b = numbers(50_000), numbers(50_000, 2)
        result = to_device(np.zeros_like(a))
        launch(kernel(ADD, "add"), 196, 256, to_device(a), to_device(b), result, np.int32(a.size))
        assert np.array_equal(from_device(result, a), a + b)


@case
def virtual_memory_of_two_cards() -> None:
    """A range whose halves lie on different cards, read and written by one kernel."""
    with context() as device:
        cards = [device, *(ok(driver.cuDeviceGet(k)) for k in range(1, min(2, ok(driver.cuDeviceGetCount()))))]
        props = []
        for card in cards:
            prop = driver.CUmemAllocationProp()
            prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
            prop.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
            prop.location.id = int(card)
            props.append(prop)
        minimum = driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        piece = max(ok(driver.cuMemGetAllocationGranularity(prop, minimum)) for prop in props)
        base = int(ok(driver.cuMemAddressReserve(piece * len(cards), 0, 0, 0)))
        access = []
        for k, prop in enumerate(props):
            handle = ok(driver.cuMemCreate(piece, prop, 0))
            ok(driver.cuMemMap(base + k * piece, piece, 0, handle, 0))
            ok(driver.cuMemRelease(handle))
            found = driver.CUmemAccessDesc()
            found.location = prop.location
            found.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
            access.append(found)
        ok(driver.cuMemSetAccess(base, piece * len(cards), access, len(access)))
        n = piece * len(cards) // 4
        a = numbers(n)
        ok(driver.cuMemcpyHtoD(base, a.ctypes.data, a.nbytes))
        launch(kernel(ADD, "add"), (n + 255) // 256, 256, base, base, base, np.int32(n))
        assert np.array_equal(from_device(base, a), a + a)
        ok(driver.cuMemUnmap(base, piece * len(cards)))
        ok(driver.cuMemAddressFree(base, piece * len(cards)))


@case
def zero_copy() -> None:
    """Kernels work on pinned host memory that both sides see."""
    with context():
        flags = driver.CU_MEMHOSTALLOC_DEVICEMAP
        a, b = numbers(4096), numbers(4096, 2)
        host = [int(ok(driver.cuMemHostAlloc(a.nbytes, flags))) for _ in range(3)]
        seen(host[0], a)[:] = a
        seen(host[1], a)[:] = b
        launch(kernel(ADD, "add"), 16, 256, *(ok(driver.cuMemHostGetDevicePointer(p, 0)) for p in host), np.int32(a.size))
        ok(driver.cuCtxSynchronize())
        assert np.array_equal(seen(host[2], a), a + b)
        for pointer in host:
            ok(driver.cuMemFreeHost(pointer))


ATOMICS = """extern "C" __global__ void count(int *x) {
    int me = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd_system(&x[0], 10); atomicExch_system(&x[1], me); atomicMax_system(&x[2], me); atomicMin_system(&x[3], -me);
    atomicInc_system((unsigned *)&x[4], 17); atomicCAS_system(&x[5], me - 1, me); atomicAnd_system(&x[6], 2 * me + 7);
    atomicOr_system(&x[7], 1 << (me % 30)); atomicXor_system(&x[8], me);
}"""


@case
def atomics_over_the_system() -> None:
    """On managed memory, which the host reads when the kernel has ended."""
    with context():
        threads = 64 * 128
        pointer = int(ok(driver.cuMemAllocManaged(36, driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value)))
        x = seen(pointer, np.zeros(9, np.int32))
        x[:] = 0
        x[6] = -1
        launch(kernel(ATOMICS, "count"), 64, 128, pointer)
        ok(driver.cuCtxSynchronize())
        every = np.arange(threads)
        assert x[0] == 10 * threads and 0 <= x[1] < threads and x[2] == threads - 1 and x[3] == -(threads - 1)
        assert x[4] == threads % 18 and 0 <= x[5] < threads and x[6] == np.bitwise_and.reduce(2 * every + 7)
        assert x[7] == (1 << 30) - 1 and x[8] == np.bitwise_xor.reduce(every)


@case
def allocation_in_stream_order() -> None:
    """From a pool that keeps what is freed, over several rounds."""
    with context() as device:
        stream = ok(driver.cuStreamCreate(1))
        pool = ok(driver.cuDeviceGetDefaultMemPool(device))
        keep = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        ok(driver.cuMemPoolSetAttribute(pool, keep, driver.cuuint64_t(1 << 40)))
        add, a, b = kernel(ADD, "add"), numbers(20_000), numbers(20_000, 2)
        for _ in range(5):
            places = [ok(driver.cuMemAllocAsync(a.nbytes, stream)) for _ in range(3)]
            for place, array in zip(places, (a, b)):
                ok(driver.cuMemcpyHtoDAsync(place, array.ctypes.data, array.nbytes, stream))
            launch(add, 79, 256, *places, np.int32(a.size), stream=stream)
            result = np.empty_like(a)
            ok(driver.cuMemcpyDtoHAsync(result.ctypes.data, places[2], a.nbytes, stream))
            for place in places:
                ok(driver.cuMemFreeAsync(place, stream))
            ok(driver.cuStreamSynchronize(stream))
            assert np.array_equal(result, a + b)
        used = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_USED_MEM_CURRENT
        assert int(ok(driver.cuMemPoolGetAttribute(pool, keep))) == 1 << 40 and int(ok(driver.cuMemPoolGetAttribute(pool, used))) == 0


PIPELINE = """
#include <cuda_pipeline.h>
extern "C" __global__ void product(const float *a, const float *b, float *c, int n) {
    __shared__ alignas(16) float ta[2][16][16], tb[2][16][16];
    int x = threadIdx.x % 16, y = threadIdx.x / 16, row = blockIdx.x / (n / 16) * 16 + y, col = blockIdx.x % (n / 16) * 16;
    float sum = 0;
    for (int t = -1; t < n / 16; t++) {
        if (t + 1 < n / 16) {
            int to = (t + 1) % 2;
            __pipeline_memcpy_async(&ta[to][y][x], &a[row * n + (t + 1) * 16 + x], 4);
            __pipeline_memcpy_async(&tb[to][y][x], &b[((t + 1) * 16 + y) * n + col + x], 4);
        }
        __pipeline_commit();
        if (t < 0) continue;
        __pipeline_wait_prior(1);
        __syncthreads();
        for (int k = 0; k < 16; k++) sum += ta[t % 2][y][k] * tb[t % 2][k][x];
        __syncthreads();
    }
    c[row * n + col + x] = sum;
}"""


@case
def copies_to_shared_memory_ahead() -> None:
    """A product of matrices whose next tiles are on their way while it computes."""
    with context():
        n = 64
        a, b = numbers(n * n).reshape(n, n), numbers(n * n, 2).reshape(n, n)
        result = to_device(np.zeros_like(a))
        launch(kernel(PIPELINE, "product", *cuda_source.includes()), (n // 16) ** 2, 256, to_device(a), to_device(b), result, np.int32(n))
        assert np.allclose(from_device(result, a), a.astype(np.float64) @ b, rtol=1e-5)


SUM = """extern "C" __global__ void part(const float *x, double *sums, int n) {
    extern __shared__ double mine[];
    double sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    mine[threadIdx.x] = sum;
    for (int step = blockDim.x / 2; step; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) mine[threadIdx.x] += mine[threadIdx.x + step];
    }
    if (!threadIdx.x) sums[blockIdx.x] = mine[0];
}
extern "C" __global__ void whole(const double *sums, double *sum, int n) {
    double s = 0;
    for (int i = 0; i < n; i++) s += sums[i];
    *sum += s;
}"""


def _sum_parts(module: Any) -> tuple[Any, Any, Any, Any, np.ndarray]:
    x = numbers(30_000)
    part, whole = (ok(driver.cuModuleGetFunction(module, name)) for name in (b"part", b"whole"))
    return part, whole, to_device(np.zeros(16)), to_device(np.zeros(1)), x


@case
def a_graph_by_capture() -> None:
    """Two kernels that follow each other, launched three times."""
    with context():
        part, whole, sums, total, x = _sum_parts(compiled(SUM))
        stream, place = ok(driver.cuStreamCreate(1)), to_device(x)
        ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))
        launch(part, 16, 128, place, sums, np.int32(x.size), shared=1024, stream=stream)
        launch(whole, 1, 1, sums, total, np.int32(16), stream=stream)
        graph = ok(driver.cuStreamEndCapture(stream))
        assert ok(driver.cuGraphGetNodes(graph, 8))[1] == 2
        executable = ok(driver.cuGraphInstantiate(graph, 0))
        for _ in range(3):
            ok(driver.cuGraphLaunch(executable, stream))
        ok(driver.cuStreamSynchronize(stream))
        assert np.isclose(from_device(total, np.zeros(1))[0], 3 * x.sum(dtype=np.float64))


@case
def a_graph_of_nodes() -> None:
    """A memset and a kernel before another, made by hand, and a clone of it all."""
    with context() as device:
        part, whole, sums, total, x = _sum_parts(compiled(SUM))
        current, graph = ok(driver.cuCtxGetCurrent()), ok(driver.cuGraphCreate(0))
        erase = driver.CUDA_MEMSET_NODE_PARAMS()
        erase.dst, erase.value, erase.elementSize, erase.width, erase.height = total, 0, 4, 2, 1
        erased = ok(driver.cuGraphAddMemsetNode(graph, [], 0, erase, current))
        first, last = Arguments(to_device(x), sums, np.int32(x.size)), Arguments(sums, total, np.int32(16))
        node = None
        for function, (grid, block, shared), arguments in ((part, (16, 128, 1024), first), (whole, (1, 1, 0), last)):
            params = driver.CUDA_KERNEL_NODE_PARAMS()
            params.func, params.gridDimX, params.gridDimY, params.gridDimZ = function, grid, 1, 1
            params.blockDimX, params.blockDimY, params.blockDimZ, params.sharedMemBytes = block, 1, 1, shared
            params.kernelParams = arguments.address
            before = [] if node is None else [node, erased]
            node = ok(driver.cuGraphAddKernelNode(graph, before, len(before), params))
        for made in (graph, ok(driver.cuGraphClone(graph))):
            executable = ok(driver.cuGraphInstantiate(made, 0))
            ok(driver.cuGraphLaunch(executable, 0))
            ok(driver.cuCtxSynchronize())
            assert np.isclose(from_device(total, np.zeros(1))[0], x.sum(dtype=np.float64))
        assert int(device) == 0


GRADIENT = """
#include <cooperative_groups.h>
namespace cg = cooperative_groups;
__device__ void dot(const double *x, const double *y, int n, double *result) {
    double sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i] * y[i];
    for (int step = 16; step; step /= 2) sum += __shfl_down_sync(~0u, sum, step);
    if (threadIdx.x % 32 == 0) atomicAdd(result, sum);
}
/* The matrix has 4 on its diagonal and -1 beside it. `r` is the right side at first; `sums` are zero. */
extern "C" __global__ void solve(double *x, double *r, double *p, double *q, double *sums, int n, int rounds) {
    cg::grid_group grid = cg::this_grid();
    int first = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x;
    for (int i = first; i < n; i += all) { x[i] = 0; p[i] = r[i]; }
    dot(r, r, n, &sums[0]);
    grid.sync();
    for (int k = 0; k < rounds; k++) {
        for (int i = first; i < n; i += all) q[i] = 4 * p[i] - (i ? p[i - 1] : 0) - (i + 1 < n ? p[i + 1] : 0);
        grid.sync();
        dot(p, q, n, &sums[2 * k + 1]);
        grid.sync();
        double alpha = sums[2 * k] / sums[2 * k + 1];
        for (int i = first; i < n; i += all) { x[i] += alpha * p[i]; r[i] -= alpha * q[i]; }
        grid.sync();
        dot(r, r, n, &sums[2 * k + 2]);
        grid.sync();
        for (int i = first; i < n; i += all) p[i] = r[i] + sums[2 * k + 2] / sums[2 * k] * p[i];
        grid.sync();
    }
}"""


@case
def conjugate_gradients_of_a_whole_grid() -> None:
    """All blocks wait for each other between the steps: a cooperative launch."""
    with context():
        n, rounds = 600, 20
        right = np.random.default_rng(3).random(n)
        x, r, p, q = (to_device(a) for a in (np.zeros(n), right, right, right))
        arguments = Arguments(x, r, p, q, to_device(np.zeros(2 * rounds + 1)), np.int32(n), np.int32(rounds))
        ok(driver.cuLaunchCooperativeKernel(kernel(GRADIENT, "solve", *cuda_source.includes()), 4, 1, 1, 64, 1, 1, 0, 0, arguments.address))
        found = from_device(x, right)
        back = 4 * found - np.r_[0, found[:-1]] - np.r_[found[1:], 0]
        assert np.allclose(back, right, atol=1e-6)


CLOCK = """extern "C" __global__ void timed(const float *in, float *out, long long *times) {
    extern __shared__ float mine[];
    if (!threadIdx.x) times[blockIdx.x] = clock64();
    mine[threadIdx.x] = in[threadIdx.x]; mine[threadIdx.x + blockDim.x] = in[threadIdx.x + blockDim.x];
    for (int step = blockDim.x; step; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step) mine[threadIdx.x] = fminf(mine[threadIdx.x], mine[threadIdx.x + step]);
    }
    __syncthreads();
    if (!threadIdx.x) { out[blockIdx.x] = mine[0]; times[blockIdx.x + gridDim.x] = clock64(); }
}"""


@case
def clocks_of_blocks() -> None:
    with context():
        x = numbers(128)
        out, times = to_device(np.zeros(16, np.float32)), to_device(np.zeros(32, np.int64))
        launch(kernel(CLOCK, "timed"), 16, 64, to_device(x), out, times, shared=512)
        assert (from_device(out, np.zeros(16, np.float32)) == x.min()).all()
        read = from_device(times, np.zeros(32, np.int64))
        assert (read[16:] > read[:16]).all()


WAVE = """#define N 64
extern "C" __global__ void step(const float *now, const float *before, float *next) {
    __shared__ float tile[18][18];
    int x = blockIdx.x % 4 * 16 + threadIdx.x % 16, y = blockIdx.x / 4 * 16 + threadIdx.x / 16, tx = threadIdx.x % 16 + 1, ty = threadIdx.x / 16 + 1;
    tile[ty][tx] = now[y * N + x];
    if (tx == 1) tile[ty][0] = x ? now[y * N + x - 1] : 0;
    if (tx == 16) tile[ty][17] = x + 1 < N ? now[y * N + x + 1] : 0;
    if (ty == 1) tile[0][tx] = y ? now[(y - 1) * N + x] : 0;
    if (ty == 16) tile[17][tx] = y + 1 < N ? now[(y + 1) * N + x] : 0;
    __syncthreads();
    float around = tile[ty][tx - 1] + tile[ty][tx + 1] + tile[ty - 1][tx] + tile[ty + 1][tx] - 4 * tile[ty][tx];
    next[y * N + x] = 2 * tile[ty][tx] - before[y * N + x] + 0.2f * around;
}"""


@case
def a_wave_by_finite_differences() -> None:
    """Thirty steps over tiles with a rim, timed by events."""
    with context():
        now, before = np.zeros((64, 64), np.float32), np.zeros((64, 64), np.float32)
        now[20, 30] = 1
        places, step = [to_device(a) for a in (before, now, now)], kernel(WAVE, "step")
        begun, ended = ok(driver.cuEventCreate(0)), ok(driver.cuEventCreate(0))
        ok(driver.cuEventRecord(begun, 0))
        for _ in range(30):
            launch(step, 16, 256, places[1], places[0], places[2])
            places.append(places.pop(0))
        ok(driver.cuEventRecord(ended, 0))
        ok(driver.cuEventSynchronize(ended))
        assert ok(driver.cuEventElapsedTime(begun, ended)) > 0
        for _ in range(30):
            wide = np.pad(now, 1)
            around = wide[1:-1, :-2] + wide[1:-1, 2:] + wide[:-2, 1:-1] + wide[2:, 1:-1] - 4 * now
            now, before = 2 * now - before + np.float32(0.2) * around, now
        assert np.allclose(from_device(places[1], now), now, atol=1e-5)


@case
def copies_between_cards() -> None:
    """A kernel of one card reads the other's memory; a copy goes back."""
    with context(0) as here:
        assert ok(driver.cuDeviceGetCount()) > 1, "it needs two vGPUs"
        home = ok(driver.cuCtxGetCurrent())
        a = numbers(10_000)
        with context(1) as there:
            assert ok(driver.cuDeviceCanAccessPeer(there, here)) == 1
            far = ok(driver.cuCtxGetCurrent())
            theirs = to_device(a)
            ok(driver.cuCtxSetCurrent(home))
            ok(driver.cuCtxEnablePeerAccess(far, 0))
            ours = to_device(np.zeros_like(a))
            launch(kernel(ADD, "add"), 40, 256, theirs, theirs, ours, np.int32(a.size))
            ok(driver.cuMemcpyPeer(theirs, far, ours, home, a.nbytes))
            ok(driver.cuCtxSetCurrent(far))
            assert np.array_equal(from_device(theirs, a), a + a)
            ok(driver.cuCtxSetCurrent(home))


TEXTURE = """extern "C" __global__ void look(cudaTextureObject_t faces, float *out, int n) {
    int x = threadIdx.x % n, y = threadIdx.x / n, face = blockIdx.x;
    float u = (x + 0.5f) / n * 2 - 1, v = (y + 0.5f) / n * 2 - 1;
    float3 to = face == 0 ? make_float3(1, -v, -u) : face == 1 ? make_float3(-1, -v, u) : face == 2 ? make_float3(u, 1, v) :
                face == 3 ? make_float3(u, -1, -v) : face == 4 ? make_float3(u, -v, 1) : make_float3(-u, -v, -1);
    out[(face * n + y) * n + x] = -texCubemap<float>(faces, to.x, to.y, to.z);
}"""


@case
def a_texture_of_six_faces() -> None:
    with context():
        n = 8
        faces = numbers(6 * n * n).reshape(6, n, n)
        shape = driver.CUDA_ARRAY3D_DESCRIPTOR()
        shape.Width, shape.Height, shape.Depth, shape.NumChannels = n, n, 6, 1
        shape.Format, shape.Flags = driver.CUarray_format.CU_AD_FORMAT_FLOAT, driver.CUDA_ARRAY3D_CUBEMAP
        array = ok(driver.cuArray3DCreate(shape))
        copy = driver.CUDA_MEMCPY3D()
        copy.srcMemoryType, copy.srcHost, copy.srcPitch, copy.srcHeight = driver.CUmemorytype.CU_MEMORYTYPE_HOST, faces.ctypes.data, 4 * n, n
        copy.dstMemoryType, copy.dstArray = driver.CUmemorytype.CU_MEMORYTYPE_ARRAY, array
        copy.WidthInBytes, copy.Height, copy.Depth = 4 * n, n, 6
        ok(driver.cuMemcpy3D(copy))
        resource, how = driver.CUDA_RESOURCE_DESC(), driver.CUDA_TEXTURE_DESC()
        resource.resType, resource.res.array.hArray = driver.CUresourcetype.CU_RESOURCE_TYPE_ARRAY, array
        how.addressMode = [driver.CUaddress_mode.CU_TR_ADDRESS_MODE_CLAMP] * 3
        how.filterMode, how.flags = driver.CUfilter_mode.CU_TR_FILTER_MODE_POINT, driver.CU_TRSF_NORMALIZED_COORDINATES
        texture = ok(driver.cuTexObjectCreate(resource, how, None))
        out = to_device(np.zeros_like(faces))
        launch(kernel(TEXTURE, "look", *cuda_source.includes()), 6, n * n, int(texture), out, np.int32(n))
        assert np.array_equal(from_device(out, faces), -faces)
        ok(driver.cuTexObjectDestroy(texture))


if __name__ == "__main__":
    run(sys.argv[1:])
