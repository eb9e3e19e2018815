# SPDX-License-Identifier: Apache-2.0
"""`orion-virt`: shared-memory devices of libvirt domains, for people."""

from __future__ import annotations

import sys
from typing import Any

import click

from orion_virt.cli.attach import attach
from orion_virt.cli.build_client import build_client
from orion_virt.cli.config import config
from orion_virt.cli.detach import detach
from orion_virt.cli.hook import hook
from orion_virt.cli.install import install
from orion_virt.cli.install_server import install_server
from orion_virt.cli.list import list_domains
from orion_virt.cli.region import region
from orion_virt.cli.show import show
from orion_virt.errors import OrionError

EPILOG = """\b
Exit status: 0 done; 1 failed; 2 wrong usage or configuration; 3 no such domain or region;
4 already there, or its state forbids it; 5 over a limit; 6 oriond or libvirt does not answer;
7 no permission; 8 not understood."""


class _Group(click.Group):
    """Turns an OrionError into one line on stderr and its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OrionError as error:
            click.echo(f"Error: {error.message}.", err=True)
            if error.hint:
                click.echo(error.hint.rstrip(".") + ".", err=True)
            sys.exit(error.exit_code)


@click.group(cls=_Group, epilog=EPILOG)
def main() -> None:
    """Gives libvirt domains the shared memory through which their CUDA programs use this host's GPUs.

    oriond does it by itself for every domain; these commands look, correct and repair.
    """


for command in (attach, build_client, config, detach, hook, install, install_server, list_domains, region, show):
    main.add_command(command)

if __name__ == "__main__":
    main()
