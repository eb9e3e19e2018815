# SPDX-License-Identifier: Apache-2.0
"""A CUDA process for test_textures.py in plain ctypes, `array_client.py CASE`: what no runtime of today calls."""

from __future__ import annotations

import ctypes
import struct
import sys
import time
from ctypes import byref, c_char, c_size_t, c_uint64, c_void_p

cu = ctypes.CDLL("libcuda.so.1")
HOST_FN = ctypes.CFUNCTYPE(None, c_void_p)
STREAM_ORDER, DURING_CALL, ANY = 1, 2, 3
NOWHERE = c_size_t(-1).value


def call(name: str, *args: object, want: int = 0) -> None:
    got = getattr(cu, name)(*args)
    assert got == want, f"{name}: {got}, expected {want}"


def setup() -> None:
    context = c_void_p()
    call("cuInit", 0)
    call("cuDevicePrimaryCtxRetain", byref(context), 0)
    call("cuCtxSetCurrent", context)


def stream() -> c_void_p:
    made = c_void_p()
    call("cuStreamCreate", byref(made), 1)
    return made


def alloc(n_bytes: int) -> int:
    pointer = c_uint64()
    call("cuMemAlloc_v2", byref(pointer), c_size_t(n_bytes))
    call("cuMemsetD8_v2", pointer, 0, c_size_t(n_bytes))
    return pointer.value


def read(pointer: int, n_bytes: int) -> bytes:
    back = (c_char * n_bytes)()
    call("cuMemcpyDtoH_v2", back, c_uint64(pointer), c_size_t(n_bytes))
    return back.raw


def array(width: int, height: int = 0, depth: int = 0, flags: int = 0) -> c_void_p:
    made = c_void_p()
    call("cuArray3DCreate_v2", byref(made), struct.pack("<3Q4I", width, height, depth, 0x20, 1, flags, 0))
    return made


def attributes(order: int, flags: int = 0) -> bytes:
    """CUmemcpyAttributes."""
    return struct.pack("<6I", order, 0, 0, 0, 0, flags)


def pointers(*values: int) -> object:
    return (c_uint64 * len(values))(*values)


def batch() -> None:
    """Which copy of a batch was at fault; sources that the stream's own work writes are read after it."""
    memory, s, fail = alloc(4096), stream(), c_size_t(7)
    source = ctypes.create_string_buffer(b"before" + bytes(58), 64)

    def run(dsts: object, srcs: object, sizes: object, order: int = STREAM_ORDER, want: int = 0) -> int:
        call("cuMemcpyBatchAsync", dsts, srcs, sizes, c_size_t(2), attributes(order), pointers(0), c_size_t(1), byref(fail),
             s, want=want)  # fmt: skip
        return fail.value

    @HOST_FN
    def write(_: int | None) -> None:
        time.sleep(0.2)
        source.raw = b"behind".ljust(64, b"\0")

    at = ctypes.addressof(source)
    call("cuLaunchHostFunc", s, write, None)
    assert run(pointers(memory, memory + 64), pointers(at, memory + 128), pointers(64, 64)) == NOWHERE
    call("cuStreamSynchronize", s)
    assert read(memory, 6) == b"behind", read(memory, 6)
    assert run(pointers(memory, 0x1000), pointers(at, at), pointers(64, 0)) == NOWHERE
    assert run(pointers(memory, 0), pointers(at, at), pointers(64, 64), want=1) == 1
    assert run(pointers(memory, memory), pointers(at, at), pointers(64, 64), order=4, want=1) == NOWHERE
    call("cuMemcpyBatchAsync_v2", pointers(memory), pointers(at), pointers(6), c_size_t(1), attributes(ANY), pointers(0),
         c_size_t(1), None, want=1)  # fmt: skip


def with_attributes() -> None:
    memory, s = alloc(4096), stream()
    source = ctypes.create_string_buffer(b"0123456789abcdef", 16)
    call("cuMemcpyWithAttributesAsync", c_uint64(memory), c_uint64(ctypes.addressof(source)), c_size_t(16),
         attributes(DURING_CALL, 1), s)  # fmt: skip
    source.raw = bytes(16)
    call("cuStreamSynchronize", s)
    assert read(memory, 16) == b"0123456789abcdef"
    call("cuMemcpyWithAttributesAsync", c_uint64(memory), c_uint64(memory + 64), c_size_t(16), None, s, want=1)
    call("cuMemcpyWithAttributesAsync", c_uint64(memory), c_uint64(memory + 64), c_size_t(16), attributes(0), s, want=1)
    call("cuMemcpyWithAttributesAsync", c_uint64(memory), c_uint64(memory + 64), c_size_t(16), attributes(1, 2), s, want=1)
    # 2 x 3 floats of an array into memory with rows of 4: CUDA_MEMCPY3D_BATCH_OP
    there, data = array(8, 4), ctypes.create_string_buffer(struct.pack("<32f", *range(32)), 128)
    whole = struct.pack("<I4xQQQ8xI4xQQQQ3Q2I", 1, ctypes.addressof(data), 0, 0, 2, there.value, 0, 0, 0, 8, 4, 1,
                        STREAM_ORDER, 0)  # fmt: skip
    call("cuMemcpy3DWithAttributesAsync", whole, c_uint64(0), s)
    part = struct.pack("<I4xQQQQI4xQQQ8x3Q2I", 2, there.value, 3, 1, 0, 1, memory, 4, 0, 2, 3, 1, STREAM_ORDER, 0)
    call("cuMemcpy3DWithAttributesAsync", part, c_uint64(0), s)
    call("cuStreamSynchronize", s)
    got = struct.unpack("<12f", read(memory, 48))
    assert [got[i] for i in (0, 1, 4, 5, 8, 9)] == [11, 12, 19, 20, 27, 28], got
    call("cuMemcpy3DWithAttributesAsync", part, c_uint64(1), s, want=1)


def handles() -> None:
    """Handles after what they name has ended, and those of another kind."""
    mipmap, level, again, told = c_void_p(), c_void_p(), c_void_p(), (c_char * 40)()
    call("cuMipmappedArrayCreate", byref(mipmap), struct.pack("<3Q4I", 64, 32, 0, 0x20, 1, 0, 0), 3)
    call("cuMipmappedArrayGetLevel", byref(level), mipmap, 1)
    call("cuMipmappedArrayGetLevel", byref(again), mipmap, 1)
    assert level.value == again.value
    call("cuArray3DGetDescriptor_v2", told, level)
    assert struct.unpack_from("<2Q", told) == (32, 16)
    call("cuMipmappedArrayGetLevel", byref(again), mipmap, 3, want=1)
    call("cuMipmappedArrayGetLevel", None, mipmap, 1, want=1)
    call("cuMipmappedArrayGetLevel", byref(again), level, 0, want=400)
    call("cuArrayDestroy", level, want=400)
    call("cuMipmappedArrayDestroy", mipmap)
    call("cuArray3DGetDescriptor_v2", told, level, want=400)
    call("cuMemcpyAtoH_v2", told, level, c_size_t(0), c_size_t(16), want=400)
    plain = array(16)
    call("cuMemcpyHtoA_v2", plain, c_size_t(0), bytes(64), c_size_t(64))
    call("cuDevicePrimaryCtxReset_v2", 0)
    setup()
    call("cuMemcpyHtoA_v2", plain, c_size_t(0), bytes(64), c_size_t(64), want=400)


def textures() -> None:
    """Descriptions name what the application named, and an object ends once."""
    there, value, free, left = array(16, 16, flags=2), c_uint64(), c_size_t(), c_size_t()
    call("cuMemGetInfo_v2", byref(free), byref(c_size_t()))
    resource = struct.pack("<QQ", 0, there.value or 0).ljust(144, b"\0")
    sampling = struct.pack("<3I4I3f4f", 1, 1, 1, 1, 2, 0, 0, 0, 0, 0, 1, 2, 3, 4).ljust(104, b"\0")
    call("cuTexObjectCreate", byref(value), resource, sampling, None)
    told = (c_char * 144)()
    call("cuTexObjectGetResourceDesc", told, value)
    assert told.raw[:16] == resource[:16]
    call("cuTexObjectGetTextureDesc", told, value)
    assert told.raw[:104] == sampling
    call("cuTexObjectGetResourceViewDesc", told, value, want=1)
    call("cuTexObjectGetResourceDesc", told, c_uint64(value.value + 1000), want=1)
    call("cuSurfObjectDestroy", value, want=1)
    call("cuTexObjectDestroy", value)
    call("cuTexObjectDestroy", value, want=1)
    call("cuTexObjectCreate", byref(value), resource, None, None, want=1)
    call("cuTexObjectCreate", byref(value), resource[:8] + struct.pack("<Q", 12345) + resource[16:], sampling, None, want=400)
    call("cuSurfObjectCreate", byref(value), resource)
    call("cuSurfObjectDestroy", value)
    call("cuArrayDestroy", there)
    call("cuMemGetInfo_v2", byref(left), byref(c_size_t()))
    assert left.value - free.value == 16 * 16 * 4, (left.value, free.value)


if __name__ == "__main__":
    setup()
    globals()[sys.argv[1]]()
    print("OK")
