# SPDX-License-Identifier: Apache-2.0
"""A CUDA process with two vGPUs for test_two_vgpus.py, `two.py WHAT`; ends with a traceback where something differs."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

cu = ctypes.CDLL("libcuda.so.1")
MIB = 1 << 20
KEPT = 32 * MIB
GMEM = int(os.environ["ORION_GMEM"]) * MIB
ADD = b"""
.version 7.0
.target sm_52
.address_size 64
.visible .entry add(.param .u64 to, .param .u64 from)
{
    .reg .b32 %r<4>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [to];
    ld.param.u64 %rd2, [from];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    ld.global.u32 %r2, [%rd4];
    ld.global.u32 %r3, [%rd5];
    add.u32 %r2, %r2, %r3;
    st.global.u32 [%rd4], %r2;
    ret;
}
\0"""


def call(name: str, *args: object, want: int = 0) -> None:
    got = getattr(cu, name)(*args)
    assert got == want, f"{name}: {got}, expected {want}"


def number(name: str, *args: object) -> int:
    value = c_int(-1)
    call(name, byref(value), *args)
    return value.value


def context(device: int) -> c_void_p:
    """The device's primary context, made current."""
    made = c_void_p()
    call("cuDevicePrimaryCtxRetain", byref(made), device)
    call("cuCtxSetCurrent", made)
    return made


def alloc(n_bytes: int, want: int = 0) -> c_uint64:
    pointer = c_uint64()
    call("cuMemAlloc_v2", byref(pointer), c_size_t(n_bytes), want=want)
    return pointer


def filled(value: int, count: int = 64) -> c_uint64:
    pointer = alloc(4 * count)
    call("cuMemsetD32_v2", pointer, c_uint(value), c_size_t(count))
    return pointer


def read(pointer: c_uint64, count: int = 64) -> list[int]:
    back = (c_uint * count)()
    call("cuMemcpyDtoH_v2", back, pointer, c_size_t(4 * count))
    return list(back)


def adder() -> Callable[[c_uint64, c_uint64], None]:
    """`to[i] += from[i]` for 64 values, in the current context."""
    module, function = c_void_p(), c_void_p()
    call("cuModuleLoadData", byref(module), c_char_p(ADD))
    call("cuModuleGetFunction", byref(function), module, b"add")

    def launch(to: c_uint64, source: c_uint64) -> None:
        params = (c_void_p * 2)(ctypes.addressof(to), ctypes.addressof(source))
        call("cuLaunchKernel", function, 1, 1, 1, 64, 1, 1, 0, None, params, None)

    return launch


def state(device: int) -> int:
    flags, active = c_uint(), c_int()
    call("cuDevicePrimaryCtxGetState", device, byref(flags), byref(active))
    return active.value


def memory() -> tuple[int, int]:
    free, total = c_size_t(), c_size_t()
    call("cuMemGetInfo_v2", byref(free), byref(total))
    return free.value, total.value


def is_free() -> bool:
    """All but what a card's driver keeps for itself."""
    free, total = memory()
    return total == GMEM and GMEM - KEPT <= free <= GMEM


# ---- what is tested ----


def devices() -> list[tuple[str, str]]:
    """Bus id and UUID of each, in order."""
    found = []
    for device in range(number("cuDeviceGetCount")):
        bus, uuid = ctypes.create_string_buffer(20), ctypes.create_string_buffer(16)
        call("cuDeviceGetPCIBusId", bus, 20, device)
        call("cuDeviceGetUuid_v2", uuid, device)
        assert number("cuDeviceGetByPCIBusId", bus) == device
        assert number("cuDeviceGetAttribute", 33, device) == int(bus.value.split(b":")[1], 16)
        found.append((bus.value.decode(), uuid.raw.hex()))
    return found


def identity() -> None:
    found = devices()
    assert len(found) == 2 and found[0][0] != found[1][0] and found[0][1] != found[1][1], found
    for device in range(2):
        total = c_size_t()
        call("cuDeviceTotalMem_v2", byref(total), device)
        assert total.value == GMEM
    for device in range(2):
        context(device)
        assert is_free(), memory()
        assert number("cuCtxGetDevice") == device
    assert devices() == found


def show() -> None:
    """What is visible, for the test to compare."""
    for bus, uuid in devices():
        print(bus, uuid)


def hold() -> None:
    """Keeps both until standard input ends."""
    for device in range(number("cuDeviceGetCount")):
        context(device)
    print("READY", flush=True)
    sys.stdin.read()


def limits() -> None:
    context(0)
    alloc(GMEM + 1, want=2)
    most = alloc(GMEM * 3 // 4)
    alloc(GMEM // 2, want=2)
    context(1)
    assert is_free()
    alloc(GMEM * 3 // 4)
    alloc(GMEM // 2, want=2)
    context(0)
    call("cuMemFree_v2", most)
    assert is_free()
    alloc(GMEM * 3 // 4)


def work(device: int, rounds: int = 50) -> None:
    context(device)
    add, to, one = adder(), filled(device), filled(device + 1)
    for _ in range(rounds):
        add(to, one)
    assert read(to) == [device + rounds * (device + 1)] * 64
    call("cuMemFree_v2", to)
    call("cuMemFree_v2", one)


def one_thread() -> None:
    contexts = [context(0), context(1)]
    parts = []
    for device, current in enumerate(contexts):
        call("cuCtxSetCurrent", current)
        parts.append((adder(), filled(0), filled(device + 3)))
    for _ in range(100):
        for current, (add, to, source) in zip(contexts, parts):
            call("cuCtxPushCurrent_v2", current)
            add(to, source)
            call("cuCtxPopCurrent_v2", byref(c_void_p()))
    for device, (current, (_, to, _)) in enumerate(zip(contexts, parts)):
        call("cuCtxSetCurrent", current)
        assert read(to) == [100 * (device + 3)] * 64


def two_threads() -> None:
    failed: list[BaseException] = []

    def body(device: int) -> None:
        try:
            for _ in range(5):
                work(device)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=body, args=(n % 2,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


def peers() -> None:
    contexts = [context(0), context(1)]
    pointers = []
    for device, current in enumerate(contexts):
        call("cuCtxSetCurrent", current)
        pointers.append(filled(100 + device))
        assert number("cuDeviceCanAccessPeer", device, 1 - device) == 1
        assert number("cuDeviceCanAccessPeer", device, device) == 0
        call("cuCtxEnablePeerAccess", contexts[1 - device], 0)
        call("cuCtxEnablePeerAccess", contexts[1 - device], 0, want=704)
    a, b = pointers
    adder()(b, a)  # a kernel of the second reads the first one's memory
    assert read(b) == [201] * 64
    call("cuMemcpyPeer", a, contexts[0], b, contexts[1], c_size_t(128))
    assert read(a) == [201] * 32 + [100] * 32
    stream = c_void_p()
    call("cuStreamCreate", byref(stream), 1)
    call("cuMemsetD32Async", b, c_uint(9), c_size_t(64), stream)
    call("cuMemcpyPeerAsync", a, contexts[0], b, contexts[1], c_size_t(256), stream)
    call("cuStreamSynchronize", stream)
    call("cuMemsetD32_v2", b, c_uint(0), c_size_t(64))
    call("cuMemcpyDtoD_v2", b, a, c_size_t(256))
    assert read(b) == [9] * 64
    owner = c_int(-1)
    for device, pointer in enumerate(pointers):
        call("cuPointerGetAttribute", byref(owner), 9, pointer)
        assert owner.value == device
    call("cuCtxDisablePeerAccess", contexts[0])
    call("cuCtxDisablePeerAccess", contexts[0], want=705)


def reset() -> None:
    context(0)
    alloc(GMEM * 3 // 4)
    second = context(1)
    kept = filled(77)
    first = c_void_p()
    call("cuDevicePrimaryCtxRetain", byref(first), 0)
    call("cuCtxEnablePeerAccess", first, 0)
    call("cuDevicePrimaryCtxReset_v2", 0)
    assert (state(0), state(1)) == (0, 1)
    assert read(kept) == [77] * 64
    context(0)
    assert is_free(), memory()
    work(0)
    call("cuDevicePrimaryCtxRetain", byref(first), 0)
    call("cuCtxSetCurrent", second)
    call("cuCtxEnablePeerAccess", first, 0)
    call("cuDevicePrimaryCtxReset_v2", 1)
    assert (state(0), state(1)) == (1, 0)
    work(1)
    work(0)


def states() -> None:
    assert (state(0), state(1)) == (0, 0)
    context(1)
    assert (state(0), state(1)) == (0, 1)
    context(0)
    context(0)
    call("cuDevicePrimaryCtxRelease_v2", 1)
    assert (state(0), state(1)) == (1, 0)
    call("cuDevicePrimaryCtxRelease_v2", 1, want=201)
    call("cuDevicePrimaryCtxRelease_v2", 0)
    assert (state(0), state(1)) == (1, 0)
    call("cuDevicePrimaryCtxRelease_v2", 0)
    assert (state(0), state(1)) == (0, 0)
    work(1)
    assert (state(0), state(1)) == (0, 1)


class PeerCopy(ctypes.Structure):
    """CUDA_MEMCPY3D_PEER."""

    _fields_ = [
        (side + field, kind)
        for side in ("src", "dst")
        for field, kind in (
            ("X", c_size_t), ("Y", c_size_t), ("Z", c_size_t), ("Lod", c_size_t), ("Type", c_uint), ("Host", c_void_p),
            ("Device", c_uint64), ("Array", c_void_p), ("Context", c_void_p), ("Pitch", c_size_t), ("Height", c_size_t),
        )
    ] + [("width", c_size_t), ("height", c_size_t), ("depth", c_size_t)]  # fmt: skip


def arrays() -> None:
    """Copies between arrays of the two, and memory of one and an array of the other."""
    describe = (c_uint64 * 3)(32, 2, 0x20 | 1 << 32)  # CUDA_ARRAY_DESCRIPTOR: 32 x 2 floats
    contexts, made = [context(0), context(1)], [c_void_p(), c_void_p()]
    for mine, array in zip(contexts, made, strict=True):
        call("cuCtxSetCurrent", mine)
        call("cuArrayCreate_v2", byref(array), describe)
    source, end = filled(0x3F800000), filled(0)
    call("cuCtxSetCurrent", contexts[0])
    to_first = PeerCopy(srcType=2, srcDevice=source.value, srcContext=contexts[1].value, srcPitch=128, dstType=3,
                        dstArray=made[0].value, dstContext=contexts[0].value, width=128, height=2, depth=1)  # fmt: skip
    call("cuMemcpy3DPeer", byref(to_first))
    over = PeerCopy(srcType=3, srcArray=made[0].value, srcContext=contexts[0].value, srcX=64, dstType=3,
                    dstArray=made[1].value, dstContext=contexts[1].value, dstY=1, width=64, height=1, depth=1)  # fmt: skip
    call("cuMemcpy3DPeerAsync", byref(over), None)
    back = PeerCopy(srcType=3, srcArray=made[1].value, srcContext=contexts[1].value, srcY=1, dstType=2, dstDevice=end.value,
                    dstContext=contexts[1].value, dstPitch=128, width=64, height=1, depth=1)  # fmt: skip
    call("cuMemcpy3DPeer", byref(back))
    assert read(end)[:17] == [0x3F800000] * 16 + [0], read(end)
    over.dstContext = None
    call("cuMemcpy3DPeer", byref(over), want=201)
    over.dstContext, over.srcArray = contexts[1].value, made[0].value + 1600
    call("cuMemcpy3DPeer", byref(over), want=400)


def fault() -> None:
    """On one card a fault ends both, and a new process is unharmed."""
    first = context(0)
    kept = filled(5)
    context(1)
    adder()(c_uint64(0x10), c_uint64(0x10))
    call("cuCtxSynchronize", want=700)
    call("cuCtxSetCurrent", first)
    call("cuMemcpyDtoH_v2", (c_uint * 64)(), kept, c_size_t(256), want=700)


if __name__ == "__main__":
    call("cuInit", 0)
    globals()[sys.argv[1]]()
