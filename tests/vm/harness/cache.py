# SPDX-License-Identifier: Apache-2.0
"""Where kernel, guest root and verdicts are kept between runs, and the lock that lets one process at a time fill it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from orion_virt.errors import Unavailable

REPO = Path(__file__).resolve().parents[3]
FALLBACK = Path("/var/cache/orion-virt")


def guest_cache() -> Path:
    """ORION_CACHE, else .cache/vm of the checkout if that is ours and QEMU's own user can get there, else /var/cache."""
    named = os.environ.get("ORION_CACHE")
    if not named:
        own = REPO / ".cache" / "vm"
        return own if is_open(own) and REPO.stat().st_uid == os.geteuid() else FALLBACK
    if not named.startswith("/"):
        raise Unavailable(f"ORION_CACHE={named!r} is not valid", hint="Accepted: an absolute path")
    if not is_open(Path(named)):
        raise Unavailable(f"QEMU's user cannot enter ORION_CACHE={named}", hint="chmod o+x it and what is above it")
    return Path(named)


def is_open(path: Path) -> bool:
    """Whether everybody may pass through all that exists of `path`."""
    return all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents) if part.exists())


@contextlib.contextmanager
def filling(cache: Path) -> Iterator[None]:
    """Held while something is added to the cache; another run waits here."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
