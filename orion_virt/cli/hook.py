# SPDX-License-Identifier: Apache-2.0
"""`orion-virt hook install|remove`: puts the qemu hook where libvirt looks for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sysconfig
from pathlib import Path

import click

import orion_virt
from orion_virt import config as configs
from orion_virt import paths
from orion_virt.cli.control import ask
from orion_virt.errors import Forbidden, NotFound, OrionError

HOOKS = Path("/etc/libvirt/hooks")
NAME = "50-orion-virt"
ENV = "orion-virt.env"
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


def put(directory: Path) -> Path:
    """Writes the hook and its settings; returns where. Raises Forbidden, ConfigError."""
    target = directory / "qemu.d" / NAME
    config = configs.load_server(paths.server_conf())
    settings = {"ORION_PYTHONPATH": Path(orion_virt.__file__).resolve().parents[1], "ORION_RUN": paths.run(),
                "ORION_LOG": paths.log(), "ORION_STATE": paths.state(), "ORION_ETC": paths.etc(),
                "ORION_SHM": config.shm_path_base, "ORION_QEMU_GROUP": config.shm_group_name}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{NAME}.new")
        shutil.copyfile(source(), new)
        new.chmod(0o755)
        new.rename(target)  # libvirt may be about to run it
        (directory / ENV).write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    except PermissionError as error:
        raise Forbidden(f"{error.filename} cannot be written", hint="run it as root") from error
    return target


def take(directory: Path) -> None:
    """Removes both. Raises Forbidden."""
    try:
        for path in (directory / "qemu.d" / NAME, directory / ENV):
            path.unlink(missing_ok=True)
    except PermissionError as error:
        raise Forbidden(f"{error.filename} cannot be removed", hint="run it as root") from error


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


@hook.command()
@click.option("--directory", type=click.Path(path_type=Path), default=HOOKS, show_default=True, help="libvirt's hook directory")
def install(directory: Path) -> None:
    """Installs the hook (again) and tells libvirt, without a restart."""
    click.echo(f"{put(directory)} is installed.")
    reload_libvirt()
    say_firewall()


@hook.command()
@click.option("--directory", type=click.Path(path_type=Path), default=HOOKS, show_default=True, help="libvirt's hook directory")
def remove(directory: Path) -> None:
    """Removes the hook; domains start as before."""
    take(directory)
    click.echo("The hook is removed.")
    reload_libvirt()
    _take_doorbells_away()


def _take_doorbells_away() -> None:
    """Nobody starts their servers now, without which QEMU does not start: oriond is told to look at such domains."""
    try:
        found = [d for d in ask("domains")["domains"] if d.get("doorbell")]
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            for domain in found:
                sock.sendto(f"removed {domain['uuid']} {domain['name']}".encode(), str(paths.hook_socket()))
    except (OrionError, OSError):
        click.echo("oriond does not answer: a domain with doorbell='yes' in its metadata starts only after oriond has run again.")
