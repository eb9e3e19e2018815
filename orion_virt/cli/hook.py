# SPDX-License-Identifier: Apache-2.0
"""`orion-virt hook install|remove`: puts the qemu hook where libvirt looks for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sysconfig
from pathlib import Path

import click

import orion_virt
from orion_virt import config as configs
from orion_virt import paths
from orion_virt.cli.control import ask
from orion_virt.config import ServerConfig
from orion_virt.errors import Forbidden, NotFound, OrionError, Unavailable
from orion_virt.hook import owner
from orion_virt.server.libvirt_hook import ENV, HOOKS, NAME, script, settings

PID_FILES = ("/run/libvirtd.pid", "/run/virtqemud.pid", "/run/libvirt/virtqemud.pid")


def source() -> Path:
    """The hook script: beside the package in a checkout, else where the package manager put it."""
    package = Path(orion_virt.__file__).resolve().parent
    for root in (package.parent / "hooks", Path(sysconfig.get_path("data")) / "share" / "orion-virt" / "hooks"):
        if (root / "qemu.d" / NAME).is_file():
            return root / "qemu.d" / NAME
    raise NotFound(f"the hook script {NAME} is not part of this installation", hint="install orion-virt again")


def reload_libvirt(quiet: bool = False) -> None:
    """libvirt learns of a first hook by SIGHUP; a restart is never needed."""
    for name in PID_FILES:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(Path(name).read_text()), signal.SIGHUP)
            if not quiet:
                click.echo(f"{Path(name).stem} was told to look again.")


def put(directory: Path, config: ServerConfig | None = None) -> Path:
    """Writes the hook and what it must know of server.conf (None: the file's); returns where. Raises Forbidden, ConfigError."""
    lines = settings(config or configs.load_server(paths.server_conf()))
    target = script(directory)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        (directory / ENV).write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        fresh = target.with_suffix(".new")  # libvirt skips it, since it is not executable yet
        shutil.copyfile(source(), fresh)
        fresh.chmod(0o755)
        fresh.replace(target)  # libvirt may be about to run it
    except PermissionError as error:
        raise Forbidden(f"{error.filename} cannot be written", hint="run it as root") from error
    return target


def take(directory: Path) -> bool:
    """Removes both; False where there was none. Raises Forbidden."""
    there = [path for path in (script(directory), directory / ENV) if path.exists()]
    try:
        for path in there:
            path.unlink()
    except PermissionError as error:
        raise Forbidden(f"{error.filename} cannot be removed", hint="run it as root") from error
    return bool(there)


def remove_from(directory: Path) -> bool:
    """Takes the hook away and tells libvirt; False where there was none."""
    if there := take(directory):
        reload_libvirt()
    return there


def say_firewall() -> None:
    """What would keep guests from us, while somebody who can change it is there."""
    from orion_virt.cli.doctor import gather
    from orion_virt.doctor.firewall import firewall

    for finding in firewall(gather()):
        if finding.level == "error":
            click.echo(f"{finding.text}. This opens it:\n  {finding.fix}")


@click.group()
def hook() -> None:
    """The libvirt hook that makes a domain's shared memory safe before QEMU opens it."""


def _tell_oriond() -> None:
    """A running oriond looks at every domain again: with and without the hook it prepares regions differently."""
    with contextlib.suppress(OrionError):
        ask("reconcile")


def _take_doorbells_away() -> None:
    """Nobody starts their servers now, without which QEMU does not start: oriond gives such domains another device."""
    try:
        ask("reconcile")
    except OrionError:
        click.echo("oriond does not answer: a domain with doorbell='yes' in its metadata starts only after oriond has run again.")


@hook.command()
@click.option("--directory", type=click.Path(path_type=Path), default=HOOKS, show_default=True, help="libvirt's hook directory")
@click.option("--config", "file", type=click.Path(path_type=Path), help="server.conf. Default: /etc/orion/server.conf.")
def install(directory: Path, file: Path | None) -> None:
    """Installs the hook (again), with what server.conf says, and tells libvirt, without a restart."""
    config = configs.load_server(file or paths.server_conf(), required=file is not None)
    try:
        found = owner.find(config.shm_group_name)
    except owner.Unknown as error:
        raise Unavailable(str(error)) from error
    click.echo(f"{put(directory, config)} is installed.")
    click.echo(f"Regions in {config.shm_path_base} will belong to root and group {found.group} ({found.how}).")
    reload_libvirt()
    _tell_oriond()
    say_firewall()


@hook.command()
@click.option("--directory", type=click.Path(path_type=Path), default=HOOKS, show_default=True, help="libvirt's hook directory")
def remove(directory: Path) -> None:
    """Removes the hook; domains start as before, and oriond prepares the regions of those that it knows."""
    click.echo("The hook is removed." if remove_from(directory) else "There was no hook.")
    _take_doorbells_away()
