# SPDX-License-Identifier: Apache-2.0
"""Starts the server that QEMU's ivshmem-doorbell device connects to, before QEMU does."""

from __future__ import annotations

import os
import re
import sys

SERVER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "ivshmem", "server.py")
START_SECONDS = 5  # it takes some 25 ms where a core is free
DEFAULT_MIB = 128  # of a region, where the path does not say
_SOCKET = re.compile(r"/([0-9a-f-]{36})-([1-9][0-9]{0,6})\.sock\Z")  # UUID and MiB


def size_of(path: str, region: str) -> int:
    """Bytes of the region `orion-<uuid>`, which the server's path carries; 0 where it is not that domain's path.

    libvirt refuses <size> for this model, and the definition must say all that a start needs.
    """
    found = _SOCKET.search(path)
    return int(found[2]) << 20 if found and region == f"orion-{found[1]}" else 0


def way_out(domain: str, size_bytes: int) -> str:
    """How a person gets the domain to start without a doorbell."""
    return ("to do without it, replace <model type='ivshmem-doorbell'/>, <server> and <msi> of its <shmem> by <model "
            f"type='ivshmem-plain'/> and <size unit='M'>{size_bytes >> 20 or DEFAULT_MIB}</size>, and doorbell='yes' in its metadata "
            f"by 'no': virsh edit {domain}")


def control_of(path: str) -> str:
    """Where the server behind `path` answers oriond."""
    return path.removesuffix(".sock") + ".ctl"


def start(region: str, path: str, group: str) -> str:
    """Returns once a server listens at `path`: "", or why there is none."""
    import subprocess  # only domains with a doorbell pay for it

    argv = [sys.executable, "-I", "-S", SERVER, region, path, control_of(path), group]
    try:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=START_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if not done.returncode:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[-1] if said else f"exit status {done.returncode}"


def forget(directory: str, uuid: str) -> None:
    """Takes the socket files of a domain that has ended away, also where it had lost the device before."""
    try:
        for name in os.listdir(directory):
            if name.startswith(f"{uuid}-"):
                os.unlink(os.path.join(directory, name))
    except OSError:
        pass  # the next start replaces them
