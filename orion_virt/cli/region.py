# SPDX-License-Identifier: Apache-2.0
"""`orion-virt region`: regions of what is no libvirt domain, such as containers."""

from __future__ import annotations

import uuid as uuids

import click

from orion_virt.cli import output
from orion_virt.cli.control import ask


@click.group()
def region() -> None:
    """Regions for what is no domain (a container, a process of this host): ORION_REGION names the file."""


@region.command()
@click.option("--uuid", default=None, help="Its name will be orion-UUID; a new one if none is given.")
@click.option("--size", "size_mib", type=click.IntRange(2, 1 << 20), default=128, show_default=True, metavar="MIB")
@click.option("--vgpus", type=int, metavar="N", help="vGPUs of a process there: default and ceiling.")
@click.option("--memory", type=int, metavar="MIB", help="MiB of each vGPU: default and ceiling.")
@click.option("--total", type=int, metavar="N", help="vGPUs of all its processes together, at most.")
@output.json_option
def create(uuid: str | None, size_mib: int, as_json: bool, **limits: int | None) -> None:
    """Makes a region and prints its file's path."""
    given = {name: value for name, value in limits.items() if value is not None}
    answer = ask("region-create", uuid=uuid or str(uuids.uuid4()), size_mib=size_mib, **given)
    if as_json:
        output.emit(answer)
    else:
        click.echo(answer.get("path", ""))


@region.command()
@click.argument("uuid")
@output.json_option
def remove(uuid: str, as_json: bool) -> None:
    """Ends the clients of region UUID and removes it."""
    answer = ask("region-remove", uuid=uuid)
    if as_json:
        output.emit(answer)
    else:
        click.echo(f"orion-{uuid} is removed")
