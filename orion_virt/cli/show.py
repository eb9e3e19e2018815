# SPDX-License-Identifier: Apache-2.0
"""`orion-virt show`."""

from __future__ import annotations

import json

import click

from orion_virt.cli import addresses, output
from orion_virt.cli.complete import domain_argument
from orion_virt.cli.control import ask
from orion_virt.errors import NotFound

LINES = (("state", "state"), ("uuid", "uuid"), ("device", "device"), ("size_mib", "region (MiB)"),
         ("server_addrs", "server address"), ("controller_addr", "controller"), ("addresses", "guest address"),
         ("channels", "channels"), ("reason", "why"))


@click.command()
@domain_argument
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, for programs.")
def show(domain: str, as_json: bool) -> None:
    """Shows one DOMAIN (name or UUID): its device, where its guest reaches this host and why there, its addresses."""
    for found in ask("domains")["domains"]:
        if domain in (found["name"], found["uuid"]):
            break
    else:
        raise NotFound(f"there is no domain {domain!r}", hint="`virsh list --all` shows the domains that libvirt knows")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(found["name"])
    for key, label in LINES:
        value = found[key]
        click.echo(f"  {label + ':':<16} {', '.join(value) if isinstance(value, list) else value}")
    click.echo(f"  {'settings:':<16} {output.settings_line(found)}")
    for line in addresses.gateway_lines(found):
        click.echo(line)
    for problem in found["problems"]:
        click.echo(f"  problem: {problem}")
    for line in addresses.domifaddr(found["name"], found["domifaddr"]):
        click.echo(line)
