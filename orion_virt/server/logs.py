# SPDX-License-Identifier: Apache-2.0
"""server.log and the screen, as [server-log] says."""

from __future__ import annotations

import logging
import sys

from orion_virt import paths
from orion_virt.config import LogConfig
from orion_virt.errors import Unavailable


def setup(config: LogConfig, foreground: bool) -> None:
    """Raises Unavailable when the log file cannot be written."""
    time = "%(asctime)s " if config.log_with_time else ""
    shape = logging.Formatter(f"{time}[%(levelname)s] %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if "DEBUG" in (config.log_level, config.file_log_level) else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    handlers: list[tuple[logging.Handler, str]] = []
    if config.log_to_screen or foreground:
        handlers.append((logging.StreamHandler(sys.stderr), config.log_level))
    if config.log_to_file:
        path = paths.log() / "server.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handlers.append((logging.FileHandler(path), config.file_log_level))
        except OSError as error:
            raise Unavailable(
                f"{path} cannot be written: {error.strerror}", hint="Run as root, or set ORION_LOG to a directory of yours"
            ) from error
    for handler, level in handlers:
        handler.setFormatter(shape)
        handler.setLevel(level)
        root.addHandler(handler)
