# SPDX-License-Identifier: Apache-2.0
"""What orion-check looks at, as plain data; the printing is in check.py."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import pwd
import socket
from pathlib import Path
from typing import Any

from orion_virt import config as configs
from orion_virt import paths
from orion_virt.config import ServerConfig, join_addr, split_addr
from orion_virt.errors import OrionError
from orion_virt.gpu import inventory

_SECONDS = 3.0


def control(cmd: str) -> dict[str, Any] | None:
    """One command to the running oriond; None when there is none, or we may not ask it."""
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_SECONDS)
            sock.connect(str(paths.control_socket()))
            sock.sendall(json.dumps({"cmd": cmd}).encode() + b"\n")
            with sock.makefile() as lines:
                answer = json.loads(lines.readline())
    except (OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) and answer.get("ok") else None


def _gpus(config: ServerConfig, status: dict[str, Any] | None) -> dict[str, Any]:
    """As the running daemon sees the cards, else as we do."""
    if status is not None:
        names = [gpu["name"] for gpu in status["gpus"]]
        return {"simulated": status["simulated"], "driver": status["driver"], "gpus": names, "error": ""}
    try:
        found = inventory.take(config.driver)
    except OrionError as error:
        return {"simulated": False, "driver": "", "gpus": [], "error": str(error)}
    names = [gpu.name for gpu in found.gpus]
    return {"simulated": found.simulated, "driver": found.version_text, "gpus": names, "error": ""}


def mps_is_on() -> bool:
    """True when a process of NVIDIA's MPS runs."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().startswith("nvidia-cuda-mps"):
                return True
        except OSError:
            continue
    return False


def reaches(addr: str) -> bool:
    """True when an oriond answers INFO there."""
    pair = split_addr(addr, configs.DEFAULT_PORT)
    if pair is None:
        return False
    try:
        with socket.create_connection(pair, timeout=_SECONDS) as sock:
            sock.sendall(b"ORION/1 INFO\n\n")
            return sock.recv(64).startswith(b"ORION/1 INFO\n")
    except OSError:
        return False


def _user_of(pid: int) -> str:
    try:
        return pwd.getpwuid(os.stat(f"/proc/{pid}").st_uid).pw_name
    except (OSError, KeyError):
        return "unknown"


def _server(config: ServerConfig, status: dict[str, Any] | None) -> dict[str, Any]:
    addrs = status["server_addrs"] if status else [join_addr(ip, config.listen_port) for ip in config.bind_addr]
    pairs = [split_addr(addr, config.listen_port) for addr in addrs]
    return {
        "user": _user_of(status["pid"]) if status else None,
        "enable_shm": config.enable_shm,
        "enable_rdma": config.enable_rdma,
        "enable_kvm": config.enable_kvm,
        "bind_addr": list(config.bind_addr) or ["auto"],
        "addresses": [pair[0] for pair in pairs if pair is not None],
        "port": config.listen_port,
        "reached": {addr: reaches(addr) for addr in addrs},
    }


def controller(addr: str) -> dict[str, Any]:
    """Version and counts of the controller at `addr`."""
    source = "environment variable" if os.environ.get("ORION_CONTROLLER") else "configuration file"
    addr = addr or f"127.0.0.1:{configs.DEFAULT_CONTROLLER_PORT}"
    found: dict[str, Any] = {"addr": addr, "source": source, "reached": False, "version": "", "total": 0, "free": 0}
    pair = split_addr(addr, configs.DEFAULT_CONTROLLER_PORT)
    assert pair is not None, "config has checked it"
    try:
        found["version"] = _get(pair, "/info?data_version&api_version")
        found["total"] = int(_get(pair, "/devices?res=nvidia_cuda").rsplit("=", 1)[1])
        found["free"] = int(_get(pair, "/devices?res=nvidia_cuda&used=true").rsplit("=", 1)[1])
        found["reached"] = True
    except (OSError, http.client.HTTPException, ValueError, IndexError):
        pass
    return found


def _get(pair: tuple[str, int], path: str) -> str:
    connection = http.client.HTTPConnection(*pair, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(4096).decode("utf-8", "replace")
        if answer.status != 200:
            raise ValueError(text)
        return text
    finally:
        connection.close()


def server_side(config: ServerConfig) -> dict[str, Any]:
    """Everything that `orion-check runtime server` tells."""
    status = control("status")
    return {
        "gpu": _gpus(config, status),
        "mps": mps_is_on(),
        "server": _server(config, status),
        "controller": controller(config.controller_addr),
    }


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def requirements(part: str) -> dict[str, bool]:
    """Label -> fulfilled, for the table of `orion-check install`."""
    server = {
        "Executor library": (paths.lib() / "libexecutor.so").exists(),
        "Simulated GPU library": paths.simulated_driver().exists(),
        "NVIDIA driver or simulated GPU": inventory.nvidia_version() is not None or paths.simulated_driver().exists(),
        "Python package libvirt": _has("libvirt"),
        "Python package lxml": _has("lxml"),
        "Python package posix_ipc": _has("posix_ipc"),
        "Shared memory at /dev/shm": os.path.ismount("/dev/shm"),
    }
    tables = {
        "server": server,
        "client": {"Client library": (paths.lib() / "guest" / "libcuda.so.1").exists()},
        "controller": {"Python package click": _has("click")},
    }
    chosen = tables.values() if part == "all" else [tables[part]]
    return {label: value for table in chosen for label, value in table.items()}
