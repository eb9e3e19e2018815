# SPDX-License-Identifier: Apache-2.0
"""Notices at once that a domain's QEMU has ended, also while libvirtd is down: by a pidfd."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

PID_FILES = Path("/run/libvirt/qemu")
_log = logging.getLogger("orion.domains")


def open_pidfd(uuid: str, name: str) -> int | None:
    """A pidfd of the domain's QEMU by libvirt's pid file, None where it cannot be told."""
    try:
        pid = int((PID_FILES / f"{name}.pid").read_text())
        fd = os.pidfd_open(pid)
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError):  # the number may be another process's by now
        if uuid.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            return fd
    os.close(fd)
    return None


class Watch:
    """For the event loop. ``ended`` is called once with a domain's UUID, name and the run of it that was followed."""

    def __init__(self, ended: Callable[[str, str, list[int]], None]) -> None:
        self._ended = ended
        self._fds: dict[str, tuple[int | None, list[int]]] = {}

    def follow(self, uuid: str, name: str, life: list[int]) -> None:
        """Follows this run of the domain; idempotent. libvirt's events are all there is where there is no pid file."""
        if uuid in self._fds:
            if self._fds[uuid][1] == life:
                return
            self.forget(uuid)
        fd = open_pidfd(uuid, name)
        self._fds[uuid] = (fd, life)
        if fd is None:
            _log.info("domain %s: QEMU's process is not found in %s; libvirt's events tell when it ends", name, PID_FILES)
            return
        asyncio.get_running_loop().add_reader(fd, self._ready, uuid, name)

    def _ready(self, uuid: str, name: str) -> None:
        life = self._fds[uuid][1]
        self.forget(uuid)
        self._ended(uuid, name, life)

    def forget(self, uuid: str) -> None:
        found = self._fds.pop(uuid, None)
        if found is not None and found[0] is not None:
            asyncio.get_running_loop().remove_reader(found[0])
            os.close(found[0])

    def close(self) -> None:
        for uuid in list(self._fds):
            self.forget(uuid)
