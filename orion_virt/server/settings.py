# SPDX-License-Identifier: Apache-2.0
"""`set`: writes a domain's metadata as virsh would, and says when each change takes effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxml import etree

from orion_virt.domain import metadata, shmem
from orion_virt.domain.connection import CONFIG, LIVE, Connection, View
from orion_virt.errors import ConfigError, Conflict, ProtocolError
from orion_virt.server.equip import call
from orion_virt.units import MIB

NOW = "now"
FROM_NOW = "processes that start from now on"
NEXT_START = "at the next start"
WHERE_LIMITED = "processes that start from now on, where [server] compute_limits is on"


def changes(request: Mapping[str, Any]) -> dict[str, str | None]:
    """The request's ``values`` and ``unset`` in one: None removes. Raises ConfigError or ProtocolError."""
    values, unset = request.get("values", {}), request.get("unset", [])
    if not isinstance(values, dict) or not isinstance(unset, list) or not (values or unset):
        raise ProtocolError("nothing to set is named", hint='Send {"values": {"vgpus": "2"}, "unset": ["memory"]}')
    for name in values:
        _known(name)
    both = sorted(set(values) & set(unset))
    if both:
        raise ConfigError(f"{both[0]} is both set and unset", hint="Say one of the two")
    wanted: dict[str, str | None] = {name: str(value) for name, value in values.items()}
    return wanted | {name: None for name in unset}


def _known(name: str) -> None:
    if name not in metadata.NAMES:
        raise ConfigError(f"there is no setting {name!r}", hint=f"Settings: {', '.join(metadata.NAMES)}")


def targets(view: View, request: Mapping[str, Any]) -> list[tuple[int, etree._Element]]:
    """(libvirt's flag, XML) of what is to be changed; without `live` and `config` whatever there is of both."""
    live, config = bool(request.get("live")), bool(request.get("config"))
    if live and view.live is None:
        raise Conflict(f"{view.name} is not running", hint="Leave --live out, or start it")
    if config and view.config is None:
        raise Conflict(f"{view.name} is transient: it has no definition", hint="Leave --config out")
    found = []
    if view.config is not None and (config or not live):
        found.append((CONFIG, view.config))
    if view.live is not None and (live or not config):
        found.append((LIVE, view.live))
    return found


def merged(domain: etree._Element, change: Mapping[str, str | None]) -> dict[str, str]:
    """The attributes after the change. Raises ConfigError for what is not valid, also where it was there before."""
    values = metadata.values_of(domain)
    for name, value in change.items():
        if value is not None:
            values[name] = value
        elif values.pop(name, None) is None:  # what is there can be removed, whatever it is
            _known(name)
    try:
        metadata.check(values)
    except ConfigError as error:
        raise ConfigError(
            f"nothing is changed: {error.message}", hint="What is there already and wrong goes with --unset NAME"
        ) from None
    return values


async def write(conn: Connection, view: View, request: Mapping[str, Any]) -> dict[str, str | None]:
    """Checks everything, then changes; returns what was changed."""
    change = changes(request)
    planned = [(flag, merged(domain, change)) for flag, domain in targets(view, request)]
    for flag, values in planned:
        await call(conn.set_metadata, view.uuid, metadata.fragment(values) if values else None, flag)
    return change


def effects(view: View, change: Mapping[str, str | None]) -> dict[str, str]:
    """When each change takes effect, seen after it was made and the domain was brought in line."""
    return {name: _effect(view, name, value) for name, value in change.items()}


def _effect(view: View, name: str, value: str | None) -> str:
    if view.live is None or metadata.values_of(view.live).get(name) != value:
        return NEXT_START
    if name == "compute":
        return WHERE_LIMITED
    if name == "required":
        return NEXT_START
    if name == "enabled":
        return _of_device(view, metadata.read(view.live).enabled is not False)
    if name == "region":
        return _of_region(view)
    return FROM_NOW


def _of_device(view: View, wanted: bool) -> str:
    assert view.live is not None
    if (shmem.find_own(view.live) is not None) == wanted:
        return NOW
    return f"{NEXT_START}; now: orion-virt {'attach' if wanted else 'detach'} {view.name}"


def _of_region(view: View) -> str:
    assert view.live is not None
    own = shmem.find_own(view.live)
    defined = None if view.config is None else shmem.find_own(view.config)
    if own is not None and (defined is None or own.size_bytes == defined.size_bytes):
        return NOW
    has = "" if own is None else f"; the running domain keeps {own.size_bytes // MIB} MiB until it is shut down"
    return NEXT_START + has
