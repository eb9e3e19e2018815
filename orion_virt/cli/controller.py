# SPDX-License-Identifier: Apache-2.0
"""`orion-controller`: grants vGPUs to clients and keeps account of them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading

import click

from orion_virt import config, credential, paths
from orion_virt.controller.http import ControllerServer
from orion_virt.controller.pool import Pool
from orion_virt.errors import ConfigError, OrionError, Unavailable

_log = logging.getLogger("orion.controller")


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


def _also_at_stdin(pool: Pool, secret: str, port: int) -> None:
    """Serves the same pool where lines say: "+IP" begins, "-IP" ends; their end is the end of us.

    What became of a "+IP" is a line on stdout: the address, and behind it, where it failed, why.
    """
    servers: dict[str, ControllerServer] = {}
    for line in sys.stdin:
        order, ip = line[:1], line[1:].strip()
        if order == "-" and ip in servers:
            _stop(servers.pop(ip))
        elif order == "+" and ip not in servers:
            _begin(servers, ip, pool, secret, port)
    os.kill(os.getpid(), signal.SIGTERM)


def _begin(servers: dict[str, ControllerServer], ip: str, pool: Pool, secret: str, port: int) -> None:
    try:
        servers[ip] = _bind(config.join_addr(ip, port), pool, secret)
    except OrionError as error:
        print(ip, f"the controller {error}", flush=True)
        return
    _log.info("listening on %s", config.join_addr(ip, port))
    threading.Thread(target=servers[ip].serve_forever, args=(3600,), daemon=True).start()
    print(ip, flush=True)


def _stop(server: ControllerServer) -> None:
    """Takes no more connections; those that it has are served to their end."""
    asked = threading.Thread(target=server.shutdown, daemon=True)
    asked.start()
    with contextlib.suppress(OSError):
        server.socket.shutdown(socket.SHUT_RDWR)  # wakes serve_forever up, which sees what was asked
    asked.join()
    server.server_close()


def serve(listen: str, also_at_stdin: bool) -> None:
    """Runs until SIGTERM or SIGINT."""
    pool, secret = Pool(), credential.load(paths.credential())
    server = _bind(listen, pool, secret)

    def stop(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    _log.info("listening on %s", listen)
    if also_at_stdin:
        threading.Thread(target=_also_at_stdin, args=(pool, secret, server.server_port), daemon=True).start()
    try:
        server.serve_forever(poll_interval=3600)
    finally:
        server.server_close()


@click.command()
@click.option("--listen", default="0.0.0.0:9123", show_default=True, help="Address and port to serve on.")
@click.option("--log-level", default="INFO", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
              show_default=True, help="Least level of what is told on stderr.")
@click.option("--also-at-stdin", is_flag=True, hidden=True)
def main(listen: str, log_level: str, also_at_stdin: bool) -> None:
    """Grants vGPUs to clients and keeps account of them."""
    logging.basicConfig(level=log_level, format="%(asctime)s [%(levelname)s] %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    try:
        serve(listen, also_at_stdin)
    except OrionError as error:
        click.echo(f"[Error] {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
