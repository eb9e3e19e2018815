# SPDX-License-Identifier: Apache-2.0
"""Completion of domain names, and `orion-virt completion`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from orion_virt.cli import control
from orion_virt.errors import OrionError

ANSWER_SECONDS = 1.0  # a shell that waits for Tab is worse than one that offers nothing
# Shell -> where below /usr/share or /usr/local/share it looks.
PLACES = {
    "bash": "bash-completion/completions/orion-virt",
    "zsh": "zsh/site-functions/_orion-virt",
    "fish": "fish/vendor_completions.d/orion-virt.fish",
}


def script(shell: str) -> str:
    """What makes `shell` ask us for the words that fit."""
    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    return found(click.Command("orion-virt"), {}, "orion-virt", "_ORION_VIRT_COMPLETE").source() + "\n"


def domain_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names that start so, but for those on the line already; none, and no word, where oriond does not answer."""
    try:
        names = control.ask("names", ANSWER_SECONDS)["names"]
    except OrionError:
        return []
    there = ctx.params.get(param.name or "") or ()
    return [CompletionItem(name) for name in names if name.startswith(incomplete) and name not in there]


def domain_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """The one domain of a command: name, UUID or id."""
    return click.argument("domain", shell_complete=domain_names)(function)


def domains_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Several domains of a command."""
    return click.argument("domains", nargs=-1, metavar="DOMAIN...", shell_complete=domain_names)(function)


@click.command()
@click.argument("shell", type=click.Choice(list(PLACES)))
def completion(shell: str) -> None:
    """Prints the completion script of SHELL, which packages and install-server put in place.

    \b
    bash: orion-virt completion bash > /etc/bash_completion.d/orion-virt
    zsh:  orion-virt completion zsh > /usr/share/zsh/site-functions/_orion-virt
    fish: orion-virt completion fish > /usr/share/fish/vendor_completions.d/orion-virt.fish
    """
    click.echo(script(shell), nl=False)
