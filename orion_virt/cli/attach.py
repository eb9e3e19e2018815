# SPDX-License-Identifier: Apache-2.0
"""`orion-virt attach`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from orion_virt.cli import output, several
from orion_virt.cli.complete import domains_argument
from orion_virt.cli.control import ask
from orion_virt.errors import ConfigError

START_SECONDS = 120.0  # a domain that starts takes its devices, networks and hooks one by one
XML_BYTES = 48 << 10  # of one line of control.sock, with what JSON escapes
PROVEN = "by a handshake of the guest"
NOT_PROVEN = "not yet: only a program of the guest that connects shows that it sees the device"


def request(domain: str, size_mib: int | None, start: bool, once: bool) -> dict[str, Any]:
    """What oriond is asked. DOMAIN with a slash or .xml at its end is a file, of a transient domain."""
    fields: dict[str, Any] = {"domain": domain}
    if "/" in domain or domain.endswith(".xml"):
        if not start:
            raise ConfigError(f"{domain} looks like a file, and a file can only be started",
                              hint=f"orion-virt attach --start {domain}")
        try:
            fields = {"xml": Path(domain).read_text(encoding="utf-8")}
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{domain} cannot be read: {error}", hint="Name a domain or the file of its XML") from error
        if len(fields["xml"].encode()) > XML_BYTES:
            raise ConfigError(f"{domain} is larger than {XML_BYTES >> 10} KiB", hint="Define the domain, then attach it by name")
    if size_mib is not None:
        fields["size_mib"] = size_mib
    return {**fields, **{word: True for word, given in (("start", start), ("once", once)) if given}}


def show(answer: dict[str, Any]) -> None:
    """One domain's answer, for people."""
    click.echo(f"{answer['domain']}: region orion-{answer['uuid']}, {answer['size_mib']} MiB")
    click.echo(f"  definition: {answer['config']}")
    click.echo(f"  running:    {answer['live']}")
    if answer["live"].startswith(("attached", "already", "started")):
        click.echo(f"  proven:     {PROVEN if answer['proven'] else NOT_PROVEN}")


@click.command()
@domains_argument
@click.option("--size", "size_mib", type=click.IntRange(2, 1 << 20), metavar="MIB",
              help="Size of its region; rounded up to a power of two. It is kept in the domain's metadata.")
@click.option("--start", is_flag=True, help="Start it, which must be shut off, with the device: paused, plugged in, "
              "resumed. DOMAIN may be the XML file of a transient domain.")
@click.option("--once", is_flag=True, help="For this run only: its definition is left alone.")
@several.all_option
@output.json_option
def attach(domains: tuple[str, ...], size_mib: int | None, start: bool, once: bool, every: bool, as_json: bool) -> None:
    """Gives each DOMAIN (name, UUID or id) its device, in its definition and, where possible, at once."""

    def do(domain: str) -> dict[str, Any]:
        return ask("attach", START_SECONDS, **request(domain, size_mib, start, once))

    several.each(several.chosen(domains, every), do, show, as_json)
