# SPDX-License-Identifier: Apache-2.0
"""The file behind a region: made safely in a directory where others may plant names."""

from __future__ import annotations

import errno
import logging
import os
import stat
import uuid as uuids
from pathlib import Path

import posix_ipc

from orion_virt import layout
from orion_virt.errors import Conflict, NotFound, Unavailable
from orion_virt.hook import owner
from orion_virt.units import MIB

MODE = 0o660
DEV_SHM = Path("/dev/shm")
_FIRST_BYTES = 2 * layout.EXTENT_BYTES  # header and the first channel
_log = logging.getLogger("orion.region")


def name(uuid: str) -> str:
    """`orion-<uuid>`. Raises NotFound for what is no UUID."""
    try:
        return f"orion-{uuids.UUID(uuid)}"
    except ValueError:
        raise NotFound(f"{uuid!r} is not a domain's UUID", hint="Take it from `virsh domuuid DOMAIN`") from None


def group_id(group: str) -> int:
    """QEMU's group; our own where none can be told (then no QEMU can run here either)."""
    try:
        return owner.find(group).gid
    except owner.Unknown as error:
        _log.warning("%s: regions get our own group", error)
        return os.getegid()


def create(base: Path, uuid: str, size_bytes: int, group: str) -> int:
    """Makes a new, sized file, its header and first extents reserved; returns its descriptor.

    Raises Conflict when anything of that name exists, Unavailable when it does not fit.
    """
    path = base / name(uuid)
    try:
        fd = _open_new(base, path)
    except (FileExistsError, posix_ipc.ExistentialError):
        raise Conflict(
            f"{path} exists already", hint="If no domain uses it, remove it: orion-virt region remove UUID, or rm"
        ) from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be created: {error.strerror}", hint="Check [server-shm] shm_path_base") from error
    try:
        os.fchmod(fd, MODE)  # the umask took bits from the mode given to open
        if os.geteuid() == 0:
            os.fchown(fd, 0, group_id(group))
        os.ftruncate(fd, size_bytes)
        reserve(fd, 0, min(size_bytes, _FIRST_BYTES))
    except BaseException:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return fd


def _open_new(base: Path, path: Path) -> int:
    if base == DEV_SHM:
        return int(posix_ipc.SharedMemory("/" + path.name, posix_ipc.O_CREX, mode=MODE).fd)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)


def open_existing(base: Path, uuid: str) -> tuple[int, int]:
    """Opens a region's file that is there: (descriptor, size). Never creates, never follows a link.

    Raises NotFound, or Conflict for a file that is not safe to use.
    """
    path = base / name(uuid)
    try:
        if base == DEV_SHM:
            fd = int(posix_ipc.SharedMemory("/" + path.name, flags=0).fd)
        else:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, posix_ipc.ExistentialError):
        raise NotFound(f"{path} does not exist", hint="It is made when the domain starts") from None
    except (OSError, posix_ipc.Error) as error:
        raise _unsafe(path, _why(error)) from error
    try:
        return fd, _check(fd, path)
    except BaseException:
        os.close(fd)
        raise


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "it is a symbolic link"
    return str(error)


def _check(fd: int, path: Path) -> int:
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise _unsafe(path, "it is not a regular file")
    if info.st_uid != os.geteuid():
        raise _unsafe(path, f"it belongs to uid {info.st_uid}")
    if info.st_nlink != 1:
        raise _unsafe(path, "it has other hard links or was removed")
    if info.st_mode & 0o007:
        raise _unsafe(path, f"everybody may use it (mode {stat.S_IMODE(info.st_mode):04o})")
    size = info.st_size
    if size < layout.EXTENT_BYTES or size & (size - 1):
        raise _unsafe(path, f"its size {size} is not a power of two of at least {layout.EXTENT_BYTES // MIB} MiB")
    return size


def _unsafe(path: Path, why: str) -> Conflict:
    return Conflict(f"{path} cannot be used as a region: {why}", hint="Remove it, then start the domain again")


def reserve(fd: int, off: int, n_bytes: int) -> None:
    """Gives [off, off+n_bytes) real memory, so that no later write to it can fail. May take long."""
    try:
        os.posix_fallocate(fd, off, n_bytes)
    except OSError as error:
        raise Unavailable(
            f"no room for {n_bytes // MIB} MiB of shared memory: {error.strerror}",
            hint="Free space in /dev/shm, enlarge it (mount -o remount,size=...), or lower [server-shm] shm_buffer_size",
        ) from error


_ZEROS = bytes(1 << 20)


def wipe(fd: int, off: int, n_bytes: int) -> None:
    """Zeroes by writing: a hole would leave DMA on the old pages where something has them pinned."""
    end = off + n_bytes
    while off < end:
        off += os.pwrite(fd, memoryview(_ZEROS)[: end - off], off)
