# SPDX-License-Identifier: Apache-2.0
"""`orion-virt uninstall`."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import click

from orion_virt import config as configs
from orion_virt import libvirt_uri, paths
from orion_virt.cli.control import ask
from orion_virt.cli.hook import remove_from
from orion_virt.errors import OrionError, Unavailable
from orion_virt.server.libvirt_hook import HOOKS

WORK_SECONDS = 600.0  # each running domain may take its time to let go of the device


def _is_running() -> bool:
    try:
        ask("ping")
    except Unavailable:
        return False
    return True


def _restore() -> list[dict[str, str]]:
    """By oriond where it runs, which then ends; else by ourselves."""
    if not _is_running():
        from orion_virt.server.withdraw import without_oriond  # only here: libvirt need not be installed otherwise

        config = configs.load_server(paths.server_conf())
        return without_oriond(config, libvirt_uri.chosen(config.libvirt_uri))
    answer = ask("uninstall", WORK_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.kill(answer["pid"], signal.SIGINT)  # with its workers
    click.echo("oriond is stopped. Keep it from coming back: systemctl disable oriond")
    return list(answer["restored"])


@click.command()
@click.option("--directory", type=click.Path(path_type=Path), default=HOOKS, show_default=True, help="libvirt's hook directory")
def uninstall(directory: Path) -> None:
    """Makes every domain what it was: definitions, running devices, regions, hook. Stops oriond."""
    told = _restore()
    for domain in told:
        click.echo(f"{domain['name']}:")
        click.echo(f"  definition: {domain['config']}")
        click.echo(f"  running:    {domain['live']}")
    with contextlib.suppress(OrionError):
        click.echo("The hook is removed." if remove_from(directory) else "There was no hook.")
    if any(domain["config"].startswith("not restored") for domain in told):
        raise Unavailable("some definitions are not restored", hint="Mend what is named above, then run it again")
    click.echo("Domains start, save and migrate without orion-virt now. `pip uninstall orion-virt` removes the programs.")
