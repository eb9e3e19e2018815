# SPDX-License-Identifier: Apache-2.0
"""A CUDA process for the fault tests, in plain ctypes: `client.py hold|loop|once [SECONDS]`.

Prints `READY <result>` when its context works, then does what it was asked; errors are printed as CUresult numbers.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import time

cu = ctypes.CDLL("libcuda.so.1")


def check(name: str, *args: object) -> int:
    """Calls and returns the CUresult; the first failure ends the process with it printed."""
    result = getattr(cu, name)(*args)
    if result:
        print(f"{name} {result}", flush=True)
        sys.exit(1)
    return result


def setup(bytes_: int = 1 << 20) -> ctypes.c_uint64:
    """Context and one allocation."""
    context, pointer, device = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_int()
    check("cuInit", 0)
    check("cuDeviceGet", ctypes.byref(device), 0)
    check("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    check("cuCtxSetCurrent", context)
    check("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(bytes_))
    return pointer


def turn(pointer: ctypes.c_uint64, value: int, bytes_: int = 1 << 20) -> bool:
    """One memset and read-back of everything; true when the bytes are right."""
    back = ctypes.create_string_buffer(bytes_)
    check("cuMemsetD8_v2", pointer, ctypes.c_ubyte(value), ctypes.c_size_t(bytes_))
    check("cuMemcpyDtoH_v2", back, pointer, ctypes.c_size_t(bytes_))
    return back.raw == bytes([value]) * bytes_


def main() -> None:
    mode, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 30
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would we
    pointer = setup()
    print("READY", turn(pointer, 7), flush=True)
    end = time.monotonic() + seconds
    count = 0
    while mode == "loop" and time.monotonic() < end:
        if not turn(pointer, count % 256):
            sys.exit("wrong bytes")
        count += 1
    while mode == "hold" and time.monotonic() < end:
        time.sleep(0.05)
        check("cuCtxSynchronize")
    print("DONE", flush=True)


if __name__ == "__main__":
    main()
