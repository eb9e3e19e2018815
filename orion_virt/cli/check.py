# SPDX-License-Identifier: Apache-2.0
"""`orion-check`: is the server, is the controller in order? The text is fixed: scripts read it, its misspellings too."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from orion_virt import config as configs
from orion_virt import paths
from orion_virt.cli import checks, requirements
from orion_virt.errors import OrionError

ERROR = "[Error] "


def _flag(label: str, value: bool) -> str:
    return f"{label:<40}[{'Yes' if value else 'No'}]"


def _binding(label: str, value: object) -> str:
    return f"{label:<40}{value}"


def _can_not_reach(addr: str, what: str) -> str:
    return (f"{ERROR}Can not reach {addr}. Please make sure {what} is launched at the address, "
            "and the firewall is correctly set.")


def _gpu_lines(found: dict[str, Any]) -> list[str]:
    gpus, lines = found["gpus"], []
    if found["error"]:
        return [f"{ERROR}{found['error']}"]
    if not gpus:
        return [f"{ERROR}No GPU is found. Please check nvidia-smi and [server] driver in the configuration file."]
    if not found["simulated"]:
        lines += ("CUDA driver " + "\n".join([found["driver"]] * len(gpus)) + " is installed.").splitlines()
    kind = "simulated" if found["simulated"] else "NVIDIA"
    lines.append(f"1 {kind} GPU is found :" if len(gpus) == 1 else f"{len(gpus)} {kind} GPUs are found :")
    return lines + [f"    {index} : {name}" for index, name in enumerate(gpus)]


def _server_lines(found: dict[str, Any]) -> list[str]:
    lines = ["Checking Orion Server status ..."]
    if found["problem"]:
        lines.append(f"{ERROR}{found['problem']}")
    else:
        lines.append(f"Orion Server is running with Linux user   : {found['user']}")
        lines.append(f"Orion Server is running with command line : {found['command_line']}")
    lines.append(_flag("Enable SHM", found["enable_shm"]))
    lines.append(_flag("Enable RDMA", found["enable_rdma"]))
    lines.append(_flag("Enable Local QEMU-KVM with SHM", found["enable_kvm"]))
    lines += [_binding("Binding IP Address :", ip) for ip in found["addresses"] or found["bind_addr"]]
    lines.append(_binding("Listening Port :", found["port"]))
    lines += ["", "Testing the Orion Server network ..."]
    lines += [f"Orion Server can be reached through {addr}" if reached else _can_not_reach(addr, "Orion Server")
              for addr, reached in found["reached"].items()]
    if not found["reached"]:
        lines.append(f"{ERROR}No address to test: bind_addr is auto, and Orion Server does not tell which it has bound.")
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
    if not found["connected"]:
        return [*lines, _can_not_reach(addr, "Orion Controller")]
    if found["problem"]:
        return [*lines, f"{ERROR}Address {addr} is reached, but what answers there is no Orion Controller: "
                        f"{found['problem']}. Please check controller_addr."]
    lines += [
        f"Address {addr} is reached.",
        f"Orion Controller Version Infomation : {found['version']}",
        f"There are {found['total']} vGPU under managered by Orion Controller. {found['free']} vGPU are free now.",
    ]
    if found["total"] == 0:
        lines.append(f"{ERROR}No Orion Server is registered with the Orion Controller at {addr}. "
                     "Please make sure Orion Server is launched and its controller_addr is that one.")
    return lines


def server_text(found: dict[str, Any]) -> str:
    """What `orion-check runtime server` prints of checks.server_side()."""
    lines = ["Searching NVIDIA GPU ...", *_gpu_lines(found["gpu"]), ""]
    lines += ["Checking NVIDIA MPS ...", f"NVIDIA CUDA MPS is {'on' if found['mps'] else 'off'}.", ""]
    lines += [*_server_lines(found["server"]), "", *_controller_lines(found["controller"])]
    if found["server"]["registered"] is False and found["controller"]["total"]:
        lines.append(f"{ERROR}Orion Server is not registered with the Orion Controller. "
                     "Please look at its log: journalctl -u oriond")
    return "\n".join(lines)


def client_text(found: dict[str, Any]) -> str:
    """What `orion-check runtime client` prints."""
    return "\n".join(_controller_lines(found["controller"]))


def install_text(found: list[requirements.Requirement]) -> str:
    """The remedies of what is missing, then the table."""
    lines = [f"{ERROR}{one.label}: {one.remedy}" for one in found if not one.fulfilled]
    lines += ["Installation summaries :"]
    return "\n".join([*lines, *(f"{one.label:<40} [{'Yes' if one.fulfilled else 'No'}]" for one in found)])


def _finish(found: dict[str, Any], text: str, as_json: bool) -> None:
    errors = [line.removeprefix(ERROR) for line in text.splitlines() if line.startswith(ERROR)]
    click.echo(json.dumps(found | {"ok": not errors, "errors": errors}) if as_json else text)
    sys.exit(1 if errors else 0)


@click.group()
def main() -> None:
    """Says whether this machine's part of Orion vGPU is in order: exit status 0 if it is, 1 if not."""


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
            _finish(found, client_text(found), as_json)
        config = configs.load_server(file or paths.server_conf(), required=file is not None)
        found = checks.server_side(config)
        _finish(found, server_text(found), as_json)
    except OrionError as error:
        click.echo(f"{ERROR}{error}", err=True)
        sys.exit(error.exit_code)


@main.command()
@click.argument("part", type=click.Choice(["server", "client", "controller", "all"]))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def install(part: str, as_json: bool) -> None:
    """Checks what is needed before running."""
    found = requirements.of(part)
    _finish({"requirements": {one.label: one.fulfilled for one in found}}, install_text(found), as_json)


if __name__ == "__main__":
    main()
