# SPDX-License-Identifier: Apache-2.0
"""Commands that take several domains: one that fails does not keep the others from being done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from orion_virt.cli import output
from orion_virt.cli.control import ask
from orion_virt.errors import OrionError

all_option: Callable[[Any], Any] = click.option("--all", "every", is_flag=True, help="Every domain that libvirt knows.")


def chosen(domains: Sequence[str], every: bool) -> list[str]:
    """The named domains, each once, or all. Raises UsageError for neither and for both."""
    if every == bool(domains):
        raise click.UsageError(
            "name the domains, or --all" if not every else "--all and names of domains exclude each other"
        )
    return list(ask("names")["names"]) if every else list(dict.fromkeys(domains))


def each(
    domains: Sequence[str], do: Callable[[str], dict[str, Any]], show: Callable[[dict[str, Any]], None], as_json: bool
) -> None:
    """Does and shows each; ends with the status of the first error, all of which are on stderr."""
    done: list[dict[str, Any]] = []
    status = 0
    for domain in domains:
        try:
            answer = do(domain)
            done.append({k: v for k, v in answer.items() if k != "ok"})
            if not as_json:
                show(answer)
        except OrionError as error:
            status = status or error.exit_code
            done.append({"domain": domain, "error": error.message, "hint": error.hint, "exit_code": error.exit_code})
            say(error)
    if as_json:
        output.emit({"domains": done})
    sys.exit(status)


def say(error: OrionError) -> None:
    """An error as every command tells it: what is wrong, then what to do."""
    click.echo(f"Error: {error.message}.", err=True)
    if error.hint:
        click.echo(error.hint.rstrip(".") + ".", err=True)
