# SPDX-License-Identifier: Apache-2.0
"""`orion-controller`: grants vGPUs to clients and keeps account of them."""

from __future__ import annotations

import ctypes
import logging
import signal
import sys

import click

from orion_virt import config, credential, paths
from orion_virt.controller.http import ControllerServer
from orion_virt.controller.pool import Pool
from orion_virt.errors import ConfigError, OrionError, Unavailable

_PR_SET_PDEATHSIG = 1


def _bind(listen: str, pool: Pool, secret: str) -> ControllerServer:
    pair = config.split_addr(listen, config.DEFAULT_CONTROLLER_PORT)
    if pair is None:
        raise ConfigError(f"--listen {listen!r} is not valid", hint="Accepted: address:port, e.g. 0.0.0.0:9123")
    try:
        return ControllerServer(pair, pool, secret)
    except OSError as error:
        raise Unavailable(
            f"cannot listen on {listen}: {error.strerror}",
            hint="Is another orion-controller running? Choose another address with --listen",
        ) from error


def serve(listen: str) -> None:
    """Runs until SIGTERM or SIGINT."""
    server = _bind(listen, Pool(), credential.load(paths.credential()))

    def stop(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    logging.getLogger("orion.controller").info("listening on %s", listen)
    try:
        server.serve_forever(poll_interval=3600)
    finally:
        server.server_close()


@click.command()
@click.option("--listen", default="0.0.0.0:9123", show_default=True, help="Address and port to serve on.")
@click.option("--log-level", default="INFO", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]))
@click.option("--die-with-parent", is_flag=True, hidden=True)
def main(listen: str, log_level: str, die_with_parent: bool) -> None:
    """Grants vGPUs to clients and keeps account of them."""
    logging.basicConfig(level=log_level, format="%(asctime)s [%(levelname)s] %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    if die_with_parent:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        serve(listen)
    except OrionError as error:
        click.echo(f"[Error] {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
