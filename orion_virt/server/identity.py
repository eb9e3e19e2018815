# SPDX-License-Identifier: Apache-2.0
"""Whom workers become: for each domain a user of its own, that has no account and no files.

The numbers are those that systemd's list of uid ranges leaves to nobody. A domain's is the same at each start of oriond, since workers
of a domain share memory through the driver; two domains have the same one by a chance of one in 268 million.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import pwd
import struct
from pathlib import Path

from orion_virt.errors import ConfigError

AUTO = "auto"
STARTING = 0x70000000  # of a worker that starts its driver and does not know yet for whom
_NUMBERS = (1 << 28) - 2
NODES = ("nvidiactl", "nvidia-uvm", "nvidia[0-9]*")

_CAP_SETGID, _CAP_SETUID = 6, 7
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS = 8
_libc = ctypes.CDLL(None, use_errno=True)


def check(worker_user: str) -> None:
    """Raises ConfigError for a user that does not exist."""
    if worker_user not in ("", AUTO):
        _account(worker_user)


def of(worker_user: str, tenant: str, confined: bool) -> tuple[int, int]:
    """uid and gid of the workers of a domain, or of whoever else shares nothing with others; our own where we may not choose, and where
    nobody is named and workers are not confined."""
    if os.geteuid() == 0 and worker_user not in ("", AUTO):
        return _account(worker_user)
    if os.geteuid() != 0 or not confined:
        return os.geteuid(), os.getegid()
    number = STARTING + 1 + int.from_bytes(hashlib.sha256(tenant.encode()).digest()[:8], "little") % _NUMBERS
    return number, number


def _account(name: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"[server] worker_user = {name!r}: there is no such user", hint="Create it, or remove the line"
        ) from None
    return entry.pw_uid, entry.pw_gid


def _closed(mode: int, owner: int, group: int, uid: int, gid: int) -> bool:
    shift = 6 if owner == uid else 3 if group == gid else 0
    return mode >> shift & 6 != 6


def group_for(uid: int, gid: int, dev: Path = Path("/dev")) -> int:
    """The group of a user of ours: that of the NVIDIA device nodes where they are a group's, not everybody's."""
    if uid < STARTING:
        return gid
    infos = [path.stat() for pattern in NODES for path in dev.glob(pattern)]
    groups = {i.st_gid for i in infos if i.st_gid and i.st_mode >> 3 & 6 == 6 and i.st_mode & 6 != 6}
    return groups.pop() if len(groups) == 1 else gid


def closed_nodes(uid: int, gid: int, dev: Path = Path("/dev")) -> list[str]:
    """The NVIDIA device nodes that `uid` could not open; a context opens them, at its creation."""
    found = [(path, path.stat()) for pattern in NODES for path in dev.glob(pattern)]
    return [str(path) for path, info in found if _closed(info.st_mode, info.st_uid, info.st_gid, uid, gid)]


def become(uid: int, gid: int, again: bool = False) -> None:
    """This process is `uid` from now on. `again`: it can become another one later, and can do nothing else. Raises OSError."""
    _libc.prctl(_PR_SET_KEEPCAPS, int(again), 0, 0, 0)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _keep(1 << _CAP_SETGID | 1 << _CAP_SETUID if again else 0)


def _keep(capabilities: int) -> None:
    """Of the calling thread; `confine.refuse_more` takes the use of them from the others."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    if _libc.capset(header, struct.pack("6I", capabilities, capabilities, 0, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "capset: " + os.strerror(ctypes.get_errno()))
