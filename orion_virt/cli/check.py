# SPDX-License-Identifier: Apache-2.0
"""`orion-check`: is the server, is the controller in order? The text is fixed: scripts read it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from orion_virt import config as configs
from orion_virt import paths
from orion_virt.cli import checks
from orion_virt.errors import OrionError


def _flag(label: str, value: bool) -> str:
    return f"{label:<40}[{'Yes' if value else 'No'}]"


def _binding(label: str, value: object) -> str:
    return f"{label:<40}{value}"


def _gpu_lines(found: dict[str, Any]) -> list[str]:
    gpus, lines = found["gpus"], []
    if found["error"]:
        return [f"[Error] {found['error']}"]
    if found["simulated"]:
        verb = "is" if len(gpus) == 1 else "are"
        lines.append(f"{len(gpus)} simulated GPU{'' if len(gpus) == 1 else 's'} {verb} found :")
    else:
        lines.append(f"CUDA driver {found['driver']}")
        lines.append(f"{found['driver']} is installed.")
        plural = "1 NVIDIA GPU is found :" if len(gpus) == 1 else f"{len(gpus)} NVIDIA GPUs are found :"
        lines.append(plural)
    return lines + [f"    {index} : {name}" for index, name in enumerate(gpus)]


def _server_lines(found: dict[str, Any]) -> list[str]:
    lines = ["Checking Orion Server status ..."]
    if found["user"] is None:
        lines.append("[Error] Orion Server is not running. Please start it: systemctl start oriond")
    else:
        lines.append(f"Orion Server is running with Linux user   : {found['user']}")
        lines.append("Orion Server is running with command line : /usr/bin/oriond ")
    lines.append(_flag("Enable SHM", found["enable_shm"]))
    lines.append(_flag("Enable RDMA", found["enable_rdma"]))
    lines.append(_flag("Enable Local QEMU-KVM with SHM", found["enable_kvm"]))
    lines += [_binding("Binding IP Address :", ip) for ip in found["addresses"] or found["bind_addr"]]
    lines.append(_binding("Listening Port :", found["port"]))
    lines += ["", "Testing the Orion Server network ..."]
    for addr, reached in found["reached"].items():
        lines.append(
            f"Orion Server can be reached through {addr}"
            if reached
            else f"[Error] Can not reach {addr}. Please make sure Orion Server is launched at the address, "
            "and the firewall is correctly set."
        )
    return lines


def _controller_lines(found: dict[str, Any]) -> list[str]:
    addr = found["addr"]
    lines = [
        "Checking Orion Controller status ...",
        "[Info] Orion Controller setting may be different in different SHELL.",
        "[Info] Environment variable ORION_CONTROLLER has the first priority.",
        "",
        f"Orion Controller addrress is set as {addr} in {found['source']}. "
        "Using this address to diagnose Orion Controller",
    ]
    if not found["reached"]:
        return lines + [
            f"[Error] Can not reach {addr}. Please make sure Orion Controller is launched at the address, "
            "and the firewall is correctly set."
        ]
    return lines + [
        f"Address {addr} is reached.",
        f"Orion Controller Version Infomation : {found['version']}",
        f"There are {found['total']} vGPU under managered by Orion Controller. {found['free']} vGPU are free now.",
    ]


def _server_text(found: dict[str, Any]) -> str:
    lines = ["Searching NVIDIA GPU ...", *_gpu_lines(found["gpu"]), ""]
    lines += ["Checking NVIDIA MPS ...", f"NVIDIA CUDA MPS is {'on' if found['mps'] else 'off'}.", ""]
    lines += [*_server_lines(found["server"]), "", *_controller_lines(found["controller"])]
    return "\n".join(lines)


def _finish(found: dict[str, Any], text: str, as_json: bool, ok: bool) -> None:
    click.echo(json.dumps(found | {"ok": ok}) if as_json else text)
    sys.exit(0 if ok else 1)


@click.group()
def main() -> None:
    """Says whether this machine's part of Orion vGPU is in order."""


@main.command()
@click.argument("side", type=click.Choice(["server", "client"]))
@click.option("--config", "file", type=click.Path(path_type=Path), help="Another server.conf or client.conf.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def runtime(side: str, file: Path | None, as_json: bool) -> None:
    """Checks what runs."""
    try:
        if side == "client":
            client = configs.load_client(file or paths.client_conf(), required=file is not None)
            found: dict[str, Any] = {"controller": checks.controller(client.controller_addr)}
            text = "\n".join(_controller_lines(found["controller"]))
            _finish(found, text, as_json, found["controller"]["reached"])
        config = configs.load_server(file or paths.server_conf(), required=file is not None)
        found = checks.server_side(config)
        ok = not found["gpu"]["error"] and found["server"]["user"] is not None and found["controller"]["reached"]
        _finish(found, _server_text(found), as_json, ok and all(found["server"]["reached"].values()))
    except OrionError as error:
        click.echo(f"[Error] {error}", err=True)
        sys.exit(error.exit_code)


@main.command()
@click.argument("part", type=click.Choice(["server", "client", "controller", "all"]))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def install(part: str, as_json: bool) -> None:
    """Checks what is needed before running."""
    found = checks.requirements(part)
    lines = ["Installation summaries :", *(_flag(label, value) for label, value in found.items())]
    _finish({"requirements": found}, "\n".join(lines), as_json, all(found.values()))


if __name__ == "__main__":
    main()
