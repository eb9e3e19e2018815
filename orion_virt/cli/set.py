# SPDX-License-Identifier: Apache-2.0
"""`orion-virt set`: a domain's settings, which live in its metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from orion_virt.cli import output
from orion_virt.cli.complete import domain_argument
from orion_virt.cli.control import ask

# Name -> (metavar, help); what is accepted is the schema's business (orion_virt/domain/vgpu.rng).
OPTIONS = {
    "enabled": ("yes|no", "no: the domain never has a device."),
    "required": ("yes|no", "yes: the domain does not start while oriond does not answer."),
    "vgpus": ("N", "vGPUs of each process: its default, and at most."),
    "memory": ("MIB", "Memory of each vGPU: its default, and at most."),
    "total": ("N", "vGPUs of all processes of the domain together, at most."),
    "compute": ("PERCENT", "Percent of a card's time for each vGPU, where the server limits compute: its default, and at most."),
    "region": ("MIB", "Size of its shared memory; from the next start on."),
    "doorbell": ("yes|no", "yes: the guest rings its device instead of sending a packet; from the next start on."),
    "gateway": ("IP", "Address of this host where the guest reaches oriond."),
}


def _names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in OPTIONS if name.startswith(incomplete)]


def _options(function: Callable[..., None]) -> Callable[..., None]:
    for name, (metavar, text) in reversed(OPTIONS.items()):
        function = click.option(f"--{name}", metavar=metavar, help=text)(function)
    return function


@click.command(name="set")
@domain_argument
@_options
@click.option(
    "--unset", multiple=True, metavar="NAME", shell_complete=_names, help="Back to the default; can be repeated."
)
@click.option("--live", is_flag=True, help="Only the running domain, until it is shut down.")
@click.option("--config", is_flag=True, help="Only the definition, from the next start on.")
@output.json_option
def set_domain(
    domain: str, unset: tuple[str, ...], live: bool, config: bool, as_json: bool, **values: str | None
) -> None:
    """Changes settings of DOMAIN, as `virsh metadata` and `virsh edit` do, and says when each takes effect.

    Without --live and --config both the definition and the running domain are changed.
    """
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    if not given and not unset:
        raise click.UsageError(
            f"nothing to set: name one of {', '.join('--' + n for n in OPTIONS)}, or --unset NAME. "
            f"`orion-virt show {domain}` shows the present settings"
        )
    answer = ask("set", domain=domain, values=given, unset=list(unset), live=live, config=config)
    if as_json:
        output.emit(answer)
        return
    click.echo(f"{answer['domain']}: {output.settings_line(answer)}")
    for name, when in answer["effects"].items():
        click.echo(f"  {name + ('=' + given[name] if name in given else ' unset')}: {when}")
    for problem in answer["problems"]:
        click.echo(f"  problem: {problem}")
