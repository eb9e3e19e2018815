# SPDX-License-Identifier: Apache-2.0
"""`orion-virt attach`."""

from __future__ import annotations

import click

from orion_virt.cli.control import ask


@click.command()
@click.argument("domain")
@click.option("--size", "size_mib", type=click.IntRange(2, 1 << 20), metavar="MIB",
              help="Size of its region; rounded up to a power of two. It is kept in the domain's metadata.")
def attach(domain: str, size_mib: int | None) -> None:
    """Gives DOMAIN (name, UUID or id) its device, in its definition and, where possible, at once."""
    answer = ask("attach", domain=domain, **({} if size_mib is None else {"size_mib": size_mib}))
    click.echo(f"{answer['domain']}: region orion-{answer['uuid']}, {answer['size_mib']} MiB")
    click.echo(f"  definition: {answer['config']}")
    click.echo(f"  running:    {answer['live']}")
