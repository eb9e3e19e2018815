# SPDX-License-Identifier: Apache-2.0
"""Where files lie: four directories, each moved by a variable so that several sets can live on one machine."""

from __future__ import annotations

import os
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


def hook_socket() -> Path:
    return run() / "hook.sock"


def credential() -> Path:
    """The secret that oriond shows to the controller; 0600."""
    return state() / "server.credential"


def lib() -> Path:
    """What `make build` made: executor, simulated driver, guest library."""
    return Path(__file__).resolve().parent / "_lib"


def simulated_driver() -> Path:
    return lib() / "simgpu" / "libcuda.so.1"
