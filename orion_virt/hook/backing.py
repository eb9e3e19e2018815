# SPDX-License-Identifier: Apache-2.0
"""Makes the file behind a domain's region before QEMU opens it, in a directory where anybody may plant names."""

from __future__ import annotations

import errno
import os
import stat

MODE = 0o660
FIRST_BYTES = 4 << 20  # header and first channel; a full tmpfs must show now, not as a crashed VM later
_ATTEMPTS = 3


class Refusal(Exception):
    """The domain must not start; the text says why and names the way out."""


def replace(base: str, name: str, size_bytes: int, gid: int) -> None:
    """A fresh, zeroed file `base/name`, root's and group `gid`'s, its first extents reserved. Raises Refusal.

    Whatever had the name is unlinked, never opened: who holds the old file keeps it, nothing is truncated.
    """
    path = os.path.join(base, name)
    room = os.statvfs(base)
    if size_bytes > room.f_blocks * room.f_frsize:
        raise Refusal(f"{base} is smaller than the region {name} ({size_bytes >> 20} MiB); enlarge it "
                      "(mount -o remount,size=...) or give the domain a smaller one "
                      "(orion-virt attach DOMAIN --size MIB)")
    fd = _fresh(path)
    try:
        os.fchmod(fd, MODE)  # the umask took bits from the mode given to open
        os.fchown(fd, 0, gid)
        os.ftruncate(fd, size_bytes)
        os.posix_fallocate(fd, 0, min(size_bytes, FIRST_BYTES))
    except OSError as error:
        os.unlink(path)
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EDQUOT):
            raise Refusal(f"{base} is full: no room for the region {name}; free space there or enlarge it "
                          "(mount -o remount,size=...)") from error
        raise Refusal(f"{path} cannot be made safe: {error.strerror}; see that {base} is a tmpfs") from error
    finally:
        os.close(fd)


def _fresh(path: str) -> int:
    """Opens a new inode at `path`, removing what is there; never follows a link."""
    for _ in range(_ATTEMPTS):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise Refusal(f"{path} is in the way and cannot be removed ({error.strerror}); "
                          f"remove it: rm -r {path}") from error
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        except FileExistsError:
            continue  # somebody planted it again
        except OSError as error:
            raise Refusal(f"{path} cannot be created ({error.strerror}); see that "
                          f"{os.path.dirname(path)} is writable") from error
    raise Refusal(f"somebody keeps planting {path}; find out who (fuser, lsof), then start the domain again")


def remove(base: str, name: str) -> bool:
    """Unlinks our own file of a domain that has ended; leaves anything that is not ours. True when it did."""
    path = os.path.join(base, name)
    try:
        info = os.lstat(path)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
