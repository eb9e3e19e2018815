# SPDX-License-Identifier: Apache-2.0
"""Frees MIB into a pool that keeps everything, then wants as much otherwise: prints what the pool holds, and the results."""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_size_t, c_uint64, c_void_p

RELEASE_THRESHOLD, RESERVED = 4, 5
cuda = ctypes.CDLL("libcuda.so.1")


def call(name: str, *args: object) -> None:
    result = getattr(cuda, name)(*args)
    assert result == 0, f"{name}: {result}"


def main(mib: int) -> None:
    context, pool, p, held = c_void_p(), c_void_p(), c_uint64(), c_uint64()
    call("cuInit", 0)
    call("cuDevicePrimaryCtxRetain", byref(context), 0)
    call("cuCtxSetCurrent", context)
    call("cuDeviceGetDefaultMemPool", byref(pool), 0)
    call("cuMemPoolSetAttribute", pool, RELEASE_THRESHOLD, byref(c_uint64(1 << 62)))
    for _ in range(2):
        call("cuMemAllocAsync", byref(p), c_size_t(mib << 20), None)
        call("cuMemFreeAsync", p, None)
        call("cuCtxSynchronize")
        call("cuMemPoolGetAttribute", pool, RESERVED, byref(held))
        print(held.value >> 20, cuda.cuMemAlloc_v2(byref(p), c_size_t(mib << 20)), cuda.cuMemAllocAsync(byref(p), c_size_t(mib << 20), None))
        call("cuMemFree_v2", p)


if __name__ == "__main__":
    main(int(sys.argv[1]))
