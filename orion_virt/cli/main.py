# SPDX-License-Identifier: Apache-2.0
"""`orion-virt`: shared-memory devices of libvirt domains, for people."""

from __future__ import annotations

import sys
from typing import Any

import click

from orion_virt import libvirt_uri
from orion_virt.cli import several, status
from orion_virt.cli.attach import attach
from orion_virt.cli.build_client import build_client
from orion_virt.cli.complete import completion
from orion_virt.cli.config import config
from orion_virt.cli.detach import detach
from orion_virt.cli.doctor import doctor
from orion_virt.cli.hook import hook
from orion_virt.cli.install import install
from orion_virt.cli.install_server import install_server
from orion_virt.cli.list import list_domains
from orion_virt.cli.logs import logs
from orion_virt.cli.pool import allocations, reservations, reserve
from orion_virt.cli.region import region
from orion_virt.cli.set import set_domain
from orion_virt.cli.show import show
from orion_virt.cli.top import top
from orion_virt.cli.transfer import migrate, save
from orion_virt.cli.uninstall import uninstall
from orion_virt.cli.web import web
from orion_virt.errors import OrionError


class _Group(click.Group):
    """Turns an OrionError into one line on stderr and its exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            libvirt_uri.chosen()
            return super().invoke(ctx)
        except OrionError as error:
            several.say(error)
            sys.exit(error.exit_code)


@click.group(cls=_Group, epilog=status.EPILOG)
def main() -> None:
    """Gives libvirt domains the shared memory through which their CUDA programs use this host's GPUs.

    oriond does it by itself for every domain; these commands look, correct and repair.
    """


for command in (allocations, attach, build_client, completion, config, detach, doctor, hook, install, install_server, list_domains,
                logs, migrate, region, reservations, reserve, save, set_domain, show, top, uninstall, web):
    main.add_command(command)

if __name__ == "__main__":
    main()
