# SPDX-License-Identifier: Apache-2.0
"""`orion-virt doctor`: says what is wrong, and what puts it right."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Any

import click

from orion_virt import config, paths
from orion_virt.cli import output
from orion_virt.cli.complete import domain_names
from orion_virt.cli.control import ask
from orion_virt.errors import NotFound, OrionError

MARKS = {"ok": "ok     ", "info": "note   ", "warning": "WARNING", "error": "ERROR  "}


def _or_error(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except OrionError as error:
        return error


def _of_libvirt(uri: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Live XML of running domains by UUID, and bridges of networks; none where libvirt does not answer."""
    import libvirt

    from orion_virt.domain import definition

    try:
        libvirt.registerErrorHandler(lambda *_: None, None)
        connection = libvirt.openReadOnly(uri)
        found = {
            d.UUIDString(): definition.parse(d.XMLDesc(0))
            for d in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        }
        bridges = tuple(
            network.bridgeName()
            for network in connection.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)
            if "<bridge " in network.XMLDesc(0)
        )
        connection.close()
    except (libvirt.libvirtError, OrionError):
        return {}, ()
    return found, bridges


def gather() -> Any:
    """Everything that checks look at; nothing is changed."""
    from orion_virt import libvirt_uri
    from orion_virt.cli.hook import source
    from orion_virt.doctor.facts import Facts, Machine

    settings = _or_error(config.load_server, paths.server_conf())
    domains = _or_error(ask, "domains")
    uri = libvirt_uri.chosen("qemu:///system" if isinstance(settings, OrionError) else settings.libvirt_uri)
    xml, bridges = _of_libvirt(uri)
    hook = _or_error(source)
    return Facts(
        Machine(),
        settings,
        _or_error(ask, "status"),
        domains if isinstance(domains, OrionError) else domains["domains"],
        xml,
        bridges,
        None if isinstance(hook, OrionError) else hook,
        paths.build_id(),
        os.geteuid() == 0,
    )


def _name(facts: Any, domain: str) -> str:
    """The name of a domain given by name or UUID."""
    for found in facts.domains if isinstance(facts.domains, list) else []:
        if domain in (found["name"], found["uuid"]):
            return str(found["name"])
    if isinstance(facts.domains, OrionError):
        return domain
    raise NotFound(f"there is no domain {domain!r}", hint="`virsh list --all` shows the domains that libvirt knows")


@click.command()
@click.argument("domain", required=False, shell_complete=domain_names)
@output.json_option
def doctor(domain: str | None, as_json: bool) -> None:
    """Looks for what is wrong on this host, or with DOMAIN, and says the fix. Changes nothing.

    Exit status 1 where there is an ERROR. As root it sees more.
    """
    from orion_virt import doctor as checks

    facts = gather()
    name = _name(facts, domain) if domain else ""
    found = list(checks.examine(facts, name))
    wrong = any(finding.level == "error" for _, finding in found)
    if as_json:
        output.emit(
            {"findings": [{"check": check, **asdict(finding)} for check, finding in found], "healthy": not wrong}
        )
        sys.exit(wrong)
    for _, finding in found:
        click.echo(f"{MARKS[finding.level]} {finding.domain + ': ' if finding.domain else ''}{finding.text}")
        if finding.fix:
            click.echo(f"        fix: {finding.fix}")
    sys.exit(wrong)
