# SPDX-License-Identifier: Apache-2.0
"""`orion-virt attach`."""

from __future__ import annotations

from typing import Any

import click

from orion_virt.cli import output, several
from orion_virt.cli.complete import domains_argument
from orion_virt.cli.control import ask


def _show(answer: dict[str, Any]) -> None:
    click.echo(f"{answer['domain']}: region orion-{answer['uuid']}, {answer['size_mib']} MiB")
    click.echo(f"  definition: {answer['config']}")
    click.echo(f"  running:    {answer['live']}")


@click.command()
@domains_argument
@click.option("--size", "size_mib", type=click.IntRange(2, 1 << 20), metavar="MIB",
              help="Size of its region; rounded up to a power of two. It is kept in the domain's metadata.")
@several.all_option
@output.json_option
def attach(domains: tuple[str, ...], size_mib: int | None, every: bool, as_json: bool) -> None:
    """Gives each DOMAIN (name, UUID or id) its device, in its definition and, where possible, at once."""
    more = {} if size_mib is None else {"size_mib": size_mib}
    several.each(several.chosen(domains, every), lambda domain: ask("attach", domain=domain, **more), _show, as_json)
