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
from orion_virt.errors import Forbidden, NotFound

HOOKS = Path("/etc/libvirt/hooks")
NAME = "50-orion-virt"
ENV = "orion-virt.env"
PID_FILES = ("/run/libvirtd.pid", "/run/virtqemud.pid", "/run/libvirt/virtqemud.pid")


def _source() -> Path:
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
        shutil.copyfile(_source(), new)
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


@click.group()
def hook() -> None:
    """The libvirt hook that makes a domain's shared memory safe before QEMU opens it."""


@hook.command()
@click.option("--directory", type=click.Path(path_type=Path), default=HOOKS, show_default=True, help="libvirt's hook directory")
def install(directory: Path) -> None:
    """Installs the hook (again) and tells libvirt, without a restart."""
    click.echo(f"{put(directory)} is installed.")
    reload_libvirt()


@hook.command()
@click.option("--directory", type=click.Path(path_type=Path), default=HOOKS, show_default=True, help="libvirt's hook directory")
def remove(directory: Path) -> None:
    """Removes the hook; domains start as before."""
    take(directory)
    click.echo("The hook is removed.")
    reload_libvirt()
