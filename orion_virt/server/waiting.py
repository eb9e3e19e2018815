# SPDX-License-Identifier: Apache-2.0
"""Region files without a running domain: those made ahead where no hook makes them, and those left behind."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from orion_virt.domain import shmem
from orion_virt.domain.connection import View
from orion_virt.errors import NotFound, OrionError
from orion_virt.hook import label
from orion_virt.region.regions import Regions
from orion_virt.server import libvirt_hook
from orion_virt.server.remembered import Remembered

_log = logging.getLogger("orion.domains")


class Waiting:
    """For the event loop."""

    def __init__(self, base: str, regions: Regions, memory: Remembered) -> None:
        self._base = Path(base)
        self._regions = regions
        self._memory = memory

    def prepare(self, view: View) -> None:
        """A domain that is shut off: its next start finds a file of ours, unless the hook makes one then.

        Raises QuotaExceeded, Unavailable: QEMU would make a file of its own, which is never used.
        """
        own = None if view.config is None else shmem.find_own(view.config)
        if own is None or libvirt_hook.is_installed():
            self.drop(view.uuid)
            return
        known = self._regions.find(view.uuid)
        if known is not None and known.is_current() and known.size_bytes == own.size_bytes:
            return
        self.drop(view.uuid)
        if known is not None:
            self._regions.forget(view.uuid)
        _unlink(self._base / shmem.region_name(view.uuid), "left behind")
        region = self._regions.create(view.uuid, own.size_bytes)
        if label.is_on():  # libvirt chooses the domain's own categories when it starts, and tells the hook alone
            try:
                label.apply(region.fd, label.ANY_DOMAIN)
            except OSError as error:
                _log.warning("%s cannot be labelled %s: %s", region.path, label.ANY_DOMAIN, error.strerror)
        self._memory.prepared.add(view.uuid)
        self._memory.save()
        _log.info("domain %s: a region of %d MiB waits for its start, since libvirt has no hook of ours",
                  view.name, own.size_bytes >> 20)

    def drop(self, uuid: str) -> None:
        """Removes a file that was made ahead and is not needed."""
        if uuid not in self._memory.prepared:
            return
        self.started(uuid)
        try:
            self._regions.remove(uuid)
        except NotFound:
            pass

    def started(self, uuid: str) -> None:
        """The file that waited is in use now, or gone."""
        if uuid in self._memory.prepared:
            self._memory.prepared.discard(uuid)
            self._memory.save()

    def found(self) -> dict[Path, int]:
        """The region files of now with their inodes; to be asked before libvirt is asked who runs."""
        inodes = {path: _inode(path) for path in sorted(self._base.glob(shmem.PREFIX + "*"))}
        return {path: inode for path, inode in inodes.items() if inode and shmem.is_region_name(path.name)}

    def sweep(self, found: dict[Path, int], running: set[str], defined: set[str]) -> None:
        """Removes region files that no domain, container or process uses.

        ``running`` and ``defined``: UUIDs, later than ``found``: a domain that started meanwhile has a file with another
        inode. What `orion-virt region create` made is a region of ours that no domain has.
        """
        for path, inode in found.items():
            uuid = path.name.removeprefix(shmem.PREFIX)
            if uuid in running or uuid in self._memory.prepared or _inode(path) != inode:
                continue
            known = self._regions.find(uuid)
            if known is not None and uuid not in defined:
                continue
            user = user_of(path)
            if user and known is None:
                _log.info("%s belongs to no running domain, but process %s uses it: it stays", path, user)
                continue
            if known is not None:
                self._regions.forget(uuid)
            self._memory.lives.pop(uuid, None)
            try:
                _unlink(path, "an orphan")
            except OrionError as error:
                _log.warning("%s", error)


def _inode(path: Path) -> int:
    """0 where there is nothing by now."""
    try:
        return path.lstat().st_ino
    except OSError:
        return 0


def _unlink(path: Path, what: str) -> None:
    """By name only: whoever has it open keeps it, and a link is not followed."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise OrionError(f"{path} is in the way and cannot be removed: {error.strerror}",
                         hint=f"Remove it: rm -r {path}") from error
    _log.info("%s (%s) is removed", path, what)


def user_of(path: Path) -> str:
    """The pid of a process other than us that has this file mapped or open, "" where there is none."""
    inode = _inode(path)
    for process in Path("/proc").glob("[0-9]*"):
        if process.name != str(os.getpid()) and _uses(process, path.name, inode):
            return process.name
    return ""


def _uses(process: Path, name: str, inode: int) -> bool:
    """By name and inode: other mount namespaces may have files of that name, too."""
    try:
        for line in (process / "maps").read_text(errors="replace").splitlines():
            if name in line and line.split(None, 5)[4] == str(inode):
                return True
        return any(name in str(fd.readlink()) and fd.stat().st_ino == inode for fd in (process / "fd").iterdir())
    except OSError:  # it has ended
        return False
