# SPDX-License-Identifier: Apache-2.0
"""`orion-virt detach`."""

from __future__ import annotations

import click

from orion_virt.cli.control import ask
from orion_virt.errors import OrionError


@click.command()
@click.argument("domains", metavar="DOMAIN...", nargs=-1, required=True)
@click.option("--persistent", is_flag=True, help="Also from its definition, and never give it back by itself.")
def detach(domains: tuple[str, ...], persistent: bool) -> None:
    """Takes the device from each running DOMAIN; its CUDA programs end."""
    first: OrionError | None = None
    for domain in domains:
        try:
            answer = ask("detach", domain=domain, persistent=persistent)
        except OrionError as error:
            if len(domains) == 1:
                raise
            click.echo(f"Error: {error}", err=True)
            first = first or error
            continue
        click.echo(f"{answer['domain']}:")
        click.echo(f"  definition: {answer['config']}")
        click.echo(f"  running:    {answer['live']}")
    if first is not None:
        raise SystemExit(first.exit_code)
