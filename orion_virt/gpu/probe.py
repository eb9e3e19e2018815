# SPDX-License-Identifier: Apache-2.0
"""Brings the cards up in a process of its own and prints what they are as JSON: `python3 -m orion_virt.gpu.probe`.

The daemon never loads a driver itself: a wedged or crashing driver ends this process alone.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

LAST_ATTRIBUTE = 150


class ProbeError(Exception):
    """The driver does not work; the text says which call failed and how."""


def _check(call: str, answer: tuple[Any, ...]) -> Any:
    if int(answer[0]) != 0:
        raise ProbeError(f"{call} answered {answer[0].name if hasattr(answer[0], 'name') else answer[0]}")
    return answer[1] if len(answer) > 1 else None


def _text(padded: bytes) -> str:
    """The binding hands over the whole buffer."""
    return padded.split(b"\0", 1)[0].decode("utf-8", "replace")


def _attributes(driver: ctypes.CDLL, device: int) -> dict[int, int]:
    """Every attribute by number: newer drivers know more of them than the binding has names for."""
    value, found = ctypes.c_int(), {}
    for number in range(1, LAST_ATTRIBUTE + 1):
        if driver.cuDeviceGetAttribute(ctypes.byref(value), number, device) == 0:
            found[number] = value.value
    return found


def _base_bytes(cuda: Any, device: Any) -> int:
    """What a bare primary context costs on the card, as seen by a second look at its free memory."""
    try:
        import pynvml
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByPciBusId(_bus_id(cuda, device))
        before = pynvml.nvmlDeviceGetMemoryInfo(handle).free
        _check("cuDevicePrimaryCtxRetain", cuda.cuDevicePrimaryCtxRetain(device))
        after = pynvml.nvmlDeviceGetMemoryInfo(handle).free
        cuda.cuDevicePrimaryCtxRelease(device)
    except (pynvml.NVMLError, ProbeError):
        return 0
    return max(0, before - after)


def _simulated_base(cuda: Any, device: Any) -> int:
    """A simulated card is this process's alone."""
    _check("cuCtxSetCurrent", cuda.cuCtxSetCurrent(_check("cuDevicePrimaryCtxRetain", cuda.cuDevicePrimaryCtxRetain(device))))
    result, free, total = cuda.cuMemGetInfo()
    cuda.cuDevicePrimaryCtxRelease(device)
    return int(total) - int(free) if int(result) == 0 else 0


def _bus_id(cuda: Any, device: Any) -> str:
    return _text(_check("cuDeviceGetPCIBusId", cuda.cuDeviceGetPCIBusId(32, device)))


def _ask_nvml(gpus: list[dict[str, Any]]) -> dict[str, Any]:
    """What NVML says of the cards and of each two; guests are told of it. Nothing where NVML does not work."""
    try:
        import pynvml

        from orion_virt.gpu import figures

        pynvml.nvmlInit()
        reader = figures.Reader()
        handles = [pynvml.nvmlDeviceGetHandleByPciBusId(gpu["bus_id"]) for gpu in gpus]
        for gpu, handle in zip(gpus, handles):
            gpu["figures"], gpu["texts"] = reader.figures(handle, live=False), reader.texts(handle)
        return {
            "nvml_version": str(pynvml.nvmlSystemGetNVMLVersion()),
            "pairs": {f"{a}.{b}": figures.pair(one, other) for a, one in enumerate(handles)
                      for b, other in enumerate(handles) if a != b},
        }  # fmt: skip
    except (ImportError, OSError, pynvml.NVMLError):
        return {}


def _driver_path() -> str:
    """The library that was loaded, so that workers load the same one whatever their environment."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[-1].strip()
            if "/libcuda.so" in path:
                return path
    return "libcuda.so.1"


def probe(simulated: bool) -> dict[str, Any]:
    """Driver version, and name, memory and attributes of each card."""
    from cuda.bindings import driver as cuda

    library = ctypes.CDLL("libcuda.so.1")
    _check("cuInit", cuda.cuInit(0))
    gpus = []
    for ordinal in range(_check("cuDeviceGetCount", cuda.cuDeviceGetCount())):
        device = _check("cuDeviceGet", cuda.cuDeviceGet(ordinal))
        gpus.append(
            {
                "index": ordinal,
                "bus_id": _bus_id(cuda, device),
                "name": _text(_check("cuDeviceGetName", cuda.cuDeviceGetName(96, device))),
                "total_bytes": int(_check("cuDeviceTotalMem", cuda.cuDeviceTotalMem(device))),
                "base_bytes": _simulated_base(cuda, device) if simulated else _base_bytes(cuda, device),
                "attributes": _attributes(library, int(device)),
            }
        )
    version = int(_check("cuDriverGetVersion", cuda.cuDriverGetVersion()))
    more = {} if simulated else _ask_nvml(gpus)
    return {"driver_version": version, "driver_path": _driver_path(), "gpus": gpus, **more}


def main() -> int:
    """Prints one JSON object; `{"error": ...}` and exit status 1 when the driver does not work."""
    try:
        print(json.dumps(probe("--simulated" in sys.argv[1:])))
        return 0
    except (ProbeError, OSError, ImportError, RuntimeError) as error:
        print(json.dumps({"error": str(error)}))
        return 1


if __name__ == "__main__":
    sys.exit(main())
