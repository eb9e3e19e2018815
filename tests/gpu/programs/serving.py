# SPDX-License-Identifier: Apache-2.0
"""What an inference server does, `serving.py [PART ...]`: NVML first, then spawned workers with graphs, pinned and virtual memory."""

from __future__ import annotations

import hashlib
import multiprocessing
import sys

import numpy as np

MIB = 1 << 20
PARTS = ["captures", "pinned_view", "sleep_and_wake", "swap"]
SIZES = list(range(1, 61))  # as many graphs as batch sizes
WEIGHTS = 96 * MIB
SWAP = 4096 * MIB
TWICE = b'extern "C" __global__ void twice(float *x, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] *= 2; }'


def ok(result: tuple) -> object:
    assert int(result[0]) == 0, result[0]
    return result[1] if len(result) == 2 else result[1:]


def ask_nvml() -> None:
    """The parent looks at the cards before anybody uses CUDA, and never uses it itself."""
    import pynvml

    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    memory = pynvml.nvmlDeviceGetMemoryInfo(card)
    print("nvml", pynvml.nvmlDeviceGetCount() > 0, pynvml.nvmlDeviceGetName(card), memory.total > 0 and memory.free <= memory.total,
          pynvml.nvmlDeviceGetCudaComputeCapability(card), flush=True)  # fmt: skip
    pynvml.nvmlShutdown()


def captures() -> None:
    """A graph for each batch size, all in one pool, from the largest to the smallest; then each is replayed on new input."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256)).cuda().half().eval()
    given = torch.zeros(max(SIZES), 256, device="cuda", dtype=torch.float16)
    graphs, outs, pool = {}, {}, torch.cuda.graph_pool_handle()
    with torch.no_grad():
        for size in reversed(SIZES):
            model(given[:size])
        torch.cuda.synchronize()
        for size in reversed(SIZES):
            graphs[size] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graphs[size], pool=pool):
                outs[size] = model(given[:size])
        wrong, total = [], hashlib.sha256()
        for size in SIZES:
            given.copy_(torch.randn(max(SIZES), 256).half())
            graphs[size].replay()
            if not torch.equal(outs[size], model(given[:size])):
                wrong.append(size)
            total.update(outs[size].cpu().numpy().tobytes())
    print("captures", len(graphs), "wrong", wrong, total.hexdigest()[:16], flush=True)


def kernel() -> object:
    from cuda.bindings import driver, nvrtc

    program = ok(nvrtc.nvrtcCreateProgram(TWICE, b"twice.cu", 0, [], []))
    ok(nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=compute_80"]))
    ptx = b" " * ok(nvrtc.nvrtcGetPTXSize(program))
    ok(nvrtc.nvrtcGetPTX(program, ptx))
    return ok(driver.cuModuleGetFunction(ok(driver.cuModuleLoadData(ptx)), b"twice"))


def attach() -> object:
    """A current context; the driver's functions."""
    from cuda.bindings import driver

    ok(driver.cuInit(0))
    ok(driver.cuCtxSetCurrent(ok(driver.cuDevicePrimaryCtxRetain(ok(driver.cuDeviceGet(0))))))
    return driver


def launch(driver: object, function: object, pointer: int, n: int) -> None:
    args = [np.array([pointer], np.uint64), np.array([n], np.int32)]
    table = np.array([a.ctypes.data for a in args], np.uint64)
    ok(driver.cuLaunchKernel(function, (n + 255) // 256, 1, 1, 256, 1, 1, 0, 0, table.ctypes.data, 0))
    ok(driver.cuCtxSynchronize())


def pinned_view() -> None:
    """A kernel works on pinned host memory by its device address; so does a copy from device to device."""
    driver = attach()
    n = 1 << 20
    host = ok(driver.cuMemHostAlloc(4 * n, driver.CU_MEMHOSTALLOC_DEVICEMAP | driver.CU_MEMHOSTALLOC_PORTABLE))
    view = ok(driver.cuMemHostGetDevicePointer(host, 0))
    array = np.frombuffer((np.ctypeslib.ctypes.c_float * n).from_address(int(host)), np.float32)
    array[:] = np.arange(n, dtype=np.float32)
    launch(driver, kernel(), int(view), n)
    print("view", bool((array == np.arange(n, dtype=np.float32) * 2).all()), flush=True)
    there = ok(driver.cuMemAlloc(4 * n))
    ok(driver.cuMemcpyDtoD(there, view, 4 * n))
    back = np.empty(n, np.float32)
    ok(driver.cuMemcpyDtoH(back.ctypes.data, there, 4 * n))
    kind = ok(driver.cuPointerGetAttribute(driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, int(view)))
    print("copied", bool((back == array).all()), "memory type", int(kind), flush=True)
    ok(driver.cuMemFree(there))
    del array
    ok(driver.cuMemFreeHost(host))


def sleep_and_wake() -> None:
    """Weights go to the host, their memory is given back, and they return to the same address."""
    driver = attach()
    place = driver.CUmemAllocationProp()
    place.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    place.location.type, place.location.id = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE, 0
    access = driver.CUmemAccessDesc()
    access.location, access.flags = place.location, driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    step = ok(driver.cuMemGetAllocationGranularity(place, driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM))
    assert WEIGHTS % step == 0
    at = ok(driver.cuMemAddressReserve(WEIGHTS, 0, 0, 0))
    held = ok(driver.cuMemHostAlloc(WEIGHTS, 0))
    backup = np.frombuffer((np.ctypeslib.ctypes.c_float * (WEIGHTS // 4)).from_address(int(held)), np.float32)
    function, n = kernel(), WEIGHTS // 4
    weights = np.random.default_rng(0).random(n, np.float32)
    for turn in range(3):
        memory = ok(driver.cuMemCreate(WEIGHTS, place, 0))
        ok(driver.cuMemMap(at, WEIGHTS, 0, memory, 0))
        ok(driver.cuMemSetAccess(at, WEIGHTS, [access], 1))
        ok(driver.cuMemcpyHtoD(at, (backup if turn else weights).ctypes.data, WEIGHTS))
        launch(driver, function, int(at), n)
        ok(driver.cuMemcpyDtoH(int(held), at, WEIGHTS))
        awake = ok(driver.cuMemGetInfo())[0]
        ok(driver.cuMemUnmap(at, WEIGHTS))
        ok(driver.cuMemRelease(memory))
        freed = ok(driver.cuMemGetInfo())[0] - awake
        print("sleep", turn, bool((backup == weights * 2 ** (turn + 1)).all()), "freed", freed >= WEIGHTS, flush=True)
    print("gone", int(driver.cuMemcpyDtoH(int(held), at, 16)[0]), flush=True)
    ok(driver.cuMemAddressFree(at, WEIGHTS))
    del backup
    ok(driver.cuMemFreeHost(held))


def swap() -> None:
    """4 GiB of blocks out to pinned memory and in again in another order, on two streams."""
    import torch

    blocks, words = 64, SWAP // 64 // 8
    cache = torch.arange(blocks * words, device="cuda").view(blocks, words)
    host = torch.empty(blocks, words, dtype=torch.int64, pin_memory=True)
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    for i in range(blocks):
        with torch.cuda.stream(streams[i % 2]):
            host[i].copy_(cache[i], non_blocking=True)
    torch.cuda.synchronize()
    print("out", bool((host[:, 0] == torch.arange(blocks) * words).all()), int(host[-1, -1]), flush=True)
    cache.zero_()
    torch.cuda.synchronize()
    for i in range(blocks):
        with torch.cuda.stream(streams[i % 2]):
            cache[blocks - 1 - i].copy_(host[i], non_blocking=True)
    torch.cuda.synchronize()
    wanted = torch.arange(blocks * words, device="cuda").view(blocks, words).flip(0)
    print("in", bool(torch.equal(cache, wanted)), flush=True)


def main() -> None:
    """One worker after another, each a process of its own as a server spawns them."""
    ask_nvml()
    spawn = multiprocessing.get_context("spawn")
    for part in sys.argv[1:] or PARTS:
        worker = spawn.Process(target=globals()[part])
        worker.start()
        worker.join()
        print(part, "ends with", worker.exitcode, flush=True)
    ask_nvml()


if __name__ == "__main__":
    main()
