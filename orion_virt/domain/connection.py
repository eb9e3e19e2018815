# SPDX-License-Identifier: Apache-2.0
"""Calls to libvirt, all blocking; its errors come out as ours."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import libvirt
from lxml import etree

from orion_virt.domain import address, definition, events, host_network, metadata
from orion_virt.domain.nic import GuestAddress, Interface, Network
from orion_virt.errors import Conflict, Forbidden, NotFound, OrionError, Unavailable

CONFIG, LIVE = libvirt.VIR_DOMAIN_AFFECT_CONFIG, libvirt.VIR_DOMAIN_AFFECT_LIVE
Function = TypeVar("Function", bound=Callable[..., Any])
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_NETWORK)
_DOWN = (libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_RPC, libvirt.VIR_ERR_INVALID_CONN,
         libvirt.VIR_ERR_INTERNAL_ERROR)

_MOST_ROWS = 256  # what an agent or a neighbour says is the guest's word
_CONNECTED_AGENT = "devices/channel/target[@name='org.qemu.guest_agent.0'][@state='connected']"


@dataclass(frozen=True)
class View:
    """A domain as libvirt has it now. XML is None where there is none of that kind."""

    uuid: str
    name: str
    id: int
    live: etree._Element | None
    config: etree._Element | None

    @property
    def active(self) -> bool:
        return self.live is not None

    @property
    def xml(self) -> etree._Element:
        """The definition of the next start, else of this one."""
        found = self.config if self.config is not None else self.live
        assert found is not None
        return found


def translate(error: libvirt.libvirtError, what: str) -> OrionError:
    """libvirt's error as one of ours, with a remedy."""
    code, text = error.get_error_code(), error.get_error_message() or str(error)
    if code in _GONE:
        return NotFound(f"{what}: {text}", hint="`virsh list --all` shows the domains that libvirt knows")
    if code in (libvirt.VIR_ERR_AUTH_FAILED, libvirt.VIR_ERR_ACCESS_DENIED, libvirt.VIR_ERR_OPERATION_DENIED):
        return Forbidden(f"{what}: {text}", hint="oriond must run as root or as a member of group libvirt")
    if "No more available PCI slots" in text:
        return Conflict(f"{what}: {text}",
                        hint="Shut the domain down and start it again: the device is in its definition")
    if code in _DOWN:
        return Unavailable(f"{what}: {text}", hint="See that libvirtd (or virtqemud) runs: systemctl status libvirtd")
    return Conflict(f"{what}: {text}", hint="libvirt's log says more")


def _translated(function: Function) -> Function:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except libvirt.libvirtError as error:
            raise translate(error, function.__name__.replace("_", " ")) from error

    return wrapper  # type: ignore[return-value]


class Connection:
    """One connection to libvirt, until `lost` was called or ``close``."""

    def __init__(self, raw: libvirt.virConnect) -> None:
        self._raw = raw
        self._unsubscribe: Callable[[], None] = lambda: None

    @classmethod
    def open(cls, uri: str, changed: events.Changed, networks: Callable[[], None], rebooted: events.Changed,
             lost: Callable[[], None]) -> Connection:
        """Connects and subscribes (events.subscribe). Raises Unavailable or Forbidden."""
        events.start_loop()
        try:
            made = cls(libvirt.open(uri))
            try:
                made._unsubscribe = events.subscribe(made._raw, changed, networks, rebooted, lost)
            except libvirt.libvirtError:
                made.close()
                raise
        except libvirt.libvirtError as error:
            raise translate(error, f"libvirt ({uri}) cannot be reached") from error
        return made

    @classmethod
    def plain(cls, uri: str) -> Connection:
        """Connects for a few questions, without following events. Raises Unavailable or Forbidden."""
        libvirt.registerErrorHandler(lambda context, error: None, None)  # it would print each error that we translate
        try:
            return cls(libvirt.open(uri))
        except libvirt.libvirtError as error:
            raise translate(error, f"libvirt ({uri}) cannot be reached") from error

    @_translated
    def domain(self, uuid: str) -> libvirt.virDomain:
        """libvirt's own object."""
        return self._raw.lookupByUUIDString(uuid)

    def close(self) -> None:
        self._unsubscribe()
        with contextlib.suppress(libvirt.libvirtError):
            self._raw.close()

    @_translated
    def uuids(self) -> list[str]:
        """Every domain."""
        return [d.UUIDString() for d in self._raw.listAllDomains()]

    @_translated
    def running(self) -> set[str]:
        """Every domain that runs, paused ones too."""
        return {d.UUIDString() for d in self._raw.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)}

    @_translated
    def start_paused(self, uuid: str) -> None:
        """Starts a defined domain, before its firmware's first instruction."""
        self._raw.lookupByUUIDString(uuid).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)

    @_translated
    def start_transient(self, xml: str) -> None:
        """Starts a transient domain, before its firmware's first instruction."""
        self._raw.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)

    @_translated
    def resume(self, uuid: str) -> None:
        self._raw.lookupByUUIDString(uuid).resume()

    @_translated
    def destroy(self, uuid: str) -> None:
        self._raw.lookupByUUIDString(uuid).destroy()

    @_translated
    def names(self) -> dict[str, str]:
        """Every domain's, by its UUID."""
        return {d.UUIDString(): d.name() for d in self._raw.listAllDomains()}

    @_translated
    def resolve(self, name: str) -> str:
        """The UUID of a domain by name, UUID or id."""
        for find in (self._raw.lookupByName, self._raw.lookupByUUIDString):
            with contextlib.suppress(libvirt.libvirtError):
                return find(name).UUIDString()
        if name.isdigit():
            with contextlib.suppress(libvirt.libvirtError):
                return self._raw.lookupByID(int(name)).UUIDString()
        if not self._raw.isAlive():
            raise Unavailable("libvirt does not answer", hint="systemctl status libvirtd")
        raise NotFound(f"there is no domain {name!r}", hint="`virsh list --all` shows the domains that libvirt knows")

    @_translated
    def view(self, uuid: str) -> View | None:
        """A domain's state, None where libvirt does not know it."""
        try:
            domain = self._raw.lookupByUUIDString(uuid)
            live = definition.parse(domain.XMLDesc(0)) if domain.isActive() else None
            config = None
            if domain.isPersistent():
                config = definition.parse(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            name, number = domain.name(), domain.ID()
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise
        return View(uuid, name, number, live, config) if live is not None or config is not None else None

    @_translated
    def attach_device(self, uuid: str, xml: str, flags: int) -> None:
        self._raw.lookupByUUIDString(uuid).attachDeviceFlags(xml, flags)

    @_translated
    def detach_device(self, uuid: str, xml: str, flags: int) -> None:
        self._raw.lookupByUUIDString(uuid).detachDeviceFlags(xml, flags)

    @_translated
    def set_metadata(self, uuid: str, fragment: str | None, flags: int) -> None:
        self._raw.lookupByUUIDString(uuid).setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, fragment, metadata.PREFIX, metadata.URI, flags)

    def network(self, name: str) -> Network | None:
        """A network, None where libvirt has none of that name."""
        try:
            found = self._raw.networkLookupByName(name)
            return Network.parse(etree.fromstring(found.XMLDesc(0).encode()), bool(found.isActive()))
        except libvirt.libvirtError as error:
            if error.get_error_code() in (*_GONE, libvirt.VIR_ERR_NO_SUPPORT):
                return None
            raise translate(error, f"network {name}") from error

    def guest_addresses(self, live: etree._Element, ask_agent: bool = True) -> list[GuestAddress]:
        """What `virsh domifaddr` shows of a running domain: leases, then its agent, then the neighbour table.

        A later source is asked only for NICs of which an earlier one knew nothing. An agent that hangs costs seconds.
        """
        nics = [nic for nic in address.interfaces(live) if nic.mac]
        found = self._interface_addresses(live, "lease", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)
        if ask_agent and _lacks(nics, found) and live.find(_CONNECTED_AGENT) is not None:
            told = self._interface_addresses(live, "agent", libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT)
            known = {row.mac for row in found}
            found += [row for row in told if row.mac not in known]
        known = {row.mac for row in found if row.address}
        with contextlib.suppress(Unavailable):  # `facts` needs the same tool and says what is wrong with it
            found += host_network.neighbours([nic for nic in nics if nic.mac not in known])
        return found[:_MOST_ROWS]

    def _interface_addresses(self, live: etree._Element, source: str, number: int) -> list[GuestAddress]:
        """Of one of libvirt's own sources; none where it has none to give."""
        try:
            listed = self._raw.lookupByUUIDString(live.findtext("uuid", "")).interfaceAddresses(number)
        except libvirt.libvirtError:
            return []  # no leases of this kind of NIC, an agent that does not answer: the next source is asked
        rows = [GuestAddress.checked(name, entry.get("hwaddr"), a["addr"], a["prefix"], source)
                for name, entry in listed.items() for a in entry["addrs"] or [{"addr": "", "prefix": 0}]]
        return [row for row in rows if row is not None]

    def facts(self, live: etree._Element, guests: Sequence[GuestAddress]) -> address.Facts:
        """What the choice of the gateway rests on: libvirt's networks and this host's own devices."""
        names = {nic.network for nic in address.interfaces(live) if nic.network}
        networks = {name: network for name in names if (network := self.network(name)) is not None}
        return address.Facts(networks, host_network.devices(), guests)


def _lacks(nics: Sequence[Interface], found: Sequence[GuestAddress]) -> bool:
    known = {row.mac for row in found if row.address}
    return any(nic.mac not in known for nic in nics)
