# SPDX-License-Identifier: Apache-2.0
"""`orion-virt allocations`, `reserve` and `reservations`: who holds which vGPUs of the pool, and for whom some are kept."""

from __future__ import annotations

import http.client
import json
import ssl
import time
import uuid as uuids
from typing import Any

import click

from orion_virt import config as configs
from orion_virt import credential, errors, paths
from orion_virt.cli.complete import domain_argument
from orion_virt.cli.control import ask
from orion_virt.cli.output import emit, json_option, table
from orion_virt.units import MIB

_SECONDS = 10
_COLUMNS = ("ALLOCATION", "DOMAIN", "PROCESS", "PID", "SERVER", "VGPUS", "MEMORY", "STATE", "SINCE")


def call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One call of the controller, as a server. Raises the OrionError that it answers, or Unavailable."""
    config = configs.load_server(paths.server_conf())
    pair = configs.split_addr(config.controller_addr, configs.DEFAULT_CONTROLLER_PORT)
    assert pair is not None, "config has checked it"
    headers = {credential.HEADER: credential.load(paths.credential())}
    try:
        status, data = _exchange(pair, config.controller_tls_ca, (method, f"/v1{path}", body and json.dumps(body), headers))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise errors.Unavailable(f"the controller at {config.controller_addr} does not answer ({error})",
                                 hint="Start orion-controller, or correct [controller] controller_addr") from None
    if status == 200:
        return data
    kind = {400: errors.ProtocolError, 403: errors.Forbidden, 404: errors.NotFound, 409: errors.QuotaExceeded}
    raise kind.get(status, errors.Unavailable)(str(data.get("error", f"HTTP {status}")), hint=str(data.get("hint", "")))


def _exchange(pair: tuple[str, int], tls_ca: str, request: tuple[Any, ...]) -> tuple[int, dict[str, Any]]:
    if tls_ca:
        context = ssl.create_default_context(cafile=tls_ca)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(*pair, timeout=_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(*pair, timeout=_SECONDS)
    try:
        connection.request(*request)
        answer = connection.getresponse()
        return answer.status, dict(json.loads(answer.read()))
    finally:
        connection.close()


def _names() -> dict[str, str]:
    """Domains of this host by UUID, where oriond can be asked."""
    try:
        return {domain["uuid"]: domain["name"] for domain in ask("domains")["domains"]}
    except errors.OrionError:
        return {}


def row(allocation: dict[str, Any], names: dict[str, str]) -> tuple[str, ...]:
    """One allocation's line."""
    vgpus = allocation["vgpus"]
    places = ",".join(f"{v['card']}/{v['slot']}" for v in vgpus)
    memory = "+".join(str(v["memory_bytes"] // MIB) for v in vgpus) + " MiB"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(allocation["since"]))
    whose = names.get(allocation["domain"], allocation["domain"]) or allocation["client"] or "-"
    return (allocation["uuid"], whose, allocation["process"] or "-", str(allocation["pid"] or "-"), allocation["server"], places,
            memory, allocation["state"], since)


def _uuid_of(domain: str) -> str:
    """Of a name or UUID; a UUID may be of another host's domain. Raises NotFound."""
    for uuid, name in _names().items():
        if name == domain:
            return uuid
    try:
        return str(uuids.UUID(domain))
    except ValueError:
        raise errors.NotFound(f"there is no domain {domain!r}",
                              hint="`orion-virt list` shows those of this host; of another host name the UUID") from None


@click.command()
@json_option
def allocations(as_json: bool) -> None:
    """Shows who holds which vGPUs: domain, process, GPU/slot, memory of each, and since when.

    A process of a domain that nothing proved shows with the address it came from.
    """
    found = call("GET", "/allocations")
    if as_json:
        emit(found)
        return
    names, devices = _names(), call("GET", "/devices")
    click.echo(table([_COLUMNS, *(row(a, names) for a in found["allocations"])]))
    waiting = f", {devices['waiting']} processes wait" if devices["waiting"] else ""
    click.echo(f"{devices['free']} of {devices['total']} vGPU are free{waiting}.")


@click.command()
@domain_argument
@click.argument("vgpus", type=click.IntRange(0))
@click.option("--memory", type=click.IntRange(1), help="MiB of each; default: a card's share.")
def reserve(domain: str, vgpus: int, memory: int | None) -> None:
    """Keeps VGPUS slots that nobody but DOMAIN (name or UUID) gets; 0 ends it.

    What others hold already they keep: it takes effect as slots come back.
    """
    path = f"/reservations/{_uuid_of(domain)}"
    if vgpus == 0:
        call("DELETE", path)
        click.echo(f"Nothing is reserved for {domain} any more.")
        return
    call("PUT", path, {"vgpus": vgpus, "memory_mib": memory})
    click.echo(f"{vgpus} vGPU are reserved for {domain}.")


@click.command()
@json_option
def reservations(as_json: bool) -> None:
    """Shows what is reserved for domains, and how much of it they have taken."""
    found = call("GET", "/reservations")
    if as_json:
        emit(found)
        return
    names = _names()
    rows = [(names.get(r["domain"], r["domain"]), str(r["vgpus"]), f"{r['memory_mib']} MiB" if r["memory_mib"] else "share",
             str(r["taken"]), r["server"] or "-") for r in found["reservations"]]
    click.echo(table([("DOMAIN", "VGPUS", "MEMORY", "TAKEN", "SERVER"), *rows]))
