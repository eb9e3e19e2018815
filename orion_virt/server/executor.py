# SPDX-License-Identifier: Apache-2.0
"""libexecutor.so as Python calls it: `orion_virt/executor/executor.h` through ctypes."""

from __future__ import annotations

import ctypes
from pathlib import Path

from orion_virt import layout
from orion_virt.errors import Unavailable

_u32, _u64, _i32, _int = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32, ctypes.c_int


class Config(ctypes.Structure):
    """struct oh_config"""

    _fields_ = [
        ("socket_fd", _int),
        ("region_fd", _int),
        ("control_fd", _int),
        ("turns", _int),
        ("doorbell_fd", _int),
        ("polled", _int),
        ("base", _u64),
        ("region_bytes", _u64),
        ("block_off", _u64),
        ("channel_id", _u32),
        ("nr_devices", _u32),
        ("ordinals", _i32 * layout.MAX_DEVICES),
        ("limits", _u64 * layout.MAX_DEVICES),
        ("context_bytes", _u64 * layout.MAX_DEVICES),
        ("group_fd", _int),
        ("group_row", _u32),
        ("listen_fd", _int),
        ("keep_seconds", _u32),
        ("kernel_seconds", _u32),
        ("log_path", ctypes.c_char * 256),
    ]


class Executor:
    """The library; one process serves one channel with it."""

    def __init__(self, path: Path) -> None:
        """Raises Unavailable when the library is missing or not of this version."""
        try:
            self._lib = ctypes.CDLL(str(path))
            self._lib.oh_last_error.restype = ctypes.c_char_p
            same = self._lib.oh_config_bytes() == ctypes.sizeof(Config)
        except (OSError, AttributeError) as error:
            raise Unavailable(f"the executor cannot be loaded: {error}", hint="Run `make build`") from None
        if not same:
            raise Unavailable(f"{path} is of another version", hint="Run `make build`, or install the package again")

    def _error(self) -> str:
        return bytes(self._lib.oh_last_error()).decode("utf-8", "replace")

    def start_driver(self, path: str) -> None:
        """Reserves the region's bases, then loads and initialises the driver. Raises Unavailable."""
        if self._lib.oh_reserve_bases():
            raise Unavailable(self._error(), hint="Something else was mapped there before the worker began")
        if self._lib.oh_load_driver(path.encode()):
            raise Unavailable(self._error(), hint="Check nvidia-smi, or set [server] driver in server.conf")

    def run(self, config: Config) -> tuple[int, str]:
        """Serves one channel to its end, without the GIL; returns enum oc_close and why. Raises Unavailable."""
        why = self._lib.oh_run(ctypes.byref(config))
        if why < 0:
            raise Unavailable(f"the channel cannot be served: {self._error()}")
        return why, self._error()
