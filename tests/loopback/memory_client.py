# SPDX-License-Identifier: Apache-2.0
"""A CUDA process for the memory tests, in plain ctypes: `memory_client.py CASE`.

Prints OK or what was wrong; LACKING before OK where the driver lacks what the case needs.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from ctypes import byref, c_char, c_int, c_size_t, c_uint, c_uint64, c_void_p

cu = ctypes.CDLL("libcuda.so.1")
SIZES = (1, 3, 255, 900, 901, 4097, 32768, 32769, 65537, 1 << 20, (1 << 20) + 13, (3 << 20) + 5, 20 << 20)
HOST_FN = ctypes.CFUNCTYPE(None, c_void_p)


def call(name: str, *args: object) -> None:
    result = getattr(cu, name)(*args)
    if result:
        sys.exit(f"{name}: {result}")


def carried(name: str, *args: object) -> bool:
    """As call, but false where the driver lacks the function, as the simulated one may."""
    result = getattr(cu, name)(*args)
    if result not in (0, 801):
        sys.exit(f"{name}: {result}")
    return result == 0


def answers(name: str, want: int, *args: object) -> None:
    result = getattr(cu, name)(*args)
    if result != want:
        sys.exit(f"{name} answered {result} instead of {want}")


def setup() -> None:
    context, device = c_void_p(), c_int()
    call("cuInit", 0)
    call("cuDeviceGet", byref(device), 0)
    call("cuDevicePrimaryCtxRetain", byref(context), device)
    call("cuCtxSetCurrent", context)


def device(size: int) -> int:
    pointer = c_uint64()
    call("cuMemAlloc_v2", byref(pointer), c_size_t(size))
    return pointer.value


def pinned(size: int) -> int:
    pointer = c_void_p()
    call("cuMemHostAlloc", byref(pointer), c_size_t(size), 0)
    assert pointer.value
    return pointer.value


def stream() -> c_void_p:
    made = c_void_p()
    call("cuStreamCreate", byref(made), 1)
    return made


def pattern(size: int, seed: int = 1) -> bytes:
    block = bytes((i * 7 + seed * 13 + (i >> 8)) & 255 for i in range(min(size, 65521)))
    return (block * (size // len(block) + 1))[:size]


def expect(got: bytes, want: bytes, what: str) -> None:
    if got != want:
        at = next(i for i, (a, b) in enumerate(zip(got, want)) if a != b)
        sys.exit(f"{what}: byte {at} is {got[at]}, not {want[at]}")


def copies() -> None:
    """Pageable memory there and back, synchronous and in a stream, at odd offsets."""
    room = max(SIZES) + 64
    d, s = device(room), stream()
    for n, size in enumerate(SIZES):
        data, off = pattern(size, n), n % 17
        source = (c_char * size).from_buffer_copy(data)
        back = (c_char * size)()
        call("cuMemcpyHtoD_v2", c_uint64(d + off), source, c_size_t(size))
        call("cuMemcpyDtoH_v2", back, c_uint64(d + off), c_size_t(size))
        expect(back.raw, data, f"sync {size}")
        data = pattern(size, n + 100)
        source = (c_char * size).from_buffer_copy(data)
        call("cuMemcpyHtoDAsync_v2", c_uint64(d + off), source, c_size_t(size), s)
        ctypes.memset(source, 0, size)  # the source has been read when the call returns
        call("cuMemcpyDtoHAsync_v2", back, c_uint64(d + off), c_size_t(size), s)
        expect(back.raw, data, f"async {size}")
    call("cuMemFree_v2", c_uint64(d))


def pinned_copies() -> None:
    """Pinned memory, the unified call, and pointers that kernels could use."""
    size = (4 << 20) + 24
    a, b, d = pinned(size), pinned(size), device(size)
    s, flags, dptr = stream(), c_uint(), c_uint64()
    data = pattern(size, 3)
    ctypes.memmove(a, data, size)
    call("cuMemcpyHtoDAsync_v2", c_uint64(d), c_void_p(a), c_size_t(size), s)
    call("cuMemcpyAsync", c_uint64(b), c_uint64(d), c_size_t(size), s)
    call("cuStreamSynchronize", s)
    expect(ctypes.string_at(b, size), data, "pinned")
    call("cuMemHostGetFlags", byref(flags), c_void_p(a + 5))
    call("cuMemHostGetDevicePointer_v2", byref(dptr), c_void_p(a + 8), 0)
    assert dptr.value == a + 8, "device pointer of pinned memory"
    call("cuMemsetD8_v2", c_uint64(d), ctypes.c_ubyte(9), c_size_t(size))
    call("cuMemcpy", c_uint64(b + 1), c_uint64(d + 2), c_size_t(size - 2))
    expect(ctypes.string_at(b, 4), data[:1] + b"\x09" * 3, "unified")
    for p in (a, b):
        call("cuMemFreeHost", c_void_p(p))
    answers("cuMemFreeHost", 1, c_void_p(a))


def registered() -> None:
    size = (1 << 20) + 7
    data = pattern(size, 5)
    memory, d, s = (c_char * size)(), device(size), stream()
    call("cuMemHostRegister_v2", memory, c_size_t(size), 0)
    answers("cuMemHostRegister_v2", 712, memory, c_size_t(size), 0)
    ctypes.memmove(memory, data, size)
    call("cuMemcpyHtoDAsync_v2", c_uint64(d), memory, c_size_t(size), s)
    call("cuStreamSynchronize", s)
    ctypes.memset(memory, 0, size)
    call("cuMemcpyDtoHAsync_v2", memory, c_uint64(d), c_size_t(size), s)
    call("cuStreamSynchronize", s)
    expect(memory.raw, data, "registered")
    call("cuMemHostUnregister", memory)
    answers("cuMemHostUnregister", 713, memory)


def full() -> None:
    """A full region is out-of-memory, and pageable copies and later allocations go on."""
    held, p = [], c_void_p()
    while (result := cu.cuMemHostAlloc(byref(p), c_size_t(16 << 20), 0)) == 0:
        held.append(p.value)
    assert result == 2 and held, (result, held)
    copies()
    for at in held:
        call("cuMemFreeHost", c_void_p(at))
    small = [pinned(100) for _ in range(2000)]
    assert len(set(small)) == 2000 and all(at % 4096 == 0 for at in small)
    for at in small:
        call("cuMemFreeHost", c_void_p(at))
    call("cuMemFreeHost", c_void_p(pinned(32 << 20)))


class Copy2D(ctypes.Structure):
    _fields_ = [
        (side + field, kind)
        for side in ("src", "dst")
        for field, kind in (
            ("X", c_size_t), ("Y", c_size_t), ("Type", c_uint), ("Host", c_void_p), ("Device", c_uint64),
            ("Array", c_void_p), ("Pitch", c_size_t),
        )
    ] + [("Width", c_size_t), ("Height", c_size_t)]  # fmt: skip


def planes() -> None:
    """A rectangle out of pageable memory into pitched device memory and back."""
    d, pitch = c_uint64(), c_size_t()
    call("cuMemAllocPitch_v2", byref(d), byref(pitch), c_size_t(300), c_size_t(500), 4)
    host, back = pattern(1000 * 500, 8), (c_char * (1000 * 500))()
    source = (c_char * len(host)).from_buffer_copy(host)
    there = Copy2D(srcX=10, srcY=3, srcType=1, srcHost=ctypes.addressof(source), srcPitch=1000, dstType=2,
                   dstDevice=d.value, dstPitch=pitch.value, Width=300, Height=490)  # fmt: skip
    call("cuMemcpy2D_v2", byref(there))
    again = Copy2D(srcType=2, srcDevice=d.value, srcPitch=pitch.value, dstX=10, dstY=3, dstType=1,
                   dstHost=ctypes.addressof(back), dstPitch=1000, Width=300, Height=490)  # fmt: skip
    call("cuMemcpy2D_v2", byref(again))
    for y in range(490):
        at = (y + 3) * 1000 + 10
        expect(back.raw[at : at + 300], host[at : at + 300], f"row {y}")
    assert back.raw[:3010] == bytes(3010), "bytes outside the rectangle"
    again.srcDevice = d.value + (1 << 40)
    answers("cuMemcpy2D_v2", 1, byref(again))


def streams() -> None:
    """Two streams that hand a buffer over by an event."""
    size = 1 << 20
    d, a, b = device(size), stream(), stream()
    event, back = c_void_p(), pinned(size)
    call("cuEventCreate", byref(event), 0)
    for value in range(20):
        call("cuMemsetD8Async", c_uint64(d), ctypes.c_ubyte(value), c_size_t(size), a)
        call("cuEventRecord", event, a)
        call("cuStreamWaitEvent", b, event, 0)
        call("cuMemcpyDtoHAsync_v2", c_void_p(back), c_uint64(d), c_size_t(size), b)
        call("cuStreamSynchronize", b)
        expect(ctypes.string_at(back, size), bytes([value]) * size, f"turn {value}")
    call("cuEventQuery", event)
    call("cuEventDestroy_v2", event)
    answers("cuEventQuery", 400, event)
    call("cuStreamDestroy_v2", a)
    answers("cuStreamSynchronize", 400, a)


def quota() -> None:
    free, total, p = c_size_t(), c_size_t(), c_uint64()
    call("cuMemGetInfo_v2", byref(free), byref(total))
    answers("cuMemAlloc_v2", 2, byref(p), c_size_t(total.value + 1))
    d = device(64 << 20)
    left = c_size_t()
    call("cuMemGetInfo_v2", byref(left), byref(total))
    assert free.value - left.value == 64 << 20, (free.value, left.value)
    call("cuMemFree_v2", c_uint64(d))
    call("cuMemGetInfo_v2", byref(left), byref(total))
    assert free.value == left.value
    copies()


def wrong() -> None:
    """What native answers for pointers and handles that are none."""
    d, buffer, flags = device(1 << 20), (c_char * 64)(), c_uint()
    answers("cuMemcpyDtoH_v2", 1, buffer, c_uint64(d + (1 << 20) - 3), c_size_t(64))
    answers("cuMemcpyHtoD_v2", 1, c_uint64(0x1234), buffer, c_size_t(64))
    answers("cuMemFree_v2", 1, c_uint64(d + 256))
    answers("cuMemHostGetFlags", 1, byref(flags), buffer)
    answers("cuStreamSynchronize", 400, c_void_p(0x7777777))
    answers("cuMemHostAlloc", 0, byref(c_void_p()), c_size_t(0), 0)  # no bytes are NULL, as natively
    value = c_uint()
    answers("cuPointerGetAttribute", 1, byref(value), 2, c_uint64(ctypes.addressof(buffer)))
    call("cuPointerGetAttribute", byref(value), 2, c_uint64(d + 5))
    assert value.value == 2, "memory type of device memory"
    call("cuPointerGetAttribute", byref(value), 2, c_uint64(pinned(4096)))
    assert value.value == 1, "memory type of pinned memory"
    copies()


def pointers() -> None:
    """What the runtime asks of a pointer, into words that it has not cleared; inside an allocation too."""
    context, where, kind, managed, ordinal = c_uint64(), (c_uint64 * 2)(), c_uint(), c_uint(), c_int()
    wanted = (c_int * 6)(1, 2, 3, 4, 8, 9)
    ordinary = (c_char * 64)()
    for pointer, memory in ((pinned(8192) + 4100, 1), (device(8192) + 4100, 2), (ctypes.addressof(ordinary), 0)):
        for word in (context, kind, managed, ordinal):
            word.value = -1
        words = (context, kind, byref(where), byref(where, 8), managed, ordinal)
        data = (c_void_p * 6)(*(ctypes.cast(byref(w) if hasattr(w, "value") else w, c_void_p) for w in words))
        call("cuPointerGetAttributes", 6, wanted, data, c_uint64(pointer))
        assert (kind.value, managed.value) == (memory, 0), (kind.value, managed.value)
        assert list(where) == [pointer if memory else 0, pointer if memory == 1 else 0]
        assert bool(context.value) == bool(memory) and ordinal.value == (0 if memory else -2)


def callbacks() -> None:
    """More host functions than entries, in order, with the copies around them."""
    s, seen, d = stream(), [], device(4)
    back = pinned(4)
    inside = []

    @HOST_FN
    def note(data: int | None) -> None:
        seen.append(data or 0)

    @HOST_FN
    def look(data: int | None) -> None:
        inside.append((ctypes.string_at(back, 1), cu.cuMemFree_v2(c_uint64(d))))

    for i in range(200):
        call("cuLaunchHostFunc", s, note, c_void_p(i))
    call("cuMemsetD8Async", c_uint64(d), ctypes.c_ubyte(77), c_size_t(4), s)
    call("cuMemcpyDtoHAsync_v2", c_void_p(back), c_uint64(d), c_size_t(4), s)
    call("cuLaunchHostFunc", s, look, c_void_p(0))
    call("cuStreamSynchronize", s)
    assert seen == list(range(200)), seen
    assert inside == [(b"M", 800)], inside


def graph() -> None:
    """Capture with pageable memory on both ends and a host function; replays see new contents."""
    size, s, graph_, exec_ = 5000, stream(), c_void_p(), c_void_p()
    source, back, d = (c_char * size)(), (c_char * size)(), device(size)
    runs, status, nodes = [], c_int(), c_size_t()

    @HOST_FN
    def ran(data: int | None) -> None:
        runs.append(data)

    call("cuStreamBeginCapture_v2", s, 1)
    call("cuStreamIsCapturing", s, byref(status))
    assert status.value == 1
    call("cuMemcpyHtoDAsync_v2", c_uint64(d), source, c_size_t(size), s)
    call("cuMemsetD8Async", c_uint64(d), ctypes.c_ubyte(1), c_size_t(1), s)
    call("cuMemcpyDtoHAsync_v2", back, c_uint64(d), c_size_t(size), s)
    call("cuLaunchHostFunc", s, ran, c_void_p(5))
    call("cuStreamEndCapture", s, byref(graph_))
    if carried("cuGraphGetNodes", graph_, None, byref(nodes)):
        assert nodes.value == 4, nodes.value
        listed = (c_void_p * 4)()
        call("cuGraphGetNodes", graph_, listed, byref(nodes))
        assert len(set(listed)) == 4
    call("cuGraphInstantiateWithFlags", byref(exec_), graph_, c_uint64(0))
    for turn in range(3):
        data = pattern(size, turn)
        ctypes.memmove(source, data, size)
        call("cuGraphLaunch", exec_, s)
        call("cuStreamSynchronize", s)
        expect(back.raw, b"\x01" + data[1:], f"replay {turn}")
    assert runs == [5, 5, 5], runs
    call("cuGraphExecDestroy", exec_)
    carried("cuGraphDestroy", graph_)
    answers("cuGraphLaunch", 1, exec_, s)


def managed() -> None:
    p, size = c_uint64(), 100000
    call("cuMemAllocManaged", byref(p), c_size_t(size), 1)
    ctypes.memset(p.value, 4, size)
    d, back = device(size), (c_char * size)()
    call("cuMemcpyDtoD_v2", c_uint64(d), p, c_size_t(size))
    call("cuMemcpyDtoH_v2", back, c_uint64(d), c_size_t(size))
    expect(back.raw, b"\x04" * size, "managed")
    call("cuMemsetD8_v2", p, ctypes.c_ubyte(6), c_size_t(size))
    call("cuCtxSynchronize")
    expect(ctypes.string_at(p.value, size), b"\x06" * size, "managed set")
    call("cuMemFree_v2", p)


def pools() -> None:
    s, p, back = stream(), c_uint64(), (c_char * 4096)()
    pool, again = c_void_p(), c_void_p()
    if carried("cuDeviceGetDefaultMemPool", byref(pool), 0):
        call("cuDeviceGetDefaultMemPool", byref(again), 0)
        assert pool.value == again.value
    if not carried("cuMemAllocAsync", byref(p), c_size_t(4096), s):
        print("LACKING")
        return
    call("cuMemsetD8Async", p, ctypes.c_ubyte(3), c_size_t(4096), s)
    call("cuMemcpyAsync", c_uint64(ctypes.addressof(back)), p, c_size_t(4096), s)
    call("cuStreamSynchronize", s)
    expect(back.raw, b"\x03" * 4096, "pool memory")
    call("cuMemFreeAsync", p, s)
    call("cuStreamSynchronize", s)


class Prop(ctypes.Structure):
    _fields_ = [("type", c_uint), ("handles", c_uint), ("where", c_uint), ("id", c_int), ("meta", c_void_p),
                ("flags", c_uint64)]  # fmt: skip


class Access(ctypes.Structure):
    _fields_ = [("where", c_uint), ("id", c_int), ("flags", c_uint)]


def vmm() -> None:
    """Two physical pieces side by side; a copy may cross the border, an unmapped byte may not be touched."""
    prop, step = Prop(type=1, where=1), c_size_t()
    if not carried("cuMemGetAllocationGranularity", byref(step), byref(prop), 0):
        print("LACKING")
        return
    size, va, data = step.value, c_uint64(), pattern(1000)
    call("cuMemAddressReserve", byref(va), c_size_t(4 * size), c_size_t(0), c_uint64(0), c_uint64(0))
    for i in range(2):
        handle = c_uint64()
        call("cuMemCreate", byref(handle), c_size_t(size), byref(prop), c_uint64(0))
        call("cuMemMap", c_uint64(va.value + i * size), c_size_t(size), c_size_t(0), handle, c_uint64(0))
        call("cuMemRelease", handle)
    call("cuMemSetAccess", va, c_size_t(2 * size), byref(Access(1, 0, 3)), c_size_t(1))
    back = (c_char * 1000)()
    call("cuMemcpyHtoD_v2", c_uint64(va.value + size - 500), data, c_size_t(1000))
    call("cuMemcpyDtoH_v2", back, c_uint64(va.value + size - 500), c_size_t(1000))
    expect(back.raw, data, "across the border")
    answers("cuMemcpyDtoH_v2", 1, back, c_uint64(va.value + 2 * size - 500), c_size_t(1000))
    call("cuMemUnmap", va, c_size_t(2 * size))
    call("cuMemAddressFree", va, c_size_t(4 * size))


def threads() -> None:
    """Copies of several threads at once share the staging memory."""
    context, wrong_ = c_void_p(), []
    call("cuCtxGetCurrent", byref(context))

    def work(seed: int) -> None:
        call("cuCtxSetCurrent", context)
        size = (2 << 20) + seed
        d, s, data = device(size), stream(), pattern(size, seed)
        source, back = (c_char * size).from_buffer_copy(data), (c_char * size)()
        for _ in range(5):
            call("cuMemcpyHtoDAsync_v2", c_uint64(d), source, c_size_t(size), s)
            call("cuMemcpyDtoHAsync_v2", back, c_uint64(d), c_size_t(size), s)
            if back.raw != data:
                wrong_.append(seed)

    all_ = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for t in all_:
        t.start()
    for t in all_:
        t.join()
    assert not wrong_, wrong_


CASES = (copies, pinned_copies, registered, full, planes, streams, quota, wrong, pointers, callbacks, graph, managed,
         pools, vmm, threads)  # fmt: skip


def main() -> None:
    case = next(c for c in CASES if c.__name__ == sys.argv[1])
    setup()
    case()
    print("OK", flush=True)


if __name__ == "__main__":
    main()
