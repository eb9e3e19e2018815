# SPDX-License-Identifier: Apache-2.0
"""Memory, streams, events, capture and errors of the simulated driver."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy as np
import pytest
from cuda.bindings import driver

FILL = r"""extern "C" __global__ void fill(int *p, int v, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] = v; }
extern "C" __global__ void add(int *p, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) p[i] += 1; }
extern "C" __global__ void slow(int *p, int n) { int s = *p; for (int i = 0; i < n; i++) s = s * 5 + i; *p = s | 1; }
extern "C" __global__ void wild(int *p, long long off) { p[off] = 1; }"""
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def test_device(gpu, ok):
    assert ok(driver.cuDriverGetVersion()) == 13000
    assert ok(driver.cuDeviceGetCount()) == 2
    assert ok(driver.cuDeviceGetName(64, 0)).startswith(b"Orion Simulated GPU\0")
    assert ok(driver.cuDeviceTotalMem(0)) == 512 << 20
    assert ok(driver.cuMemGetInfo()) == (512 << 20, 512 << 20)
    assert int(driver.cuDeviceGet(7)[0]) == 101


def test_out_of_memory_and_return(gpu, ok):
    assert int(driver.cuMemAlloc(513 << 20)[0]) == 2
    p = ok(driver.cuMemAlloc(400 << 20))
    assert int(driver.cuMemAlloc(200 << 20)[0]) == 2
    ok(driver.cuMemFree(p))
    ok(driver.cuMemFree(ok(driver.cuMemAlloc(500 << 20))))
    assert int(driver.cuMemFree(p)[0]) == 1
    assert ok(driver.cuMemGetInfo())[0] == 512 << 20


def test_small_allocations_do_not_overlap(gpu, ok):
    sizes = np.random.default_rng(0).integers(1, 20000, 200)
    pointers = [int(ok(driver.cuMemAlloc(int(n)))) for n in sizes]
    spans = sorted(zip(pointers, sizes))
    assert all(a + n <= b for (a, n), (b, _) in zip(spans, spans[1:]))
    assert all(p % 256 == 0 and 0x2A0000000000 <= p < 0x300000000000 for p in pointers)
    for p in pointers:
        ok(driver.cuMemFree(p))
    assert ok(driver.cuMemGetInfo())[0] == 512 << 20


def test_copies_beyond_an_allocation_are_refused(gpu):
    p, host = gpu.put(np.zeros(100, np.uint8)), np.zeros(200, np.uint8)
    assert int(driver.cuMemcpyHtoD(p, host.ctypes.data, 200)[0]) == 1
    assert int(driver.cuMemcpyDtoH(host.ctypes.data, p + 50, 51)[0]) == 1
    assert int(driver.cuMemsetD8(p, 0, 101)[0]) == 1


def test_pageable_source_is_read_before_the_call_returns(gpu, ok):
    a = np.arange(1 << 16, dtype=np.int32)
    p = ok(driver.cuMemAlloc(a.nbytes))
    s = ok(driver.cuStreamCreate(0))
    want = a.copy()
    ok(driver.cuMemcpyHtoDAsync(p, a.ctypes.data, a.nbytes, s))
    a[:] = 0
    ok(driver.cuStreamSynchronize(s))
    np.testing.assert_array_equal(gpu.get(int(p), a), want)


def test_illegal_address_is_sticky_and_reset_heals(gpu, ok):
    f, p = gpu.function(FILL, "wild"), gpu.put(np.zeros(4, np.int32))
    gpu.launch(f, (1,), (1,), p, np.int64(1 << 30))
    assert int(driver.cuCtxSynchronize()[0]) == 700
    assert int(driver.cuMemAlloc(4)[0]) == 700
    ok(driver.cuDevicePrimaryCtxReset(0))
    ok(driver.cuCtxSetCurrent(ok(driver.cuDevicePrimaryCtxRetain(0))))
    ok(driver.cuMemAlloc(4))


def test_misaligned_address(gpu):
    f = gpu.function(FILL, "wild")
    gpu.launch(f, (1,), (1,), gpu.put(np.zeros(4, np.int32)) + 2, np.int64(0))
    assert int(driver.cuCtxSynchronize()[0]) == 716


def test_event_orders_two_streams(gpu, ok):
    a, b = ok(driver.cuStreamCreate(1)), ok(driver.cuStreamCreate(1))
    p = gpu.put(np.ones(1, np.int32))
    out = ok(driver.cuMemHostAlloc(4, 0))
    start, end = ok(driver.cuEventCreate(0)), ok(driver.cuEventCreate(0))
    ok(driver.cuEventRecord(start, a))
    gpu.launch(gpu.function(FILL, "slow"), (1,), (1,), p, np.int32(100000), stream=a)
    ok(driver.cuEventRecord(end, a))
    assert int(driver.cuEventQuery(end)[0]) == 600
    ok(driver.cuStreamWaitEvent(b, end, 0))
    ok(driver.cuMemcpyDtoHAsync(out, p, 4, b))
    ok(driver.cuStreamSynchronize(b))
    assert ctypes.c_int.from_address(int(out)).value not in (0, 1)
    assert ok(driver.cuEventElapsedTime(start, end)) > 0.1


@pytest.mark.parametrize("number,name", [(7, "programmaticEvent"), (12, "launchCompletionEvent")])
def test_an_event_that_a_launch_records(gpu, ok, number, name):
    p, f = gpu.put(np.ones(1, np.int32)), gpu.function(FILL, "slow")
    event, config, attribute = ok(driver.cuEventCreate(2)), driver.CUlaunchConfig(), driver.CUlaunchAttribute()
    attribute.id = driver.CUlaunchAttributeID(number)
    getattr(attribute.value, name).event = event
    config.gridDimX = config.gridDimY = config.gridDimZ = config.blockDimX = config.blockDimY = config.blockDimZ = 1
    config.attrs, config.numAttrs = [attribute], 1
    ok(driver.cuLaunchKernelEx(config, f, ((p, 100000), (ctypes.c_void_p, ctypes.c_int)), 0))
    assert int(driver.cuEventQuery(event)[0]) == 600
    gpu.sync()
    ok(driver.cuEventQuery(event))


@pytest.mark.parametrize("target,version", [("sm_75", 75), ("sm_90a", 90), ("sm_52, debug", 52)])
def test_a_kernel_says_what_it_was_compiled_for(gpu, ok, target, version):
    """CUB takes the number of threads and items from it: another answer, and most of a scan is left out."""
    module = ok(driver.cuModuleLoadData(f".version 8.4\n.target {target}\n.address_size 64\n.visible .entry k() {{ ret; }}\0".encode()))
    f = ok(driver.cuModuleGetFunction(module, b"k"))
    assert [ok(driver.cuFuncGetAttribute(driver.CUfunction_attribute(number), f)) for number in (5, 6)] == [version, 90]


def test_text_for_a_newer_card_is_refused(gpu, capfd):
    body = ".version 8.7\n.target sm_100\n.address_size 64\n.visible .entry k() { ret; }\0"
    assert int(driver.cuModuleLoadData(body.encode())[0]) == 218
    assert "PTX line 2: '.target sm_100' is for a newer card than this one, sm_90" in capfd.readouterr().err


def test_legacy_stream_waits_for_blocking_streams(gpu, ok):
    s, order = ok(driver.cuStreamCreate(0)), []
    slow = CALLBACK(lambda _: (time.sleep(0.1), order.append("blocking")))
    quick = CALLBACK(lambda _: order.append("legacy"))
    ok(driver.cuLaunchHostFunc(s, driver.CUhostFn(ctypes.cast(slow, ctypes.c_void_p).value), 0))
    ok(driver.cuLaunchHostFunc(0, driver.CUhostFn(ctypes.cast(quick, ctypes.c_void_p).value), 0))
    gpu.sync()
    assert order == ["blocking", "legacy"]


def test_capture_fork_and_replay(gpu, ok):
    a, b = ok(driver.cuStreamCreate(1)), ok(driver.cuStreamCreate(1))
    e1, e2 = ok(driver.cuEventCreate(2)), ok(driver.cuEventCreate(2))
    add, n = gpu.function(FILL, "add"), np.int32(64)
    p, q = gpu.put(np.zeros(64, np.int32)), gpu.put(np.zeros(64, np.int32))
    ok(driver.cuStreamBeginCapture(a, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))
    gpu.launch(add, (1,), (64,), p, n, stream=a)
    ok(driver.cuEventRecord(e1, a))
    ok(driver.cuStreamWaitEvent(b, e1, 0))
    ok(driver.cuMemcpyDtoDAsync(q, p, 256, b))
    ok(driver.cuEventRecord(e2, b))
    ok(driver.cuStreamWaitEvent(a, e2, 0))
    gpu.launch(add, (1,), (64,), p, n, stream=a)
    graph = ok(driver.cuStreamEndCapture(a))
    assert ok(driver.cuGraphGetNodes(graph, 10))[1] == 3
    run = ok(driver.cuGraphInstantiate(graph, 0))
    np.testing.assert_array_equal(gpu.get(p, np.zeros(64, np.int32)), 0)
    for _ in range(3):
        ok(driver.cuGraphLaunch(run, a))
    gpu.sync()
    np.testing.assert_array_equal(gpu.get(p, np.zeros(64, np.int32)), 6)
    np.testing.assert_array_equal(gpu.get(q, np.zeros(64, np.int32)), 5)


def test_capture_refuses_what_would_block(gpu, ok):
    s = ok(driver.cuStreamCreate(1))
    ok(driver.cuStreamBeginCapture(s, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))
    assert int(driver.cuStreamSynchronize(s)[0]) == 900
    assert int(driver.cuStreamEndCapture(s)[0]) == 901
    ok(driver.cuStreamSynchronize(s))


def test_pool_allocations(gpu, ok):
    s = ok(driver.cuStreamCreate(1))
    for _ in range(20):
        p = ok(driver.cuMemAllocAsync(100 << 20, s))
        ok(driver.cuMemsetD8Async(p, 1, 1000, s))
        ok(driver.cuMemFreeAsync(p, s))
    ok(driver.cuStreamSynchronize(s))
    assert ok(driver.cuMemGetInfo())[0] == 512 << 20


def test_a_pool_keeps_what_its_threshold_allows(gpu, ok):
    kinds = driver.CUmemPool_attribute
    props = driver.CUmemPoolProps()
    props.allocType = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    props.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    pool, s, free = ok(driver.cuMemPoolCreate(props)), ok(driver.cuStreamCreate(1)), ok(driver.cuMemGetInfo())[0]

    def mib() -> tuple[int, ...]:
        """Used, reserved, the most of each, and what the card misses."""
        names = "USED_MEM_CURRENT", "RESERVED_MEM_CURRENT", "USED_MEM_HIGH", "RESERVED_MEM_HIGH"
        told = [int(ok(driver.cuMemPoolGetAttribute(pool, getattr(kinds, f"CU_MEMPOOL_ATTR_{name}")))) for name in names]
        return *(n >> 20 for n in told), (free - ok(driver.cuMemGetInfo())[0]) >> 20

    def take_and_free(sizes: list[int]) -> None:
        pieces = [ok(driver.cuMemAllocFromPoolAsync(n << 20, pool, s)) for n in sizes]
        for p in pieces:
            ok(driver.cuMemFreeAsync(p, s))

    p = ok(driver.cuMemAllocFromPoolAsync(40 << 20, pool, s))
    take_and_free([20])
    ok(driver.cuStreamSynchronize(s))
    assert mib() == (40, 40, 60, 60, 40)  # the threshold is 0
    ok(driver.cuMemPoolSetAttribute(pool, kinds.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, driver.cuuint64_t(100 << 20)))
    take_and_free([80])
    ok(driver.cuStreamSynchronize(s))
    assert mib() == (40, 100, 120, 120, 100)
    take_and_free([30, 30])  # of what it has
    ok(driver.cuCtxSynchronize())
    assert mib() == (40, 100, 120, 120, 100)
    ok(driver.cuMemPoolTrimTo(pool, 70 << 20))
    assert mib() == (40, 70, 120, 120, 70)
    for kind in (kinds.CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, kinds.CU_MEMPOOL_ATTR_USED_MEM_HIGH):
        ok(driver.cuMemPoolSetAttribute(pool, kind, driver.cuuint64_t(0)))
    ok(driver.cuMemPoolTrimTo(pool, 0))
    assert mib() == (40, 40, 40, 70, 40)
    ok(driver.cuMemPoolDestroy(pool))
    assert free - ok(driver.cuMemGetInfo())[0] == 40 << 20  # its allocation lives on
    ok(driver.cuMemFreeAsync(p, s))
    ok(driver.cuStreamSynchronize(s))
    assert ok(driver.cuMemGetInfo())[0] == free


def test_threads_share_the_device(gpu, ok):
    add, n, failures = gpu.function(FILL, "add"), np.int32(64), []

    def work() -> None:
        try:
            ok(driver.cuCtxSetCurrent(gpu.context))
            s, p = ok(driver.cuStreamCreate(0)), gpu.put(np.zeros(64, np.int32))
            for _ in range(20):
                gpu.launch(add, (1,), (64,), p, n, stream=int(s))
            ok(driver.cuStreamSynchronize(s))
            np.testing.assert_array_equal(gpu.get(p, np.zeros(64, np.int32)), 20)
            ok(driver.cuStreamDestroy(s))
        except BaseException as e:  # noqa: BLE001 - reported by the main thread
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not failures, failures[0]


def test_errors_of_modules(gpu, capfd):
    assert int(driver.cuModuleLoadData(b"hello")[0]) == 200  # no PTX at all
    bad = b".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry k() {\n .reg .b32 %r<3>;\n frob.s32 %r1, %r2;\n ret;\n}\n\0"
    assert int(driver.cuModuleLoadData(bad)[0]) == 218
    assert "line 6, kernel k: instruction 'frob.s32'" in capfd.readouterr().err
    assert int(driver.cuModuleGetFunction(driver.CUmodule(0x1234), b"x")[0]) == 400
