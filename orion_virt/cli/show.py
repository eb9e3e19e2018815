# SPDX-License-Identifier: Apache-2.0
"""`orion-virt show`."""

from __future__ import annotations

import click

from orion_virt.cli.attach import NOT_PROVEN, PROVEN
from orion_virt.cli.control import ask
from orion_virt.errors import NotFound

LINES = (("state", "state"), ("uuid", "uuid"), ("device", "device"), ("size_mib", "region (MiB)"),
         ("server_addrs", "server address"), ("controller_addr", "controller"), ("addresses", "guest address"),
         ("channels", "channels"), ("reason", "why"))


@click.command()
@click.argument("domain")
def show(domain: str) -> None:
    """Shows one DOMAIN (name or UUID)."""
    for found in ask("domains")["domains"]:
        if domain in (found["name"], found["uuid"]):
            break
    else:
        raise NotFound(f"there is no domain {domain!r}", hint="`virsh list --all` shows the domains that libvirt knows")
    click.echo(found["name"])
    for key, label in LINES:
        value = found[key]
        click.echo(f"  {label + ':':<16} {', '.join(value) if isinstance(value, list) else value}")
    if found["device"] == "live":
        click.echo(f"  {'proven:':<16} {PROVEN if found['proven'] else NOT_PROVEN}")
    for problem in found["problems"]:
        click.echo(f"  problem: {problem}")
