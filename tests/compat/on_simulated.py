# SPDX-License-Identifier: Apache-2.0
"""What frameworks can do on the simulated GPU, `on_simulated.py NAME`: all but their own machine code."""

from __future__ import annotations

import os
import sys

MIB = 1 << 20
VGPUS = int(os.environ["ORION_VGPU"])
GMEM = int(os.environ["ORION_GMEM"]) * MIB
NAME = "Orion Simulated GPU"


def torch_devices() -> None:
    import torch

    assert torch.cuda.is_available() and torch.cuda.device_count() == VGPUS
    for i in range(VGPUS):
        card = torch.cuda.get_device_properties(i)
        assert (card.name, card.total_memory, card.major) == (NAME, GMEM, 9), card
    buses = {torch.cuda.get_device_properties(i).pci_bus_id for i in range(VGPUS)}
    assert len(buses) == VGPUS


def torch_memory() -> None:
    """Copies, pinned memory, streams, events and statistics; a kernel fails with the reason."""
    import torch

    host = torch.arange(1 << 20, dtype=torch.float32).pin_memory()
    assert host.is_pinned()
    stream, begin, end = torch.cuda.Stream(), torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with torch.cuda.stream(stream):
        begin.record()
        there = host.to("cuda:0", non_blocking=True)
        back = torch.empty_like(host).pin_memory()
        back.copy_(there, non_blocking=True)
        end.record()
    end.synchronize()
    assert torch.equal(host, back) and begin.elapsed_time(end) >= 0 and stream.query()
    other = there.to(f"cuda:{VGPUS - 1}").clone()
    assert torch.equal(other.cpu(), host)
    free, total = torch.cuda.mem_get_info()
    assert total == GMEM and free < total
    assert torch.cuda.memory_stats()["allocated_bytes.all.current"] >= 4 << 20
    try:
        torch.empty(GMEM, dtype=torch.uint8, device="cuda")
    except torch.OutOfMemoryError as error:
        assert "out of memory" in str(error)
    else:
        raise AssertionError("more than ORION_GMEM was given")
    try:
        _ = there + 1
        torch.cuda.synchronize()
    except RuntimeError as error:
        assert "no kernel image is available" in str(error)
    else:
        raise AssertionError("machine code ran")


def torch_profiler() -> None:
    """Without CUPTI's tables the profiler warns, and what it watches goes on."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watched:
        x = torch.ones(1000).to("cuda")
        torch.cuda.synchronize()
    assert x.cpu().sum() == 1000 and watched.key_averages() is not None


def triton_library() -> None:
    """Triton finds us by itself, compiles, and is told why its machine code does not run."""
    import torch
    import triton
    import triton.language as tl
    from triton.backends.nvidia import driver

    assert driver.libcuda_dirs()

    @triton.jit
    def add(x, y, n, B: tl.constexpr):
        i = tl.program_id(0) * B + tl.arange(0, B)
        tl.store(y + i, tl.load(x + i, mask=i < n) + 1, mask=i < n)

    x = torch.ones(1000).cuda()
    try:
        add[(4,)](x, torch.empty_like(x), 1000, B=256)
    except RuntimeError as error:
        assert "no kernel image is available" in str(error)
    else:
        raise AssertionError("machine code ran")


def tensorflow() -> None:
    """Both vGPUs, and operations whose kernels TensorFlow brings as PTX (others it brings for sm_90)."""
    import math

    import tensorflow as tf

    cards = tf.config.list_physical_devices("GPU")
    assert [card.name for card in cards] == [f"/physical_device:GPU:{i}" for i in range(VGPUS)], cards
    for card in cards:
        details = tf.config.experimental.get_device_details(card)
        assert details == {"device_name": NAME, "compute_capability": (9, 0)}, details
        tf.config.experimental.set_memory_growth(card, True)
    for i in range(VGPUS):
        with tf.device(f"/GPU:{i}"):
            x = tf.constant([1.0, 2.0, 3.0])
            y = tf.sin(x) * x + x
            assert y.device.endswith(f"GPU:{i}")
        wanted = [math.sin(v) * v + v for v in (1, 2, 3)]
        assert all(abs(a - b) < 1e-5 for a, b in zip(y.numpy().tolist(), wanted, strict=True)), y


def jax_devices() -> None:
    import numpy as np
    from jax._src import hardware_utils

    # Looks for names in /dev; install-client makes one in a guest, this machine has none.
    hardware_utils.has_visible_nvidia_gpu = lambda: True
    import jax

    cards = jax.devices()
    assert [card.platform for card in cards] == ["gpu"] * VGPUS and cards[0].device_kind == NAME, cards
    for card in cards:
        x = jax.device_put(np.arange(1000.0), card)
        assert x.devices() == {card} and np.array_equal(np.asarray(x), np.arange(1000.0))
    try:
        (x + 1).block_until_ready()
    except jax.errors.JaxRuntimeError as error:
        assert "NO_BINARY_FOR_GPU" in str(error)
    else:
        raise AssertionError("machine code ran")


def cupy_kernels() -> None:
    """Elementwise, reductions, RawKernel, RawModule, graphs, pools; CuPy is told to compile to PTX."""
    import cupy as cp
    import numpy as np

    a, n = cp.arange(1000, dtype=cp.float32), np.arange(1000, dtype=np.float32)
    assert cp.cuda.runtime.getDeviceCount() == VGPUS
    assert np.array_equal((a * 2 + 1).get(), n * 2 + 1) and float(a.sum()) == n.sum() and float(cp.sqrt(a).max()) > 31.6
    assert np.allclose(cp.sin(a).get(), np.sin(n), atol=1e-4) and int((cp.arange(1000) * 3 % 7).sum()) == 2999
    assert cp.cumsum(cp.arange(10)).get().tolist() == np.cumsum(np.arange(10)).tolist()
    assert a[a > 990].get().tolist() == n[n > 990].tolist()
    add = cp.RawKernel('extern "C" __global__ void k(float *x) { x[threadIdx.x] += 1; }', "k")
    add((1,), (256,), (a,))
    assert float(a.sum()) == n.sum() + 256
    module = cp.RawModule(code="template<typename T> __global__ void twice(T *x) { x[threadIdx.x] *= 2; }",
                          name_expressions=["twice<double>"], options=("-std=c++17",))  # fmt: skip
    d = cp.ones(64)
    module.get_function("twice<double>")((1,), (64,), (d,))
    assert float(d.sum()) == 128
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        d += 1
        stream.begin_capture()
        d += 1
        graph = stream.end_capture()
        graph.launch()
        graph.launch()
        stream.synchronize()
    assert float(d.get().sum()) == 64 * 5
    assert cp.get_default_memory_pool().used_bytes() > 0
    with cp.cuda.using_allocator(cp.cuda.malloc_async):
        assert cp.arange(5).get().tolist() == list(range(5))


def numba_kernels() -> None:
    """Grids, shared memory, barriers, atomics, shuffles, mathematics; linked by the driver's linker."""
    import math

    import numpy as np
    from numba import cuda, float32

    @cuda.jit
    def sums(x, total, waves):
        part = cuda.shared.array(256, float32)
        i, t = cuda.grid(1), cuda.threadIdx.x
        part[t] = x[i] if i < x.size else 0
        cuda.syncthreads()
        step = 128
        while step:
            if t < step:
                part[t] += part[t + step]
            cuda.syncthreads()
            step //= 2
        if t == 0:
            cuda.atomic.add(total, 0, part[0])
        if i < x.size:
            waves[i] = math.sin(x[i]) + cuda.shfl_sync(0xFFFFFFFF, x[i], 0)

    x = np.arange(1024, dtype=np.float32)
    total, waves = cuda.to_device(np.zeros(1, np.float32)), cuda.device_array(1024, np.float32)
    sums[4, 256](cuda.to_device(x), total, waves)
    assert len(cuda.gpus) == VGPUS and total.copy_to_host()[0] == x.sum()
    assert np.allclose(waves.copy_to_host(), np.sin(x) + x // 32 * 32, rtol=1e-5, atol=1e-4)


def cuda_core() -> None:
    """cuda.core and cuda.bindings: compile, launch, copy, graph."""
    import numpy as np
    from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch

    device = Device(VGPUS - 1)
    device.set_current()
    stream = device.create_stream()
    source = 'extern "C" __global__ void twice(float *x) { x[blockIdx.x * blockDim.x + threadIdx.x] *= 2; }'
    code = Program(source, "c++", ProgramOptions(arch="compute_90")).compile("ptx")
    memory = device.allocate(4096, stream=stream)
    from cuda.bindings import runtime

    host = np.arange(1024, dtype=np.float32)
    assert runtime.cudaMemcpy(int(memory.handle), host.ctypes.data, 4096, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice)[0] == 0
    launch(stream, LaunchConfig(grid=4, block=256), code.get_kernel("twice"), memory)
    stream.sync()
    back = np.empty_like(host)
    assert runtime.cudaMemcpy(back.ctypes.data, int(memory.handle), 4096, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost)[0] == 0
    assert np.array_equal(back, host * 2)
    memory.close()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
