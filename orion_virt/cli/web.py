# SPDX-License-Identifier: Apache-2.0
"""`orion-virt web`: where the controller's web page is, and what opens it."""

from __future__ import annotations

import click

from orion_virt import config as configs
from orion_virt import credential, paths
from orion_virt.cli import pool
from orion_virt.cli.output import emit, json_option


@click.command()
@json_option
def web(as_json: bool) -> None:
    """Prints the address of the web page, which logs in by itself: hosts, GPUs, who uses what, live.

    Its token shows everything and changes nothing; Prometheus sends the same one. Whoever sees it may watch: on
    another machine forward the port (ssh -L 9123:127.0.0.1:9123 HOST). Needs root, for the token's file.
    """
    config = configs.load_server(paths.server_conf())
    pool.call("GET", "/info")  # one that does not run has no page
    token, file = credential.load(paths.monitor_token()), str(paths.monitor_token())
    url = f"{'https' if config.controller_tls_ca else 'http'}://{config.controller_addr}/"
    if as_json:
        emit({"url": url, "token": token, "token_file": file, "metrics": f"{url}metrics",
              "oriond_metrics": f"http{'s' if config.metrics_tls_cert else ''}://{config.metrics_addr}/metrics" if config.metrics_addr else ""})
        return
    click.echo(f"{url}#token={token}")
