# SPDX-License-Identifier: Apache-2.0
"""`oriond`: owns the host's GPUs and serves the guests."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from orion_virt import config as configs
from orion_virt import paths
from orion_virt.config import LogConfig, ServerConfig
from orion_virt.errors import OrionError
from orion_virt.gpu import inventory
from orion_virt.server import daemon, logs
from orion_virt.server.embedded import EmbeddedController

_DESCRIPTORS = 65536  # what guests share by descriptor passes through us


def _check(config: ServerConfig) -> None:
    for warning in config.warnings:
        click.echo(f"[Warning] {warning}", err=True)


@dataclass(frozen=True)
class Options:
    """The command line's, which hold over a reload too."""

    file: Path | None
    foreground: bool
    with_controller: bool

    def load(self) -> ServerConfig:
        """Raises ConfigError."""
        return configs.load_server(self.file or paths.server_conf(), required=self.file is not None)

    def log(self, config: LogConfig) -> None:
        """Raises Unavailable."""
        logs.setup(config, self.foreground)


async def _run(config: ServerConfig, options: Options, controller: EmbeddedController | None) -> None:
    found = await asyncio.to_thread(inventory.take, config.driver)
    await daemon.Daemon(config, found, daemon.load_secret(), controller).run(options.load, options.log)


def serve(config: ServerConfig, options: Options) -> None:
    """Runs until SIGTERM. Raises OrionError when it cannot start."""
    lock = daemon.Lock()
    controller = None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _DESCRIPTORS), hard))
    try:
        options.log(config.log)
        for warning in config.warnings:
            logging.getLogger("orion.config").warning("%s", warning)
        if options.with_controller:
            controller = EmbeddedController(config.controller_addr)
        asyncio.run(_run(config, options, controller))
    finally:
        if controller is not None:
            controller.stop()
        lock.close()


@click.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="Default: /etc/orion/server.conf.")
@click.option("--foreground", is_flag=True, help="Log to the terminal too. oriond never forks: systemd runs it as is.")
@click.option("--with-controller", is_flag=True, help="Run an orion-controller at [controller] controller_addr as well.")
@click.option("--check-config", is_flag=True, help="Only check the configuration file.")
def main(file: Path | None, foreground: bool, with_controller: bool, check_config: bool) -> None:
    """Owns the host's GPUs and serves the guests."""
    try:
        options = Options(file, foreground, with_controller)
        config = options.load()
        if check_config or not foreground:
            _check(config)
        if not check_config:
            serve(config, options)
    except OrionError as error:
        click.echo(f"[Error] {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(os.EX_OK)


if __name__ == "__main__":
    main()
