# SPDX-License-Identifier: Apache-2.0
"""`orion-virt detach`."""

from __future__ import annotations

import click

from orion_virt.cli.control import ask


@click.command()
@click.argument("domain")
@click.option("--persistent", is_flag=True, help="Also from its definition, and never give it back by itself.")
def detach(domain: str, persistent: bool) -> None:
    """Takes the device from the running DOMAIN; its CUDA programs end."""
    answer = ask("detach", domain=domain, persistent=persistent)
    click.echo(f"{answer['domain']}:")
    click.echo(f"  definition: {answer['config']}")
    click.echo(f"  running:    {answer['live']}")
