# SPDX-License-Identifier: Apache-2.0
"""What a service tells systemd, and learns from it: sd_notify(3), and whether stderr is the journal."""

from __future__ import annotations

import os
import socket
import time


def notify(state: str) -> None:
    """Sends `state` ("READY=1", ...) to whoever started us as a service of Type=notify; else nothing.

    Raises OSError where the service manager cannot be reached.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.sendall(state.encode())


def reloading() -> None:
    """Tells that a reload begins; READY=1 ends it."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stderr_is_journal() -> bool:
    """As systemd.exec(5) has it: JOURNAL_STREAM names the device and inode of the journal's socket."""
    try:
        info = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"
