# SPDX-License-Identifier: Apache-2.0
"""`orion-virt detach`."""

from __future__ import annotations

from typing import Any

import click

from orion_virt.cli import output, several
from orion_virt.cli.complete import domains_argument
from orion_virt.cli.control import ask


def _show(answer: dict[str, Any]) -> None:
    click.echo(f"{answer['domain']}:")
    click.echo(f"  definition: {answer['config']}")
    click.echo(f"  running:    {answer['live']}")


@click.command()
@domains_argument
@click.option("--persistent", is_flag=True, help="Also from its definition, and never give it back by itself.")
@several.all_option
@output.json_option
def detach(domains: tuple[str, ...], persistent: bool, every: bool, as_json: bool) -> None:
    """Takes the device from each running DOMAIN; its CUDA programs end."""
    chosen = several.chosen(domains, every)
    several.each(chosen, lambda domain: ask("detach", domain=domain, persistent=persistent), _show, as_json)
