# SPDX-License-Identifier: Apache-2.0
"""What NVML says of device 0: `nvml.py static|errors|live` prints what must not depend on whether it is a card or a vGPU."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import pynvml as n

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from orion_virt.gpu import figures  # noqa: E402

CONSTANT = ["nvmlDeviceGetComputeMode", "nvmlDeviceGetDisplayActive", "nvmlDeviceGetMigMode", "nvmlDeviceGetName",
            "nvmlDeviceGetCudaComputeCapability"]


def answer(name: str, *args: object) -> object:
    """The result, or the error's code."""
    try:
        return getattr(n, name)(*args)
    except n.NVMLError as error:
        return f"error {error.value}"


def static() -> None:
    """All figures and texts of the spec, and what has a function by hand."""
    handle = n.nvmlDeviceGetHandleByIndex(0)
    reader = figures.Reader()
    print(json.dumps(reader.figures(handle, live=False), indent=1))
    print(json.dumps(reader.texts(handle), indent=1))
    for name in CONSTANT:
        print(name, answer(name, handle))
    for name in ("nvmlSystemGetDriverVersion", "nvmlSystemGetNVMLVersion", "nvmlSystemGetCudaDriverVersion", "nvmlUnitGetCount"):
        print(name, answer(name))


def errors() -> None:
    """The texts of all codes, and the codes of wrong arguments."""
    library = ctypes.CDLL("libnvidia-ml.so.1")
    library.nvmlErrorString.restype = ctypes.c_char_p
    for code in [*range(30), 999, 12345]:
        print(code, library.nvmlErrorString(code).decode())
    handle = n.nvmlDeviceGetHandleByIndex(0)
    print(answer("nvmlDeviceGetHandleByIndex", 1000), answer("nvmlDeviceGetHandleByPciBusId", "nonsense"))
    print(answer("nvmlDeviceGetHandleByUUID", "GPU-00000000-0000-0000-0000-000000000000"))
    print(answer("nvmlDeviceGetTemperature", handle, 7))
    short = ctypes.create_string_buffer(4)
    print(library.nvmlDeviceGetName(handle, short, 4), library.nvmlDeviceGetCount_v2(None))
    n.nvmlShutdown()
    print(library.nvmlShutdown(), library.nvmlDeviceGetCount_v2(None))


def live() -> None:
    """Which sensors there are, and that they show sense; not what they show."""
    handle = n.nvmlDeviceGetHandleByIndex(0)
    found = figures.Reader().figures(handle, live=True)
    print(sorted(found))
    memory = n.nvmlDeviceGetMemoryInfo(handle)
    print(memory.total >= memory.used + memory.free > 0, 0 <= n.nvmlDeviceGetUtilizationRates(handle).gpu <= 100)
    print(10 < n.nvmlDeviceGetTemperature(handle, 0) < 100, n.nvmlDeviceGetPowerUsage(handle) > 1000)
    print(n.nvmlDeviceGetClockInfo(handle, 1) > 0, 0 <= n.nvmlDeviceGetPerformanceState(handle) <= 15)


if __name__ == "__main__":
    n.nvmlInit()
    globals()[sys.argv[1]]()
