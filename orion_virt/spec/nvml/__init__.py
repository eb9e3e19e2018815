# SPDX-License-Identifier: Apache-2.0
"""NVML as guests see it: one line for each function of nvml.h."""

from __future__ import annotations

from orion_virt.spec.nvml import absent, device, memory, system
from orion_virt.spec.nvml.schema import Line

LINES: tuple[Line, ...] = (*system.LINES, *device.LINES, *memory.LINES, *absent.LINES)
