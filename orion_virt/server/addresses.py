# SPDX-License-Identifier: Apache-2.0
"""Keeps the worker's device addresses out of the ranges where guest programs have their own memory."""

from __future__ import annotations

import ctypes
import os
import sys

_ADDR_COMPAT_LAYOUT = 0x0200000
_QUERY = 0xFFFFFFFF
_LOW, _HIGH = 0x300000000000, 0x7FFFFFFFF000  # guests' programs, libraries, heaps and stacks lie in here
_STACK_ROOM = 256 << 20
_PROT_NONE, _PRIVATE_ANONYMOUS_NORESERVE_FIXED_NOREPLACE = 0, 0x02 | 0x20 | 0x4000 | 0x100000
_AGAIN = "ORION_WORKER_LAYOUT"  # set for the second execution, so that there is no third

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def _execute_again() -> None:
    """Returns only where the kernel refuses."""
    with open("/proc/self/cmdline", "rb") as file:
        argv = file.read().rstrip(b"\0").split(b"\0")
    os.environ[_AGAIN] = "1"
    try:
        os.execv(os.readlink("/proc/self/exe"), argv)
    except OSError:
        del os.environ[_AGAIN]


def keep_below() -> None:
    """Executes this process again with the compatible layout, under which mappings grow up from 0x2aaa....

    Where personality() is forbidden (container profiles, LockPersonality=) the guests' ranges are
    filled instead. Call it before the driver is loaded.
    """
    if os.environ.pop(_AGAIN, None) is not None:
        return
    current = _libc.personality(_QUERY)
    if current >= 0 and current & _ADDR_COMPAT_LAYOUT:
        return
    if current >= 0 and _libc.personality(current | _ADDR_COMPAT_LAYOUT) >= 0:
        _execute_again()
    print("the compatible address layout is refused; reserving the guests' ranges instead", file=sys.stderr)
    fill()


def _gaps() -> list[tuple[int, int]]:
    """Unused parts of the guests' ranges, but for what the main thread's stack may grow into."""
    gaps, at = [], _LOW
    with open("/proc/self/maps") as file:
        for line in file:
            start, end = (int(x, 16) for x in line.split(" ", 1)[0].split("-"))
            free_end = start - _STACK_ROOM if "[stack]" in line else start
            if _LOW <= at < min(free_end, _HIGH):
                gaps.append((at, min(free_end, _HIGH)))
            at = max(at, end)
    if at < _HIGH:
        gaps.append((at, _HIGH))
    return gaps


def fill() -> None:
    """Maps PROT_NONE over every gap, so that later mappings, the driver's too, come to lie below."""
    for start, end in _gaps():
        _libc.mmap(start, end - start, _PROT_NONE, _PRIVATE_ANONYMOUS_NORESERVE_FIXED_NOREPLACE, -1, 0)
