# SPDX-License-Identifier: Apache-2.0
"""A CUDA process that computes again and again and follows orders, a line each; answers with a line each. Wrong bytes end it.

The first line tells the result of its start. `python restart_client.py [quiet]`: quiet computes on order only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
import time
from ctypes import byref, c_char, c_int, c_size_t, c_uint, c_uint64, c_void_p

from memory_client import Access, Prop, cu, pattern

MIB = 1 << 20
context = c_void_p()
verified = 0
kept: dict[str, tuple[int, int]] = {}  # pinned, by order: address and seed


def ok(name: str, *args: object) -> None:
    result = getattr(cu, name)(*args)
    if result:
        print(f"{name} {result}", flush=True)
        os._exit(1)


def read(pointer: int, size: int) -> bytes:
    back = (c_char * size)()
    ok("cuMemcpyDtoH_v2", back, c_uint64(pointer), c_size_t(size))
    return back.raw


def compute() -> None:
    """Memory of its own, set and read back, for ever; with pauses, since the daemon that starts needs a core as well."""
    global verified
    ok("cuCtxSetCurrent", context)
    pointer, size = c_uint64(), 4096
    ok("cuMemAlloc_v2", byref(pointer), c_size_t(size))
    while True:
        value = verified % 251
        ok("cuMemsetD8_v2", pointer, ctypes.c_ubyte(value), c_size_t(size))
        if read(pointer.value, size) != bytes([value]) * size:
            print("wrong bytes", flush=True)
            os._exit(2)
        verified += 1
        time.sleep(0.002)


def alloc(mib: str) -> int:
    return int(cu.cuMemAlloc_v2(byref(c_uint64()), c_size_t(int(mib) * MIB)))


def pin(mib: str) -> int:
    """New region memory, with a pattern in it."""
    pointer = c_void_p()
    result = int(cu.cuMemHostAlloc(byref(pointer), c_size_t(int(mib) * MIB), 0))
    if result == 0 and pointer.value:
        seed = len(kept) + 1
        ctypes.memmove(pointer.value, pattern(int(mib) * MIB, seed), int(mib) * MIB)
        kept[mib] = (pointer.value, seed)
    return result


def unpin(mib: str) -> int:
    return int(cu.cuMemFreeHost(c_void_p(kept.pop(mib)[0])))


def check() -> bool:
    """Pinned memory is as it was, also as the card sees it."""
    for mib, (pointer, seed) in kept.items():
        device, size = c_uint64(), int(mib) * MIB
        ok("cuMemAlloc_v2", byref(device), c_size_t(size))
        ok("cuMemcpyHtoD_v2", device, c_void_p(pointer), c_size_t(size))
        if not ctypes.string_at(pointer, size) == read(device.value, size) == pattern(size, seed):
            return False
        ok("cuMemFree_v2", device)
    return True


def free() -> int:
    left, total = c_size_t(), c_size_t()
    ok("cuMemGetInfo_v2", byref(left), byref(total))
    return left.value >> 20


# ---- what processes share: by handle, by descriptor, by pages of a file ----


def show() -> str:
    """8 MiB by handle, 4 MiB by descriptor."""
    pointer, handle, fd, token = c_uint64(), c_uint64(), c_int(), (c_char * 64)()
    ok("cuMemAlloc_v2", byref(pointer), c_size_t(8 * MIB))
    ok("cuMemsetD8_v2", pointer, ctypes.c_ubyte(7), c_size_t(8 * MIB))
    ok("cuIpcGetMemHandle", token, pointer)
    ok("cuMemCreate", byref(handle), c_size_t(4 * MIB), byref(Prop(type=1, where=1, handles=1)), c_uint64(0))
    at = mapped(handle)
    ok("cuMemsetD8_v2", c_uint64(at), ctypes.c_ubyte(8), c_size_t(4 * MIB))
    ok("cuMemExportToShareableHandle", byref(fd), handle, 1, c_uint64(0))
    ok("cuCtxSynchronize")
    return f"{token.raw.hex()} /proc/{os.getpid()}/fd/{fd.value}"


def mapped(handle: c_uint64) -> int:
    at, size = c_uint64(), c_size_t(4 * MIB)
    ok("cuMemAddressReserve", byref(at), size, c_size_t(0), c_uint64(0), c_uint64(0))
    ok("cuMemMap", at, size, c_size_t(0), handle, c_uint64(0))
    ok("cuMemSetAccess", at, size, byref(Access(1, 0, 3)), c_size_t(1))
    return at.value


class Handle(ctypes.Structure):
    _fields_ = [("bytes", c_char * 64)]


shared: list[int] = []


def take(token: str, path: str) -> str:
    """Both, or with "-" what goes by descriptor alone: the driver opens no handle of a process that has ended."""
    pointer, handle = c_uint64(), c_uint64()
    if token != "-":
        ok("cuIpcOpenMemHandle_v2", byref(pointer), Handle.from_buffer_copy(bytes.fromhex(token)), c_uint(1))
        shared.append(pointer.value)
    fd = os.open(path, os.O_RDWR)
    ok("cuMemImportFromShareableHandle", byref(handle), c_void_p(fd), 1)
    shared.append(mapped(handle))
    return look()


def look() -> str:
    """The first bytes of both."""
    return " ".join(str(read(pointer, 1)[0]) for pointer in shared)


def register(path: str) -> int:
    """The whole file, with DEVICEMAP."""
    fd = os.open(path, os.O_RDWR)
    pages = mmap.mmap(fd, os.fstat(fd).st_size)
    files.append(pages)
    return int(cu.cuMemHostRegister_v2(c_void_p(ctypes.addressof(c_char.from_buffer(pages))), c_size_t(len(pages)), 3))


def unregister() -> int:
    return int(cu.cuMemHostUnregister(c_void_p(ctypes.addressof(c_char.from_buffer(files[-1])))))


def put(text: str) -> str:
    files[-1][: len(text)] = text.encode()
    return text


def get() -> str:
    return files[-1][:5].decode()


files: list[mmap.mmap] = []
ORDERS = (alloc, pin, unpin, check, free, show, take, look, register, unregister, put, get)


def main() -> None:
    device = c_int()
    ok("cuInit", 0)
    ok("cuDeviceGet", byref(device), 0)
    ok("cuDevicePrimaryCtxRetain", byref(context), device)
    ok("cuCtxSetCurrent", context)
    if "quiet" not in sys.argv:
        threading.Thread(target=compute, daemon=True).start()
    orders = {order.__name__: order for order in ORDERS} | {"count": lambda: verified}
    print("READY", flush=True)
    for line in sys.stdin:
        name, *words = line.split()
        print(orders[name](*words), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
