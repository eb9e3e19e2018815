# SPDX-License-Identifier: Apache-2.0
"""Completion of domain names, and `orion-virt completion`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from orion_virt.cli import control
from orion_virt.errors import OrionError

ANSWER_SECONDS = 1.0  # a shell that waits for Tab is worse than one that offers nothing
SHELLS = ("bash", "zsh", "fish")


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
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Prints the completion script of SHELL.

    \b
    bash: orion-virt completion bash > /etc/bash_completion.d/orion-virt
    zsh:  orion-virt completion zsh > /usr/share/zsh/site-functions/_orion-virt
    fish: orion-virt completion fish > /usr/share/fish/vendor_completions.d/orion-virt.fish
    """
    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    root = ctx.find_root().command
    sys.stdout.write(found(root, {}, "orion-virt", "_ORION_VIRT_COMPLETE").source() + "\n")
