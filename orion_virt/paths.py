# SPDX-License-Identifier: Apache-2.0
"""Where files lie: four directories, each moved by a variable so that several sets can live on one machine."""

from __future__ import annotations

import os
import re
from pathlib import Path


def _dir(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or default)


def etc() -> Path:
    """Configuration (``ORION_ETC``)."""
    return _dir("ORION_ETC", "/etc/orion")


def run() -> Path:
    """Sockets (``ORION_RUN``)."""
    return _dir("ORION_RUN", "/run/orion")


def log() -> Path:
    """Logs (``ORION_LOG``)."""
    return _dir("ORION_LOG", "/var/log/orion")


def state() -> Path:
    """What survives a restart, the server credential among it (``ORION_STATE``)."""
    return _dir("ORION_STATE", "/var/lib/orion")


def server_conf() -> Path:
    return etc() / "server.conf"


def client_conf() -> Path:
    return etc() / "client.conf"


def controller_conf() -> Path:
    return etc() / "controller.conf"


def control_socket() -> Path:
    return run() / "control.sock"


def workers() -> Path:
    """What one oriond leaves for the next: of each channel a record, and its worker's socket."""
    return run() / "workers"


def hook_socket() -> Path:
    return run() / "hook.sock"


def doorbell_socket(uuid: str, size_mib: int) -> Path:
    """Where QEMU finds the doorbell's server of a domain; the name carries the region's size, see hook/doorbell.py."""
    return run() / "doorbell" / f"{uuid}-{size_mib}.sock"


def credential() -> Path:
    """The secret that oriond shows to the controller; 0600."""
    return state() / "server.credential"


def monitor_token() -> Path:
    """The secret of who may see everything and change nothing: the web page, Prometheus; 0600."""
    return state() / "monitor.token"


def lib() -> Path:
    """What `make build` made: executor, simulated driver, guest library."""
    return Path(__file__).resolve().parent / "_lib"


def build_id() -> str:
    """Commit and date of the guest's library that is part of this installation; "" where it is not built."""
    try:
        found = re.search(rb"\0([0-9a-f]{7,}-\d{8}_\d{6})\0", (lib() / "guest" / "libcuda.so.1").read_bytes())
    except OSError:
        return ""
    return found[1].decode() if found else ""


def simulated_driver() -> Path:
    return lib() / "simgpu" / "libcuda.so.1"
