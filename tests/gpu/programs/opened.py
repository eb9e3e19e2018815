# SPDX-License-Identifier: Apache-2.0
"""Memory of one process in another: `opened.py own MIB` prints a handle, `opened.py open HANDLE` maps it; both print MiB free, wait for a line."""

import ctypes
import sys

cuda = ctypes.CDLL("libcuda.so.1")


class Handle(ctypes.Structure):
    """CUipcMemHandle"""

    _fields_ = [("reserved", ctypes.c_ubyte * 64)]


def must(result: int) -> None:
    assert result == 0, result


context, pointer, handle = ctypes.c_void_p(), ctypes.c_uint64(), Handle()
must(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or cuda.cuCtxSetCurrent(context))
if sys.argv[1] == "own":
    must(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(int(sys.argv[2]) << 20)))
    must(cuda.cuIpcGetMemHandle(ctypes.byref(handle), pointer))
else:
    ctypes.memmove(ctypes.byref(handle), bytes.fromhex(sys.argv[2]), 64)
    must(cuda.cuIpcOpenMemHandle_v2(ctypes.byref(pointer), handle, 1))
free, total = ctypes.c_size_t(), ctypes.c_size_t()
must(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
print(free.value >> 20, bytes(handle).hex(), flush=True)
sys.stdin.readline()
