# SPDX-License-Identifier: Apache-2.0
"""A CUDA process that follows orders: "alloc MIB" tells the result, "free" the free MiB. The first line is its start's result."""

import ctypes
import sys

cuda = ctypes.CDLL("libcuda.so.1")
context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
result = cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or cuda.cuCtxSetCurrent(context)
print(result, flush=True)
for line in sys.stdin if result == 0 else ():
    order, *words = line.split()
    if order == "alloc":
        print(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(int(words[0]) << 20)), flush=True)
    elif order == "free":
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        print(free.value >> 20, flush=True)
