# SPDX-License-Identifier: Apache-2.0
"""The qemu hook as installed: where it is, what it is told, whether it is there at all."""

from __future__ import annotations

import os
from pathlib import Path

import orion_virt
from orion_virt import paths
from orion_virt.config import ServerConfig

HOOKS = Path("/etc/libvirt/hooks")
NAME = "50-orion-virt"
ENV = "orion-virt.env"


def settings(config: ServerConfig) -> dict[str, str]:
    """What the hook must know of this installation: libvirt gives it no environment, and it reads no server.conf."""
    return {
        "ORION_PYTHONPATH": str(Path(orion_virt.__file__).resolve().parents[1]),
        "ORION_RUN": str(paths.run()),
        "ORION_LOG": str(paths.log()),
        "ORION_STATE": str(paths.state()),
        "ORION_ETC": str(paths.etc()),
        "ORION_SHM": config.shm_path_base,
        "ORION_QEMU_GROUP": config.shm_group_name,
    }


def script(directory: Path = HOOKS) -> Path:
    return directory / "qemu.d" / NAME


def is_installed(directory: Path = HOOKS) -> bool:
    """libvirt runs executable files only."""
    return os.access(script(directory), os.X_OK)


def stale(config: ServerConfig, directory: Path = HOOKS) -> list[str]:
    """Settings of the installed hook that server.conf has otherwise by now: "NAME is A, server.conf says B"."""
    try:
        lines = (directory / ENV).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    wanted = {key: value for key, value in settings(config).items() if key in ("ORION_SHM", "ORION_QEMU_GROUP", "ORION_RUN")}
    return [f"{key} is {found.get(key) or 'not set'}, oriond has {value}" for key, value in wanted.items()
            if found.get(key) != value]
