# SPDX-License-Identifier: Apache-2.0
"""Asks a card's NVML for the figures and texts of the spec; for processes that may load a driver."""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import pynvml

from orion_virt.spec.nvml import LINES
from orion_virt.spec.nvml.schema import Field, Figure, Same, Text

TEXT_BYTES = 80  # as the guest's library holds
LIVE = sorted(n for line in LINES if isinstance(line, (Figure, Field)) and line.live
              for n in range(line.number, line.number + line.count))  # fmt: skip
_ALIASES = {line.of: line.name for line in LINES if isinstance(line, Same)}


class Reader:
    """NVML must be initialised."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnvidia-ml.so.1")

    def figures(self, handle: Any, live: bool) -> dict[int, int]:
        """Number -> value of what the card answers; the rest is left out."""
        found: dict[int, int] = {}
        for line in LINES:
            if isinstance(line, Figure) and line.live == live:
                found |= self._figure(handle, line)
            elif isinstance(line, Field) and line.live == live:
                found |= self._field(handle, line)
        return found

    def texts(self, handle: Any) -> dict[int, str]:
        found = {}
        for line in LINES:
            if isinstance(line, Text):
                for at, by in enumerate(_combinations(line)):
                    text = self._text(handle, line, by)
                    if text:
                        found[line.number + at] = text
        return found

    def _figure(self, handle: Any, line: Figure) -> dict[int, int]:
        function = self._function(line.name)
        found: dict[int, int] = {}
        for at, by in enumerate(_combinations(line)) if function else ():
            outs = (ctypes.c_uint64 * line.outs)()  # zeroed, and 32-bit values fill the low half
            args = [ctypes.byref(outs, 8 * i) for i in range(line.outs)]
            if function(handle, *by, *args) == pynvml.NVML_SUCCESS:
                found |= {line.number + at * line.outs + i: int(outs[i]) for i in range(line.outs)}
        return found

    def _field(self, handle: Any, line: Field) -> dict[int, int]:
        try:
            if isinstance(line.field, str):
                return {line.number: int(getattr(getattr(pynvml, line.name)(handle), line.field))}
            value = pynvml.nvmlDeviceGetFieldValues(handle, [line.field])[0]
        except (pynvml.NVMLError, AttributeError):
            return {}
        if value.nvmlReturn != pynvml.NVML_SUCCESS:
            return {}
        wide = value.valueType in (pynvml.NVML_VALUE_TYPE_DOUBLE, pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG,
                                   pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG)
        bits = ctypes.c_uint64.from_buffer_copy(value.value).value
        return {line.number: bits if wide else bits & 0xFFFFFFFF, line.number + 1: int(value.valueType)}

    def _text(self, handle: Any, line: Text, by: tuple[int, ...]) -> str:
        function = self._function(line.name)
        text = ctypes.create_string_buffer(TEXT_BYTES)
        length = (ctypes.c_uint(TEXT_BYTES),) if line.bounded else ()
        if function is None or function(handle, *by, text, *length) != pynvml.NVML_SUCCESS:
            return ""
        return text.value.decode("ascii", "replace")

    def _function(self, name: str) -> Any:
        """None where this driver lacks it under every name."""
        for candidate in (name, _ALIASES.get(name, name)):
            try:
                return getattr(self._library, candidate)
            except AttributeError:
                continue
        return None


def _combinations(line: Figure | Text) -> itertools.product[tuple[int, ...]]:
    return itertools.product(*(range(count) for _, count in line.by))


def pair(handle: Any, other: Any) -> list[int]:
    """Topology level of two cards, and their peer status by capability."""
    try:
        level = pynvml.nvmlDeviceGetTopologyCommonAncestor(handle, other)
        return [int(level)] + [int(pynvml.nvmlDeviceGetP2PStatus(handle, other, kind)) for kind in range(5)]
    except pynvml.NVMLError:
        return []


# What a simulated card says of itself: round figures that nobody takes for a measurement. It has no fan and no infoROM.
SIMULATED_STATIC = {
    "nvmlDeviceGetBrand": [14], "nvmlDeviceGetBusType": [2], "nvmlDeviceGetMultiGpuBoard": [0],
    "nvmlDeviceGetPowerSource": [0], "nvmlDeviceGetPersistenceMode": [1], "nvmlDeviceGetNumFans": [0],
    "nvmlDeviceGetMaxPcieLinkGeneration": [4], "nvmlDeviceGetGpuMaxPcieLinkGeneration": [4],
    "nvmlDeviceGetMaxPcieLinkWidth": [16], "nvmlDeviceGetPowerManagementMode": [1],
    "nvmlDeviceGetMaxClockInfo": [1000, 1000, 1000, 1000], "nvmlDeviceGetTemperatureThreshold": [100, 90],
    "nvmlDeviceGetPowerManagementLimitConstraints": [100000, 100000], "nvmlDeviceGetPowerManagementDefaultLimit": [100000],
    "nvmlDeviceGetEccMode": [0, 0], "nvmlDeviceGetDefaultEccMode": [0],
}  # fmt: skip
SIMULATED_LIVE = {
    "nvmlDeviceGetCurrPcieLinkGeneration": [4], "nvmlDeviceGetCurrPcieLinkWidth": [16],
    "nvmlDeviceGetClockInfo": [1000, 1000, 1000, 1000], "nvmlDeviceGetCurrentClocksEventReasons": [0],
    "nvmlDeviceGetPerformanceState": [0], "nvmlDeviceGetTemperature": [30], "nvmlDeviceGetPowerManagementLimit": [100000],
    "nvmlDeviceGetEnforcedPowerLimit": [100000], "nvmlDeviceGetPowerUsage": [10000],
}  # fmt: skip
# Of two simulated cards, as the simulated driver answers peer questions: one machine's memory, no NVLink.
SIMULATED_PAIR = [50, 0, 0, 5, 0, 0]


def simulated(values: dict[str, list[int]], major: int = 0) -> dict[int, int]:
    """Figures of a simulated card; `major` of its compute capability is its architecture's number."""
    given = values | ({"nvmlDeviceGetArchitecture": [major]} if major else {})
    return {line.number + at: value for line in LINES if isinstance(line, Figure)
            for at, value in enumerate(given.get(line.name, []))}  # fmt: skip
