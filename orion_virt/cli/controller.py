# SPDX-License-Identifier: Apache-2.0
"""`orion-controller`: grants vGPUs to clients and keeps account of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import click

from orion_virt import config, credential, paths
from orion_virt.controller import settings as controller_settings
from orion_virt.controller.etcd_store import EtcdStore
from orion_virt.controller.http import Controller
from orion_virt.controller.pool import Pool
from orion_virt.controller.settings import Settings
from orion_virt.controller.sqlite_store import SqliteStore
from orion_virt.controller.store import Store
from orion_virt.errors import ConfigError, OrionError

_log = logging.getLogger("orion.controller")


def _store(settings: Settings) -> Store:
    if settings.store == "etcd":
        return EtcdStore(settings.etcd, settings.etcd_prefix, controller_settings.etcd_tls(settings))
    return SqliteStore(paths.state() / "controller.db")


def _watch_token() -> str:
    """Of who watches; where it cannot be had nobody may, and guests are served all the same."""
    try:
        return credential.load(paths.monitor_token())
    except ConfigError as error:
        _log.error("nobody can see the web page and the metrics: %s; then start orion-controller again", error)
        return ""


async def _listen(controller: Controller, settings: Settings) -> int:
    """At all configured addresses; returns the port of the first."""
    tls, ports = controller_settings.tls(settings), []
    for addr in settings.listen:
        pair = config.split_addr(addr, config.DEFAULT_CONTROLLER_PORT)
        assert pair is not None, "checked"
        ports.append(await controller.doors.open(*pair, tls=tls if addr in controller_settings.guarded(settings) else None))
        _log.info("listening on %s", addr)
    return ports[0]


async def _also_at_stdin(controller: Controller, port: int) -> None:
    """Serves the same pool at gateways as lines say: "+IP" begins, "-IP" ends; their end is the end of us.

    What became of a "+IP" is a line on stdout: the address, and behind it, where it failed, why.
    """
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order, ip = line[:1], line[1:].decode("utf-8", "replace").strip()
        if order == b"-":
            await controller.doors.shut(ip)
        elif order == b"+":
            print(" ".join(filter(None, (ip, await _begin(controller, ip, port)))), flush=True)


async def _begin(controller: Controller, ip: str, port: int) -> str:
    try:
        await controller.doors.open(ip, port, gateway=True)
    except OrionError as error:
        return f"the controller {error}"
    _log.info("listening on %s", config.join_addr(ip, port))
    return ""


async def _run(settings: Settings, also_at_stdin: bool) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    secret = credential.load(paths.credential())
    controller = Controller(Pool(_store(settings), credential.host_key(secret)), secret, controller_settings.token(settings),
                            _watch_token())
    await controller.start()
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
    try:
        port = await _listen(controller, settings)
        if also_at_stdin:
            tasks.append(asyncio.create_task(_also_at_stdin(controller, port)))
        elif settings.gateways:
            controller.follow_gateways(port)
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        await controller.stop()


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="Default: /etc/orion/controller.conf.")
@click.option("--listen", default="", help="Addresses and ports to serve on, with commas. Default: the file's, else "
              "127.0.0.1:9123 and the gateways of this host's domains.")
@click.option("--log-level", default="INFO", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
              show_default=True, help="Least level of what is told on stderr.")
@click.option("--also-at-stdin", is_flag=True, hidden=True)
def main(file: Path | None, listen: str, log_level: str, also_at_stdin: bool) -> None:
    """Grants vGPUs to clients and keeps account of them."""
    logging.basicConfig(level=log_level, format="%(asctime)s [%(levelname)s] %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    try:
        settings = controller_settings.load(file or paths.controller_conf(), listen, required=file is not None)
        for warning in settings.warnings:
            _log.warning("%s", warning)
        asyncio.run(_run(settings, also_at_stdin))
    except OrionError as error:
        click.echo(f"[Error] {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
