# SPDX-License-Identifier: Apache-2.0
"""`orion-virt build-client`: the installer for guests, one file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click

from orion_virt import config as configs
from orion_virt import paths
from orion_virt.errors import ConfigError, Forbidden, NotFound

_UNSET = b"\n    ; controller_addr = 33.31.0.1:9123\n"


def installer(controller: str = "") -> bytes:
    """install-client, with the controller's address in the client.conf that it writes. Raises NotFound, ConfigError."""
    path = paths.lib() / "install-client"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path} is missing", hint="Run `make build`, or install orion-virt again") from None
    if not controller:
        return data
    pair = configs.split_addr(controller, configs.DEFAULT_CONTROLLER_PORT)
    if pair is None or set(controller) & set(" \t\n'\"`$\\;#"):
        raise ConfigError(f"--controller {controller!r} is not valid", hint="Accepted: address:port, e.g. 33.31.0.1:9123")
    if data.count(_UNSET) != 1:
        raise NotFound(f"{path} has no place for the controller's address", hint="Run `make build`, or install orion-virt again")
    return data.replace(_UNSET, f"\n    controller_addr = {configs.join_addr(*pair)}\n".encode())


@click.command(name="build-client")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("install-client"), show_default=True, help="The file.")
@click.option("--controller", default="", metavar="IP:PORT",
              help="Write this into the guest's client.conf; not needed in a domain with the shared-memory device.")
def build_client(output: Path, controller: str) -> None:
    """Writes install-client, the one file that a guest needs: copy it there and run it as root."""
    data = installer(controller)
    try:
        fd, name = tempfile.mkstemp(dir=output.absolute().parent, prefix=f".{output.name}.")
        with open(fd, "wb") as file:
            file.write(data)
        os.chmod(name, 0o755)
        os.replace(name, output)
    except OSError as error:
        raise Forbidden(f"{output} cannot be written: {error.strerror}", hint="Name another with -o") from error
    click.echo(f"{output} is written. In the guest, as root: sh {output.name}")
