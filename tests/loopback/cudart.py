# SPDX-License-Identifier: Apache-2.0
"""The genuine CUDA runtime on our driver library, `cudart.py WHAT FILE`: its private handshake, then ordinary use."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p


rt = ctypes.CDLL(sys.argv[2])
rt.cudaGetErrorString.restype = c_char_p


def call(name: str, *args: object, want: int = 0) -> None:
    got = getattr(rt, name)(*args)
    assert got == want, f"{name}: {got} ({rt.cudaGetErrorString(got).decode()}), expected {want}"


def round_trip(size: int = 1 << 20) -> None:
    pointer, back = c_void_p(), ctypes.create_string_buffer(size)
    data = bytes(range(256)) * (size // 256)
    call("cudaMalloc", byref(pointer), c_size_t(size))
    call("cudaMemcpy", pointer, data, c_size_t(size), 1)
    call("cudaMemcpy", back, pointer, c_size_t(size), 2)
    assert back.raw == data
    call("cudaMemset", pointer, 7, c_size_t(size))
    call("cudaMemcpy", back, pointer, c_size_t(size), 2)
    assert back.raw == b"\7" * size
    call("cudaFree", pointer)


def use() -> None:
    count, driver, version = c_int(), c_int(), c_int()
    call("cudaGetDeviceCount", byref(count))
    assert count.value == int(os.environ.get("ORION_VGPU", "1"))
    call("cudaDriverGetVersion", byref(driver))
    call("cudaRuntimeGetVersion", byref(version))
    assert driver.value == 13000 and version.value >= 12000
    properties = ctypes.create_string_buffer(4096)
    call("cudaGetDeviceProperties", properties, 0)
    assert properties.raw.startswith(b"Orion Simulated GPU\0")
    call("cudaFree", None)
    round_trip()
    call("cudaMemcpy", None, None, c_size_t(4), 77, want=21)
    call("cudaDeviceSynchronize")


def streams() -> None:
    stream, event = c_void_p(), c_void_p()
    call("cudaStreamCreate", byref(stream))
    call("cudaEventCreate", byref(event))
    call("cudaEventRecord", event, stream)
    call("cudaEventSynchronize", event)
    call("cudaStreamSynchronize", stream)
    call("cudaEventDestroy", event)
    call("cudaStreamDestroy", stream)
    host = c_void_p()
    call("cudaHostAlloc", byref(host), c_size_t(1 << 20), 0)
    ctypes.memset(host, 5, 1 << 20)
    call("cudaFreeHost", host)


def reset() -> None:
    """The runtime attaches again after a reset: its context-local values are gone with the context."""
    for _ in range(3):
        round_trip()
        call("cudaDeviceReset")


def threads() -> None:
    failed = []

    def work() -> None:
        try:
            for _ in range(4):
                round_trip(64 << 10)
        except AssertionError as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed, failed


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("done")
