# SPDX-License-Identifier: Apache-2.0
"""`orion-virt install DOMAIN`: the client into a running guest, through its guest agent."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from orion_virt import config as configs
from orion_virt import libvirt_uri, paths
from orion_virt.cli.build_client import installer
from orion_virt.cli.complete import domain_argument
from orion_virt.errors import ConfigError, NotFound, OrionError

if TYPE_CHECKING:
    from orion_virt.domain.agent import Agent, Done

RUN_SECONDS = 300.0


def connect(domain: str) -> tuple[Agent, str]:
    """The agent of a running domain, and the domain's name. Raises OrionError."""
    from orion_virt.domain.agent import Agent, through_libvirt  # only here: each Tab of a shell imports this module
    from orion_virt.domain.connection import Connection

    config = configs.load_server(paths.server_conf())
    connection = Connection.plain(libvirt_uri.chosen(config.libvirt_uri))
    uuid = connection.resolve(domain)
    view = connection.view(uuid)
    if view is None:
        raise NotFound(f"there is no domain {domain!r}", hint="`virsh list --all` shows the domains that libvirt knows")
    return Agent(through_libvirt(connection.domain(uuid), view)), view.name


@contextlib.contextmanager
def _directory(agent: Agent) -> Iterator[str]:
    """A directory of root's own in the guest, gone at the end."""
    done = agent.run(["mktemp", "-d", "/tmp/orion.XXXXXXXX"], RUN_SECONDS)
    path = done.out.strip()
    if done.status or not re.fullmatch(r"/tmp/orion\.\w+", path):
        raise OrionError(f"no directory can be made in the guest: {(done.err or done.out).strip()}", hint="Is its disk full?")
    try:
        yield path
    finally:
        agent.run(["rm", "-rf", path], RUN_SECONDS)


def _copy(agent: Agent, path: str, data: bytes) -> None:
    with click.progressbar(length=len(data), label="Copying install-client", file=sys.stderr) as bar:
        agent.write(path, data, bar.update)


def _must(done: Done, what: str) -> str:
    if done.status:
        said = (done.err or done.out).strip()
        raise OrionError(f"{what} failed in the guest with status {done.status}: {said}", hint="Nothing else was changed")
    return done.err + done.out


def _check(agent: Agent) -> None:
    """Shows what the guest's orion-check says; what it finds wrong is for people, the client is installed."""
    for part in ("install", "runtime"):
        done = agent.run(["/usr/lib/orion/orion-check", part, "client"], RUN_SECONDS)
        click.echo((done.out + done.err).rstrip())
        if done.status:
            break


@click.command()
@domain_argument
@click.option("--user", metavar="NAME", help="User of the guest who may use vGPUs: joins the group orion.")
@click.option("--controller", default="", metavar="IP:PORT", help="Write this into the guest's client.conf.")
@click.option("--force", is_flag=True, help="Although the guest has a real NVIDIA driver loaded.")
@click.option("--uninstall", is_flag=True, help="Remove the client instead.")
def install(domain: str, user: str | None, controller: str, force: bool, uninstall: bool) -> None:
    """Puts the client into the running guest of DOMAIN (name, UUID or id), through its qemu-guest-agent.

    Nothing is needed in the guest but that agent; installing again is an upgrade. Then shows what orion-check says there.
    """
    if user is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*\$?", user):
        raise ConfigError(f"--user {user!r} is not valid", hint="Accepted: the name of a user of the guest")
    data = installer(controller)
    agent, name = connect(domain)
    agent.require()
    options = ["-q", *(["--user", user] if user else []), *(["--force"] if force else []), *(["--uninstall"] if uninstall else [])]
    with _directory(agent) as directory:
        path = f"{directory}/install-client"
        _copy(agent, path, data)
        click.echo(f"Running install-client {' '.join(options)} in {name}", err=True)
        said = _must(agent.run(["/bin/sh", path, *options], RUN_SECONDS), "install-client").strip()
    if said:
        click.echo(said, err=True)
    if uninstall:
        click.echo(f"Orion vGPU client environment has been removed from {name}")
        return
    click.echo(f"Orion vGPU client environment has been installed in {name}")
    _check(agent)
