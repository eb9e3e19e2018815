# SPDX-License-Identifier: Apache-2.0
"""The CUDA driver API by ctypes alone: NVIDIA's libcuda.so.1, or the simulated one where SIMULATED=PATH names it."""

from __future__ import annotations

import ctypes
import os

import numpy as np


class DeviceError(Exception):
    """A call of the driver failed; `.code` is its CUresult, `.log` what the PTX compiler said."""

    def __init__(self, call: str, code: int, log: str = "") -> None:
        super().__init__(f"{call}: error {code} {log}".rstrip())
        self.code, self.log = code, log


def parameters(*args: int) -> tuple[ctypes.Array, ctypes.Array]:
    """A kernel's arguments, all 64-bit integers, and pointers to them: the first must live as long as the second."""
    values = (ctypes.c_uint64 * max(len(args), 1))(*args)
    return values, (ctypes.c_void_p * max(len(args), 1))(*(ctypes.addressof(values) + 8 * k for k in range(len(args))))


class Device:
    """The primary context of device 0 of a driver library."""

    def __init__(self, library: str = "libcuda.so.1") -> None:
        self.lib = ctypes.CDLL(os.environ.get("SIMULATED") or library)
        self.call("cuInit", 0)
        self.context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), 0)
        self.call("cuCtxSetCurrent", self.context)

    def call(self, name: str, *args: object) -> None:
        """A function of the driver; raises DeviceError unless it answers success."""
        code = getattr(self.lib, name)(*args)
        if code:
            raise DeviceError(name, code)

    def attribute(self, number: int) -> int:
        """cuDeviceGetAttribute of device 0."""
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, 0)
        return value.value

    @property
    def name(self) -> str:
        text = ctypes.create_string_buffer(128)
        self.call("cuDeviceGetName", text, 128, 0)
        return text.value.decode()

    def load(self, ptx: str | bytes) -> ctypes.c_void_p:
        """A module of PTX text."""
        data = ptx.encode() if isinstance(ptx, str) else ptx
        log, module = ctypes.create_string_buffer(4096), ctypes.c_void_p()
        options = (ctypes.c_int * 2)(5, 6)  # error log buffer and its size
        values = (ctypes.c_void_p * 2)(ctypes.addressof(log), 4096)
        code = self.lib.cuModuleLoadDataEx(ctypes.byref(module), data + b"\0", 2, options, values)
        if code:
            raise DeviceError("cuModuleLoadDataEx", code, log.value.decode(errors="replace"))
        return module

    def unload(self, module: ctypes.c_void_p) -> None:
        self.call("cuModuleUnload", module)

    def function(self, module: ctypes.c_void_p, name: str) -> ctypes.c_void_p:
        f = ctypes.c_void_p()
        self.call("cuModuleGetFunction", ctypes.byref(f), module, name.encode())
        return f

    def put(self, array: np.ndarray) -> int:
        """A device copy of an array; its address."""
        p = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(p), ctypes.c_size_t(max(array.nbytes, 8)))
        self.call("cuMemcpyHtoD_v2", p, ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))
        return p.value

    def get(self, address: int, like: np.ndarray) -> np.ndarray:
        out = np.empty_like(like)
        self.call("cuMemcpyDtoH_v2", ctypes.c_void_p(out.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(out.nbytes))
        return out

    def free(self, *addresses: int) -> None:
        for a in addresses:
            self.call("cuMemFree_v2", ctypes.c_uint64(a))

    def launch(self, f: ctypes.c_void_p, grid: int, block: int, *args: int, shared: int = 0, cooperative: bool = False) -> None:
        """Runs a kernel whose arguments are all 64-bit integers, and waits for it."""
        values, pointers = parameters(*args)
        shape = (grid, 1, 1, block, 1, 1, shared, None, pointers)
        if cooperative:
            self.call("cuLaunchCooperativeKernel", f, *shape)
        else:
            self.call("cuLaunchKernel", f, *shape, None)
        self.call("cuCtxSynchronize")
