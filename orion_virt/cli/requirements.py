# SPDX-License-Identifier: Apache-2.0
"""What must be installed, with the remedy where it is not: for `orion-check install` and `orion-virt install-server`."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from orion_virt import config as configs
from orion_virt import paths
from orion_virt.cli import hook, services
from orion_virt.errors import OrionError
from orion_virt.gpu import inventory
from orion_virt.hook import owner

_MODULES = {"libvirt": "libvirt-python", "lxml": "lxml", "posix_ipc": "posix_ipc", "pynvml": "nvidia-ml-py",
            "cuda.bindings": "cuda-python", "click": "click"}
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin:/usr/libexec:/usr/lib/qemu"


@dataclass(frozen=True)
class Requirement:
    """One line of the table; the remedy is for people."""

    label: str
    fulfilled: bool
    remedy: str


def _program(*names: str) -> bool:
    path = os.environ.get("PATH", os.defpath) + os.pathsep + _SBIN
    return any(shutil.which(name, path=path) for name in names)


def _has(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def _module(name: str) -> Requirement:
    return Requirement(f"Python package {name}", _has(name), f"install orion-virt again, or pip install {_MODULES[name]}")


def _file(label: str, path: Path) -> Requirement:
    return Requirement(label, path.exists(), f"{path} is missing: install orion-virt again")


def _configuration() -> tuple[Requirement, configs.ServerConfig]:
    problem, config = "", configs.ServerConfig()
    try:
        config = configs.load_server(paths.server_conf())
    except OrionError as error:
        problem = str(error)
    return Requirement("Configuration file", not problem, problem), config


def _group(name: str) -> Requirement:
    try:
        found = owner.find(name)
    except owner.Unknown as error:
        return Requirement(f"Group {name}", False, str(error))
    return Requirement(f"Group {found.group}", True, "")


def _service(unit: str) -> list[Requirement]:
    if not services.is_booted():
        return []
    wants = Path("/etc/systemd/system/multi-user.target.wants") / unit
    return [Requirement(f"Service {unit.removesuffix('.service')} enabled", wants.is_symlink() or wants.exists(),
                        f"orion-virt install-server, or systemctl enable --now {unit}")]


def before_setup() -> list[Requirement]:
    """What this host must have before `orion-virt install-server`."""
    configuration, config = _configuration()
    simulated = paths.simulated_driver().exists()
    return [
        _file("Executor library", paths.lib() / "libexecutor.so"),
        _file("Simulated GPU library", paths.simulated_driver()),
        Requirement("NVIDIA driver or simulated GPU", simulated or inventory.nvidia_version() is not None,
                    "install NVIDIA's driver"),
        *(_module(name) for name in ("libvirt", "lxml", "posix_ipc", "pynvml", "cuda.bindings")),
        Requirement("Shared memory at /dev/shm", os.path.ismount("/dev/shm"), "mount -t tmpfs tmpfs /dev/shm"),
        Requirement("QEMU", _program("qemu-system-x86_64", "qemu-kvm", "kvm"), "apt-get install qemu-system-x86, or dnf install qemu-kvm"),
        Requirement("libvirt daemon", _program("libvirtd", "virtqemud"),
                    "apt-get install libvirt-daemon-system, or dnf install libvirt-daemon-kvm"),
        _group(config.shm_group_name),
        configuration,
    ]


def _server() -> list[Requirement]:
    script = hook.HOOKS / "qemu.d" / hook.NAME
    return [*before_setup(), Requirement("libvirt hook", script.exists(), "orion-virt hook install"), *_service(services.SERVER)]


def _client() -> list[Requirement]:
    return [_file("Client installer", paths.lib() / "install-client"),
            _file("Client library", paths.lib() / "guest" / "libcuda.so.1")]


def of(part: str) -> list[Requirement]:
    """The table of "server", "client", "controller" or "all"."""
    tables = {
        "server": _server,
        "client": _client,
        "controller": lambda: [_module("click"), *_service(services.CONTROLLER)],
    }
    chosen = list(tables.values()) if part == "all" else [tables[part]]
    return [one for table in chosen for one in table()]
