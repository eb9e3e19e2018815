# SPDX-License-Identifier: Apache-2.0
"""`orion-virt list`."""

from __future__ import annotations

from typing import Any

import click

from orion_virt.cli import output
from orion_virt.cli.control import ask

COLUMNS = ("DOMAIN", "STATE", "DEVICE", "REGION", "SERVER", "GUEST", "VGPUS", "MEMORY", "PROCESSES", "CALLS/S",
           "COPIES")


def row(domain: dict[str, Any]) -> tuple[str, ...]:
    """One domain's line."""
    size = f"{domain['size_mib']} MiB" if domain["size_mib"] else "-"
    used = domain["usage"]
    return (domain["name"], domain["state"], domain["device"], size, ",".join(domain["server_addrs"]) or "-",
            ",".join(domain["addresses"]) or "-", *usage(used))


def usage(used: dict[str, Any]) -> tuple[str, ...]:
    """vGPUs, memory, processes and throughput: of a domain, a process, or all."""
    if not used["processes"]:
        return "0", "-", "0", "-", "-"
    memory = f"{used['used_bytes'] >> 20}/{used['memory_bytes'] >> 20} MiB"
    return (str(used["vgpus"]), memory, str(used["processes"]), str(used["calls_per_second"]),
            f"{used['bytes_per_second'] / 1e6:.1f} MB/s")


@click.command(name="list")
@output.json_option
def list_domains(as_json: bool) -> None:
    """Shows every domain with its device, region, addresses, and what its processes use.

    MEMORY is what the processes have allocated, and what they may; CALLS/S are calls that reached the host (the last
    second's), COPIES what they moved to and from the card.
    """
    answer = ask("domains")
    if as_json:
        output.emit(answer)
        return
    click.echo(output.table([COLUMNS, *(row(d) for d in answer["domains"])]))
    for domain in answer["domains"]:
        for problem in domain["problems"]:
            click.echo(f"{domain['name']}: {problem}")
    click.echo(f"Regions use {answer['used_mib']} of {answer['budget_mib']} MiB.")
