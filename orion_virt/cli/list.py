# SPDX-License-Identifier: Apache-2.0
"""`orion-virt list`."""

from __future__ import annotations

import json
from typing import Any

import click

from orion_virt.cli.control import ask

COLUMNS = ("DOMAIN", "STATE", "DEVICE", "REGION", "SERVER", "GUEST", "CHANNELS")


def row(domain: dict[str, Any]) -> tuple[str, ...]:
    """One domain's line."""
    size = f"{domain['size_mib']} MiB" if domain["size_mib"] else "-"
    return (domain["name"], domain["state"], domain["device"], size, ",".join(domain["server_addrs"]) or "-",
            ",".join(domain["addresses"]) or "-", str(domain["channels"]))


def table(rows: list[tuple[str, ...]]) -> str:
    """Left-aligned columns, as wide as they must be."""
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(r, widths)).rstrip() for r in rows)


@click.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, for programs.")
def list_domains(as_json: bool) -> None:
    """Shows every domain with its device, region, addresses and channels."""
    answer = ask("domains")
    if as_json:
        click.echo(json.dumps({k: v for k, v in answer.items() if k != "ok"}, indent=2))
        return
    click.echo(table([COLUMNS, *(row(d) for d in answer["domains"])]))
    for domain in answer["domains"]:
        for problem in domain["problems"]:
            click.echo(f"{domain['name']}: {problem}")
    click.echo(f"Regions use {answer['used_mib']} of {answer['budget_mib']} MiB.")
