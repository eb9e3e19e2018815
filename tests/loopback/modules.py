# SPDX-License-Identifier: Apache-2.0
"""A CUDA process for test_modules.py in plain ctypes, `modules.py WHAT`; ends with a traceback where something differs."""

from __future__ import annotations

import ctypes
import os
import random
import struct
import sys
import threading
from ctypes import byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_uint64, c_void_p

cu = ctypes.CDLL("libcuda.so.1")

SAXPY = b"""
.version 7.0
.target sm_52
.address_size 64
.global .align 4 .f32 scale;
.visible .entry saxpy(.param .u64 x, .param .u64 y, .param .f32 a, .param .u32 n)
{
    .reg .pred %p<2>;
    .reg .f32 %f<6>;
    .reg .b32 %r<6>;
    .reg .b64 %rd<8>;
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [y];
    ld.param.f32 %f1, [a];
    ld.param.u32 %r1, [n];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p1, %r5, %r1;
    @%p1 bra DONE;
    cvta.to.global.u64 %rd3, %rd1;
    cvta.to.global.u64 %rd4, %rd2;
    mul.wide.u32 %rd5, %r5, 4;
    add.s64 %rd6, %rd3, %rd5;
    add.s64 %rd7, %rd4, %rd5;
    ld.global.f32 %f2, [%rd6];
    ld.global.f32 %f3, [%rd7];
    fma.rn.f32 %f4, %f2, %f1, %f3;
    st.global.f32 [%rd7], %f4;
DONE:
    ret;
}
\0"""


def call(name: str, *args: object, want: int = 0) -> None:
    got = getattr(cu, name)(*args)
    assert got == want, f"{name}: {got}, expected {want}"


def retain(device: int = 0) -> c_void_p:
    context = c_void_p()
    call("cuInit", 0)
    call("cuDevicePrimaryCtxRetain", byref(context), device)
    call("cuCtxSetCurrent", context)
    return context


def launch(function: c_void_p, *params: object, grid: int = 4, block: int = 64, want: int = 0) -> None:
    pointers = (c_void_p * max(len(params), 1))(*(ctypes.addressof(p) for p in params))  # type: ignore[arg-type]
    call("cuLaunchKernel", function, grid, 1, 1, block, 1, 1, 0, None, pointers, None, want=want)


def check_saxpy(function: c_void_p, n: int = 200, packed: bool = False) -> None:
    x = [random.uniform(-1, 1) for _ in range(n)]
    y = [random.uniform(-1, 1) for _ in range(n)]
    a, dx, dy = 2.5, c_uint64(), c_uint64()
    back = (c_float * n)()
    for pointer, data in ((dx, x), (dy, y)):
        call("cuMemAlloc_v2", byref(pointer), c_size_t(4 * n))
        call("cuMemcpyHtoD_v2", pointer, (c_float * n)(*data), c_size_t(4 * n))
    if packed:
        buffer = ctypes.create_string_buffer(struct.pack("<QQfI", dx.value, dy.value, a, n), 24)
        size = c_size_t(24)
        extra = (c_void_p * 5)(1, ctypes.addressof(buffer), 2, ctypes.addressof(size), 0)
        call("cuLaunchKernel", function, 4, 1, 1, 64, 1, 1, 0, None, None, extra)
    else:
        launch(function, dx, dy, c_float(a), c_uint(n))
    call("cuMemcpyDtoH_v2", back, dy, c_size_t(4 * n))
    assert all(abs(back[i] - (a * x[i] + y[i])) < 1e-5 for i in range(n))
    for pointer in (dx, dy):
        call("cuMemFree_v2", pointer)


def module() -> None:
    retain()
    mod, function, again = c_void_p(), c_void_p(), c_void_p()
    call("cuModuleLoadData", byref(mod), SAXPY)
    call("cuModuleGetFunction", byref(function), mod, b"saxpy")
    call("cuModuleGetFunction", byref(again), mod, b"saxpy")
    assert function.value == again.value
    call("cuModuleGetFunction", byref(again), mod, b"absent", want=500)
    offset, size = c_size_t(), c_size_t()
    layout = []
    for i in range(4):
        call("cuFuncGetParamInfo", function, c_size_t(i), byref(offset), byref(size))
        layout.append((offset.value, size.value))
    assert layout == [(0, 8), (8, 8), (16, 4), (20, 4)], layout
    call("cuFuncGetParamInfo", function, c_size_t(4), byref(offset), byref(size), want=1)
    for _ in range(3):  # the first launch is a round trip, the others are one way
        check_saxpy(function)
        check_saxpy(function, packed=True)
    launch(function, want=1, grid=0)
    call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, None, None, want=1)
    pointer, bytes_ = c_uint64(), c_size_t()
    call("cuModuleGetGlobal_v2", byref(pointer), byref(bytes_), mod, b"scale")
    assert bytes_.value == 4
    call("cuMemsetD8_v2", pointer, ctypes.c_ubyte(1), c_size_t(4))
    call("cuModuleGetGlobal_v2", byref(pointer), byref(bytes_), mod, b"absent", want=500)
    call("cuModuleUnload", mod)
    call("cuModuleUnload", mod, want=400)
    launch(function, want=400)


def attributes() -> None:
    retain()
    mod, function, value, blocks = c_void_p(), c_void_p(), c_int(), c_int()
    call("cuModuleLoadData", byref(mod), SAXPY)
    call("cuModuleGetFunction", byref(function), mod, b"saxpy")
    for _ in range(2):
        call("cuFuncGetAttribute", byref(value), 0, function)
        assert value.value == 1024, value.value
    for _ in range(2):
        call("cuOccupancyMaxActiveBlocksPerMultiprocessor", byref(blocks), function, 256, c_size_t(0))
        assert blocks.value > 0
    grid, block = c_int(), c_int()
    call("cuOccupancyMaxPotentialBlockSize", byref(grid), byref(block), function, None, c_size_t(0), 0)
    assert grid.value > 0 and block.value > 0


def library() -> None:
    call("cuInit", 0)
    lib, kernel, function, mod, name = c_void_p(), c_void_p(), c_void_p(), c_void_p(), c_char_p()
    options, values = (c_int * 1)(1), (c_void_p * 1)(1)
    # no context is current, nor any connection made
    call("cuLibraryLoadData", byref(lib), SAXPY, None, None, 0, options, values, 1)
    call("cuLibraryGetModule", byref(mod), lib, want=201)
    retain()
    call("cuLibraryGetKernel", byref(kernel), lib, b"saxpy")
    call("cuKernelGetName", byref(name), kernel)
    assert name.value == b"saxpy"
    check_saxpy(kernel)  # a CUkernel is accepted where a CUfunction is
    call("cuKernelGetFunction", byref(function), kernel)
    check_saxpy(function)
    call("cuLibraryGetModule", byref(mod), lib)
    call("cuModuleGetFunction", byref(function), mod, b"saxpy")
    check_saxpy(function)
    other = c_void_p()
    threading.Thread(target=lambda: call("cuLibraryGetKernel", byref(other), lib, b"saxpy")).start()
    count, kernels = c_uint(), (c_void_p * 1)()
    call("cuLibraryGetKernelCount", byref(count), lib)
    assert count.value == 1
    call("cuLibraryEnumerateKernels", kernels, 1, lib)
    assert kernels[0] == kernel.value
    call("cuModuleGetFunctionCount", byref(count), mod)
    assert count.value == 1
    call("cuModuleEnumerateFunctions", kernels, 1, mod)
    check_saxpy(c_void_p(kernels[0]))
    call("cuModuleUnload", mod, want=800)
    call("cuLibraryUnload", lib)
    launch(kernel, want=400)


def errors() -> None:
    retain()
    mod = c_void_p()
    log = ctypes.create_string_buffer(4096)
    options = (c_int * 2)(5, 6)
    values = (c_void_p * 2)(ctypes.addressof(log), 4096)
    bad = b".version 7.0\n.target sm_52\n.address_size 64\n.visible .entry k() { nonsense; }\n\0"
    assert cu.cuModuleLoadDataEx(byref(mod), bad, 2, options, values) == 218
    assert log.value, "the compiler's message comes back"
    assert values[1] == len(log.value) or (values[1] or 0) >= len(log.value) > 0, values[1]
    assert cu.cuModuleLoadData(byref(mod), b"\x7fELF" + bytes(60)) != 0
    call("cuModuleLoad", byref(mod), b"/nonexistent", want=301)


def contexts() -> None:
    call("cuInit", 0)
    flags, active, current, device = c_uint(), c_int(), c_void_p(), c_int()
    call("cuDevicePrimaryCtxGetState", 0, byref(flags), byref(active))
    assert active.value == 0
    call("cuCtxGetDevice", byref(device), want=201)
    primary = retain()
    call("cuDevicePrimaryCtxGetState", 0, byref(flags), byref(active))
    assert active.value == 1
    number, other = c_uint64(), c_uint64()
    call("cuCtxGetId", None, byref(number))
    created = c_void_p()
    call("cuCtxCreate_v2", byref(created), 0, 0)
    call("cuCtxGetCurrent", byref(current))
    assert current.value == created.value
    call("cuCtxGetId", None, byref(other))
    assert other.value != number.value
    pointer = c_uint64()
    call("cuMemAlloc_v2", byref(pointer), c_size_t(4096))
    call("cuMemFree_v2", pointer)
    call("cuCtxDestroy_v2", created)
    call("cuCtxGetCurrent", byref(current))
    assert current.value == primary.value
    call("cuCtxDestroy_v2", created, want=201)
    seen = []
    thread = threading.Thread(target=lambda: seen.append(cu.cuCtxSynchronize()))
    thread.start()
    thread.join()
    assert seen == [201], seen


def reset() -> None:
    primary = retain()
    mod, function, number, again = c_void_p(), c_void_p(), c_uint64(), c_uint64()
    for _ in range(3):
        call("cuCtxGetId", None, byref(number))
        call("cuModuleLoadData", byref(mod), SAXPY)
        call("cuModuleGetFunction", byref(function), mod, b"saxpy")
        check_saxpy(function)
        call("cuDevicePrimaryCtxReset_v2", 0)
        launch(function, want=400)
        call("cuMemAlloc_v2", byref(again), c_size_t(4096), want=709)
        assert retain().value == primary.value
        call("cuCtxGetId", None, byref(again))
        assert again.value != number.value
    for _ in range(4):
        call("cuDevicePrimaryCtxRelease_v2", 0)
    call("cuDevicePrimaryCtxRelease_v2", 0, want=201)


def threads() -> None:
    primary = retain()
    mod, function = c_void_p(), c_void_p()
    call("cuModuleLoadData", byref(mod), SAXPY)
    call("cuModuleGetFunction", byref(function), mod, b"saxpy")
    failed = []

    def work() -> None:
        try:
            call("cuCtxSetCurrent", primary)
            for _ in range(5):
                check_saxpy(function)
        except AssertionError as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed, failed


def large() -> None:
    """An image of 8 MiB: text with a long comment."""
    retain()
    mod, function = c_void_p(), c_void_p()
    call("cuModuleLoadData", byref(mod), SAXPY[:-1] + b"//" + b"x" * (8 << 20) + b"\n\0")
    call("cuModuleGetFunction", byref(function), mod, b"saxpy")
    check_saxpy(function)


def peers() -> None:
    """Two vGPUs of one card."""
    contexts_ = [retain(0), retain(1)]
    can = c_int()
    call("cuDeviceCanAccessPeer", byref(can), 0, 1)
    assert can.value == 1
    call("cuDeviceCanAccessPeer", byref(can), 1, 1)
    assert can.value == 0
    call("cuCtxEnablePeerAccess", contexts_[0], 0)
    call("cuCtxEnablePeerAccess", contexts_[0], 0, want=704)
    call("cuCtxDisablePeerAccess", contexts_[0])
    for context in contexts_:
        mod, function = c_void_p(), c_void_p()
        call("cuCtxSetCurrent", context)
        call("cuModuleLoadData", byref(mod), SAXPY)
        call("cuModuleGetFunction", byref(function), mod, b"saxpy")
        check_saxpy(function)


def devices() -> None:
    """Looking takes nothing: no allocation, no context."""
    count, device, value = c_int(), c_int(), c_int()
    name, bus = ctypes.create_string_buffer(100), ctypes.create_string_buffer(20)
    bytes_ = c_size_t()
    call("cuDeviceGetCount", byref(count), want=3)
    call("cuInit", 1, want=1)
    call("cuInit", 0)
    call("cuDeviceGetCount", byref(count))
    assert count.value == int(os.environ.get("ORION_VGPU", "1"))
    call("cuDeviceGet", byref(device), count.value, want=101)
    call("cuDeviceGetName", name, 100, 0)
    assert name.value == b"Orion Simulated GPU", name.value
    call("cuDeviceTotalMem_v2", byref(bytes_), 0)
    call("cuDeviceGetPCIBusId", bus, 20, 0)
    call("cuDeviceGetByPCIBusId", byref(device), bus)
    assert device.value == 0
    for attribute in (88, 89, 116, 124, 128, 132):
        call("cuDeviceGetAttribute", byref(value), attribute, 0)
        assert value.value == 0
    call("cuDeviceGetAttribute", byref(value), 0, 0, want=1)
    text = c_char_p()
    call("cuGetErrorName", 700, byref(text))
    assert text.value == b"CUDA_ERROR_ILLEGAL_ADDRESS"
    call("cuGetErrorString", 12345, byref(text), want=1)


def fault() -> None:
    """An illegal address is told at the next wait, then by every call, until the device is reset."""
    retain()
    mod, bad, pointer = c_void_p(), c_void_p(), c_uint64()
    call("cuModuleLoadData", byref(mod), SAXPY)
    call("cuModuleGetFunction", byref(bad), mod, b"saxpy")
    launch(bad, c_uint64(16), c_uint64(16), c_float(1), c_uint(1))
    call("cuCtxSynchronize", want=700)
    call("cuMemAlloc_v2", byref(pointer), c_size_t(4096), want=700)
    launch(bad, c_uint64(16), c_uint64(16), c_float(1), c_uint(1), want=700)
    call("cuDevicePrimaryCtxReset_v2", 0)
    module()


def quota() -> None:
    """A reset gives back what was allocated: three times most of the vGPU's memory."""
    pointer, total = c_uint64(), c_size_t()
    for _ in range(3):
        retain()
        call("cuDeviceTotalMem_v2", byref(total), 0)
        call("cuMemAlloc_v2", byref(pointer), c_size_t(total.value * 3 // 4))
        call("cuMemAlloc_v2", byref(pointer), c_size_t(total.value * 3 // 4), want=2)
        call("cuDevicePrimaryCtxReset_v2", 0)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
