# SPDX-License-Identifier: Apache-2.0
"""`orion-virt config check`."""

from __future__ import annotations

from pathlib import Path

import click

from orion_virt import config as configs
from orion_virt import paths


@click.group()
def config() -> None:
    """The configuration files."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--client", is_flag=True, help="FILE is a client.conf (default: /etc/orion/client.conf).")
def check(file: Path | None, client: bool) -> None:
    """Checks FILE, by default /etc/orion/server.conf, as oriond does at its start and at SIGHUP."""
    from orion_virt.server import identity  # only here: each Tab of a shell imports this module

    path = file or (paths.client_conf() if client else paths.server_conf())
    loaded: configs.ClientConfig | configs.ServerConfig
    if client:
        loaded = configs.load_client(path, required=file is not None)
    else:
        loaded = configs.load_server(path, required=file is not None)
        identity.check(loaded.worker_user)
    for warning in loaded.warnings:
        click.echo(f"[Warning] {warning}", err=True)
    click.echo(f"{path} is in order." if path.exists() else f"{path} does not exist: every key has its default.")
