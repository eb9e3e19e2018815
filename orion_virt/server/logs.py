# SPDX-License-Identifier: Apache-2.0
"""server.log, the screen and the journal, as [server-log] says."""

from __future__ import annotations

import logging
import logging.handlers
import sys

from orion_virt import paths
from orion_virt.config import LogConfig
from orion_virt.errors import Unavailable
from orion_virt.server.systemd import stderr_is_journal

FILE_BYTES = 16 << 20
OLD_FILES = 4
_PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))  # syslog(3)
_ours: list[logging.Handler] = []


class _Journal(logging.Formatter):
    """The journal has its own time; the priority goes in front, see sd-daemon(3)."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


def _file(level: str) -> logging.Handler:
    path = paths.log() / "server.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(path, maxBytes=FILE_BYTES, backupCount=OLD_FILES)
    except OSError as error:
        raise Unavailable(
            f"{path} cannot be written: {error.strerror}", hint="Run as root, or set ORION_LOG to a directory of yours"
        ) from error
    handler.setLevel(level)
    return handler


def setup(config: LogConfig, foreground: bool) -> None:
    """Takes the place of an earlier setup. Raises Unavailable, and leaves that, when the log file cannot be written."""
    time = "%(asctime)s " if config.log_with_time else ""
    shape = logging.Formatter(f"{time}[%(levelname)s] %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    handlers: list[logging.Handler] = [_file(config.file_log_level)] if config.log_to_file else []
    for handler in handlers:
        handler.setFormatter(shape)
    journal = stderr_is_journal()
    if config.log_to_screen or foreground or journal:
        handlers.append(logging.StreamHandler(sys.stderr))
        handlers[-1].setFormatter(_Journal("%(message)s") if journal else shape)
        handlers[-1].setLevel(config.log_level)
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if "DEBUG" in (config.log_level, config.file_log_level) else logging.INFO)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    for old in _ours:
        root.removeHandler(old)
        old.close()
    _ours[:] = handlers
    for handler in handlers:
        root.addHandler(handler)
