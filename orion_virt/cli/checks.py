# SPDX-License-Identifier: Apache-2.0
"""What orion-check looks at, as plain data; the printing is in check.py."""

from __future__ import annotations

import http.client
import os
import pwd
import socket
from pathlib import Path
from typing import Any

from orion_virt import config as configs
from orion_virt.cli import control
from orion_virt.config import ServerConfig, join_addr, split_addr
from orion_virt.errors import Forbidden, OrionError
from orion_virt.gpu import inventory

_SECONDS = 3.0
_MODULE = "orion_virt.cli.oriond"


def ask() -> tuple[dict[str, Any] | None, str]:
    """The status of the running oriond, or None and why there is none."""
    try:
        return control.ask("status", patience=_SECONDS), ""
    except control.NotRunning:
        return None, "Orion Server is not running. Please start it: systemctl start oriond"
    except Forbidden as error:
        return None, f"Orion Server can not be asked: {error}."
    except OrionError as error:
        return None, f"Orion Server is not in order: {error}."


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


def command_line(pid: int) -> str:
    """How the process was started; "unknown" when it is gone."""
    try:
        return shown_command(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return "unknown"


def shown_command(cmdline: bytes) -> str:
    """As the user gave it: without the interpreter in front; each word is followed by a blank."""
    words = cmdline.decode("utf-8", "replace").rstrip("\0").split("\0")
    if Path(words[0]).name.startswith("python"):
        words = [word for word in words[1:] if word != "-I"]
    if words[:2] == ["-m", _MODULE]:
        words[:2] = ["oriond"]
    return "".join(f"{word} " for word in words)


def _server(config: ServerConfig, status: dict[str, Any] | None, problem: str) -> dict[str, Any]:
    addrs = status["server_addrs"] if status else [join_addr(ip, config.listen_port) for ip in config.bind_addr]
    pairs = [split_addr(addr, config.listen_port) for addr in addrs]
    shown = status or {}
    return {
        "problem": problem,
        "user": _user_of(status["pid"]) if status else None,
        "command_line": command_line(status["pid"]) if status else None,
        "registered": status["registered"] if status else None,
        "enable_shm": shown.get("enable_shm", config.enable_shm),
        "enable_rdma": shown.get("enable_rdma", config.enable_rdma),
        "enable_kvm": shown.get("enable_kvm", config.enable_kvm),
        "bind_addr": list(config.bind_addr) or ["auto"],
        "addresses": [pair[0] for pair in pairs if pair is not None],
        "port": shown.get("port", config.listen_port),
        "reached": {addr: reaches(addr) for addr in addrs},
    }


def controller(addr: str) -> dict[str, Any]:
    """Version and counts of the controller at `addr` ("" where nothing is set)."""
    source = "environment variable" if os.environ.get("ORION_CONTROLLER") else "configuration file"
    if not addr:
        addr, source = f"127.0.0.1:{configs.DEFAULT_CONTROLLER_PORT}", "default settings"
    found: dict[str, Any] = {"addr": addr, "source": source, "connected": False, "problem": "", "version": "",
                             "total": 0, "free": 0}
    pair = split_addr(addr, configs.DEFAULT_CONTROLLER_PORT)
    assert pair is not None, "config has checked it"
    try:
        socket.create_connection(pair, timeout=_SECONDS).close()
        found["connected"] = True
        found["version"] = _get(pair, "/info?data_version&api_version")
        found["total"] = int(_get(pair, "/devices?res=nvidia_cuda").rsplit("=", 1)[1])
        found["free"] = int(_get(pair, "/devices?res=nvidia_cuda&used=true").rsplit("=", 1)[1])
    except (OSError, http.client.HTTPException, ValueError, IndexError) as error:
        found["problem"] = str(error).strip()[:200] or type(error).__name__
    return found


def _get(pair: tuple[str, int], path: str) -> str:
    connection = http.client.HTTPConnection(*pair, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read(4096).decode("utf-8", "replace")
        if answer.status != 200:
            raise ValueError(f"HTTP {answer.status}")
        return text
    finally:
        connection.close()


def server_side(config: ServerConfig) -> dict[str, Any]:
    """Everything that `orion-check runtime server` tells."""
    status, problem = ask()
    return {
        "gpu": _gpus(config, status),
        "mps": mps_is_on(),
        "server": _server(config, status, problem),
        "controller": controller(config.controller_addr),
    }
