# SPDX-License-Identifier: Apache-2.0
"""Starts domains with their device in place: paused, so that firmware and guest find it and a filled header."""

from __future__ import annotations

import contextlib
import uuid as uuids

from lxml import etree

from orion_virt.domain import shmem
from orion_virt.domain.connection import Connection, View
from orion_virt.errors import Conflict, NotFound, OrionError, ProtocolError
from orion_virt.server.equip import Equipper, call
from orion_virt.units import MIB


async def start(conn: Connection, equipper: Equipper, view: View, size_bytes: int) -> str:
    """Starts a domain that is shut off; what was done. It is ended again where the device cannot be had."""
    if view.active:
        raise Conflict(f"{view.name} is running already", hint="Leave out --start: the device is plugged in")
    await call(conn.start_paused, view.uuid)
    return await _go_on(conn, equipper, view.uuid, size_bytes)


def with_device(equipper: Equipper, text: str, size_bytes: int) -> tuple[str, str]:
    """A transient domain's UUID, a new one where it has none, and its XML with the device in it.

    Raises ProtocolError for what is no domain, Conflict for one that shall have no device.
    """
    try:
        root = etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        found = root.find("uuid")
        uuid = str(uuids.uuid4() if found is None else uuids.UUID((found.text or "").strip()))
    except (etree.XMLSyntaxError, ValueError) as error:
        raise ProtocolError(f"the domain's XML is not readable: {error}", hint="See virt-xml-validate FILE domain") from error
    devices = root.find("devices")
    if root.tag != "domain" or not root.findtext("name") or devices is None:
        raise ProtocolError("the XML is no <domain> with <name> and <devices>", hint="See virt-xml-validate FILE domain")
    if found is None:
        found = etree.SubElement(root, "uuid")
    found.text = uuid
    decision = equipper.decide(root)
    if not decision.wanted and "attach = marked" not in decision.reason:
        raise Conflict(f"{root.findtext('name')} is not attached: {decision.reason}", hint="Change that first")
    if shmem.find_own(root) is None:
        devices.append(etree.fromstring(shmem.device_xml(uuid, size_bytes or equipper.wanted_bytes(root))))
    return uuid, etree.tostring(root, encoding="unicode")


async def start_transient(conn: Connection, equipper: Equipper, uuid: str, xml: str) -> tuple[str, str]:
    """Starts a domain that has no definition; its name, what was done."""
    await call(conn.start_transient, xml)
    done = await _go_on(conn, equipper, uuid, 0)
    return (await _running(conn, uuid)).name, done


async def _go_on(conn: Connection, equipper: Equipper, uuid: str, size_bytes: int) -> str:
    """Plugs the device into a domain that has not begun, fills the header, lets it run."""
    try:
        view = await _running(conn, uuid)
        assert view.live is not None
        if shmem.find_own(view.live) is None:
            if not await equipper.plug(conn, view, size_bytes, fresh=True):
                raise Conflict(f"{view.name}: {equipper.problems.get(uuid, 'the device cannot be plugged in')}",
                               hint="Leave out --once: the device goes into its definition")
            view = await _running(conn, uuid)
        equipper.limit(view)
        await equipper.run(conn, view)
        await call(conn.resume, uuid)
    except OrionError:
        with contextlib.suppress(OrionError):
            await call(conn.destroy, uuid)
        raise
    own = shmem.find_own(view.live) if view.live is not None else None
    return f"started with {(own.size_bytes if own else 0) // MIB} MiB"


async def _running(conn: Connection, uuid: str) -> View:
    view: View | None = await call(conn.view, uuid)
    if view is None or view.live is None:
        raise NotFound(f"domain {uuid} ended as soon as it was started", hint="See its log in /var/log/libvirt/qemu")
    return view
