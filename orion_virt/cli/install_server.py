# SPDX-License-Identifier: Apache-2.0
"""`orion-virt install-server`: from installed files to a running service, again after an upgrade, and back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from orion_virt import config as configs
from orion_virt import layout, paths
from orion_virt.cli import complete, control, hook, requirements, services
from orion_virt.errors import Conflict, Forbidden, NotFound, OrionError, Unavailable

PROGRAMS = ("oriond", "orion-controller", "orion-virt", "orion-check", "orion-doorbell")
_DEFAULT_CONF = Path(services.__file__).resolve().parent.parent / "systemd" / "server.conf"
_SHARE = Path("/usr/local/share")
_PACKAGED = Path("/usr/bin")  # where a distribution's package has the programs, and brings the rest itself


def programs_directory() -> Path:
    """Where this installation's programs lie. Raises NotFound for a checkout that is not installed."""
    for directory in (Path(sys.argv[0]).resolve().parent, Path(sysconfig.get_path("scripts"))):
        if (directory / "oriond").exists():
            return directory
    raise NotFound("there is no program oriond beside this one", hint="Install first: a package, or pip install .")


@dataclass
class Setup:
    """What is written where; `root` is / unless an image is prepared."""

    root: Path
    programs: Path
    quiet: bool

    def say(self, text: str = "") -> None:
        if not self.quiet:
            click.echo(text)

    def at(self, path: str | Path) -> Path:
        return self.root / str(path).lstrip("/")

    @property
    def is_live(self) -> bool:
        return self.root == Path("/") and services.is_booted()

    # ---- files ----

    def _files(self) -> dict[Path, str]:
        """Units and what belongs to them, and completion, unless a package brought them."""
        if self.programs == _PACKAGED:
            return {}
        units = {self.at("/etc/systemd/system") / name: services.text(name, self.programs) for name in services.NAMES}
        words = {self.at(_SHARE / place): complete.script(shell) for shell, place in complete.PLACES.items()}
        return units | words | {self.at("/etc/tmpfiles.d/orion.conf"): services.text(services.TMPFILES, self.programs)}

    def _links(self) -> dict[Path, Path]:
        """Programs and man pages, where they do not lie on their search paths already."""
        if self.programs in (_PACKAGED, Path("/usr/local/bin")):
            return {}
        pages = sorted((paths.lib() / "man").glob("*.[18]"))
        manual = {self.at(_SHARE / f"man/man{page.suffix[1:]}" / page.name): page for page in pages}
        return manual | {self.at("/usr/local/bin") / name: self.programs / name for name in PROGRAMS}

    def write_configuration(self) -> None:
        """An existing server.conf stays; what is new in ours is beside it then."""
        path, text = self.at(paths.server_conf()), _DEFAULT_CONF.read_text()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text() != text:
            path = path.with_name(path.name + ".new")
        path.write_text(text)
        self.say(f"Configuration file is generated to {paths.server_conf().parent / path.name}")

    def write(self) -> None:
        """Idempotent. Raises Forbidden, Conflict."""
        try:
            self.write_configuration()
            for path, text in self._files().items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            for link, target in self._links().items():
                if link.exists() and not link.is_symlink():
                    raise Conflict(f"{link} is there and not ours", hint="Remove it, or what installed it")
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(target)
        except PermissionError as error:
            raise Forbidden(f"{error.filename} cannot be written", hint="Run it as root") from error
        hook.put(self.at(hook.HOOKS))

    def remove(self) -> None:
        """Everything but configuration, state and logs."""
        hook.take(self.at(hook.HOOKS))
        for path in self._files():
            path.unlink(missing_ok=True)
        for link, target in self._links().items():
            if link.is_symlink() and link.readlink() == target:
                link.unlink()
        new = self.at(paths.server_conf()).with_name("server.conf.new")
        if new.exists() and new.read_text() == _DEFAULT_CONF.read_text():
            new.unlink()

    # ---- services ----

    def _units(self) -> tuple[str, ...]:
        """With the controller, unless another host's is configured."""
        from orion_virt.server.embedded import is_loopback  # only here: each Tab of a shell imports this module

        config = configs.load_server(self.at(paths.server_conf()))
        pair = configs.split_addr(config.controller_addr, configs.DEFAULT_CONTROLLER_PORT)
        own = pair is not None and (is_loopback(pair[0]) or pair[0] in ("0.0.0.0", "::"))
        return services.NAMES if own else (services.SERVER,)

    def enable(self) -> None:
        """For the next boot, also where systemd does not run: in an image, or while one is built. Raises Unavailable."""
        if self.is_live:
            services.systemctl("daemon-reload")
            services.systemctl("enable", *self._units())
        elif shutil.which("systemctl"):
            try:
                services.systemctl("enable", f"--root={self.root}", *self._units())
            except Unavailable as error:
                raise Unavailable(str(error), hint=f"Are the files of orion-virt's package in {self.root}?") from error

    def start(self, restart: bool) -> None:
        """An oriond that runs is restarted only where that ends no program. Raises Unavailable."""
        nr_ended = _nr_ended_by_restart(restart)
        if services.CONTROLLER in self._units():
            _start_or(services.CONTROLLER, nr_ended == 0 or restart)
        if _start_or(services.SERVER, nr_ended == 0 or restart):
            self.say("oriond runs: `orion-check runtime server` shows how.")
        else:
            click.echo(f"oriond goes on in its former version, since {nr_ended} CUDA programs of guests use it, whose workers this "
                       "version cannot take up. `systemctl restart oriond` changes that, and ends them with error 46.", err=True)


def _start_or(unit: str, may_restart: bool) -> bool:
    """False when it runs already and has to stay as it is."""
    running = services.is_active(unit)
    if running and not may_restart:
        return False
    services.systemctl("restart" if running else "start", unit)
    return True


def _status(may_end_programs: bool) -> dict[str, Any]:
    """Of the running oriond; as of none where none runs. Raises OrionError where it does not tell, unless that is no matter."""
    try:
        return control.ask("status")
    except control.NotRunning:
        return {"channels": []}
    except OrionError:
        if may_end_programs:
            return {"channels": []}
        raise


def _nr_ended_by_restart(may_end_programs: bool) -> int:
    """CUDA programs whose workers do not outlive the running oriond, or that the installed one cannot take up."""
    status = _status(may_end_programs)
    outlive = status.get("keep_workers") and status.get("protocol") == layout.PROTOCOL
    return 0 if outlive else len(status["channels"])


def _end_workers() -> None:
    """oriond ends, and its workers with it."""
    with contextlib.suppress(OrionError, KeyError, ProcessLookupError):
        os.kill(control.ask("status")["pid"], signal.SIGINT)


def _domains_with_device() -> list[str]:
    try:
        return [d["name"] for d in control.ask("domains")["domains"] if d["device"] != "none"]
    except OrionError:
        return []


def _check_requirements(force: bool) -> None:
    missing = [one for one in requirements.before_setup() if not one.fulfilled]
    if missing and not force:
        raise Unavailable("; ".join(f"{one.label} is missing ({one.remedy})" for one in missing),
                          hint="Install that first, or use --force")


def _ask(setup: Setup) -> None:
    click.echo(f"Orion server will be set up on this host, with the programs of {setup.programs}")
    click.echo("Do you want to continue [n/y] ?", nl=False)
    answer = sys.stdin.readline()
    if answer.strip() not in ("y", "Y", "yes"):
        click.echo()
        raise OrionError("nothing was set up", hint="Use -q to set up without a question")
    click.echo()


def _uninstall(setup: Setup, force: bool) -> None:
    nr_clients = len(_status(force)["channels"]) if setup.is_live else 0
    if nr_clients and not force:
        raise Conflict(f"{nr_clients} CUDA programs of guests use oriond", hint="End them first, or use --force, which ends them")
    named = _domains_with_device() if setup.is_live else []
    if setup.is_live:
        _end_workers()
        for unit in reversed(services.NAMES):
            if services.is_active(unit):
                services.systemctl("stop", unit)
    if setup.is_live:
        services.systemctl("disable", *services.NAMES)
    elif shutil.which("systemctl"):
        services.systemctl("disable", f"--root={setup.root}", *services.NAMES)
    setup.remove()
    if setup.is_live:
        services.systemctl("daemon-reload")
        hook.reload_libvirt(quiet=True)
    setup.say("Orion server has been removed from this host's services; configuration (/etc/orion), state (/var/lib/orion) and logs are kept.")
    if named:
        setup.say(f"These domains keep the device in their definition, which does no harm: {', '.join(named)}. "
                  "`virsh edit` and the removal of <shmem name='orion-...'> take it out.")


@click.command(name="install-server")
@click.option("-q", "--quiet", is_flag=True, help="Do not ask, print nothing but errors.")
@click.option("--uninstall", is_flag=True, help="Stop and remove the services and the hook; files of a package stay.")
@click.option("--restart", is_flag=True, help="After an upgrade restart oriond although that ends programs.")
@click.option("--force", is_flag=True, help="Go on although something is missing, or programs run.")
@click.option("--root", type=click.Path(path_type=Path), default=Path("/"), help="Prepare an image below this directory; nothing is started.")
def install_server(quiet: bool, uninstall: bool, restart: bool, force: bool, root: Path) -> None:
    """Makes this host a server: configuration, libvirt hook, systemd units; again after an upgrade.

    Guests and their programs go on over an upgrade: an oriond whose programs would end is not restarted, unless --restart says so.
    """
    if os.geteuid() != 0:
        raise Forbidden("root is needed to set up the server", hint="Run it with sudo")
    os.umask(0o022)
    setup = Setup(root, programs_directory(), quiet)
    if uninstall:
        _uninstall(setup, force)
        return
    if root == Path("/"):
        _check_requirements(force)
    if not quiet:
        _ask(setup)
    setup.write()
    setup.enable()
    if setup.is_live:
        hook.reload_libvirt(quiet)
        setup.start(restart)
        if not quiet:
            hook.say_firewall()
    elif root == Path("/"):
        setup.say("systemd does not run here. Start it by hand: oriond --with-controller")
    setup.say("Orion server has been set up. To put the client into a guest: orion-virt install DOMAIN")
