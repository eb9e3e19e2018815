# SPDX-License-Identifier: Apache-2.0
"""The <shmem> element that carries a domain's region."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lxml import etree

from orion_virt import paths
from orion_virt.errors import ConfigError
from orion_virt.units import MIB

PREFIX = "orion-"
ALIAS = "ua-orion0"
PLAIN, DOORBELL = "ivshmem-plain", "ivshmem-doorbell"
VECTORS = 32  # ivshmem/server.py gives as many
DEFAULT_BYTES = 4 * MIB  # libvirt's, where there is no <size>
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_SOCKET = re.compile(r"/([0-9a-f-]{36})-([1-9][0-9]{0,6})\.sock\Z")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Shmem:
    """One region device as a domain's XML has it."""

    name: str
    size_bytes: int
    alias: str | None = None
    server: str = ""  # where QEMU connects to the doorbell's server; "": ivshmem-plain


def region_name(uuid: str) -> str:
    """The name of the only region that the domain may use."""
    return PREFIX + uuid


def is_region_name(name: str) -> bool:
    """Whether a shmem name is one of ours, this domain's or another's."""
    return name.startswith(PREFIX) and bool(_UUID.match(name.removeprefix(PREFIX)))


def device_xml(uuid: str, size_bytes: int, doorbell: bool = False) -> str:
    """The element for attachDevice. libvirt refuses a size for the doorbell's model: its server's path carries it.

    role='master' because libvirt refuses save and migration with a peer; what a restore writes back into the region
    is made harmless by a new generation.
    """
    shmem = etree.Element("shmem", name=region_name(uuid), role="master")
    etree.SubElement(shmem, "model", type=DOORBELL if doorbell else PLAIN)
    if doorbell:
        etree.SubElement(shmem, "server", path=str(paths.doorbell_socket(uuid, size_bytes // MIB)))
        etree.SubElement(shmem, "msi", vectors=str(VECTORS), ioeventfd="on")
    else:
        etree.SubElement(shmem, "size", unit="M").text = str(size_bytes // MIB)
    etree.SubElement(shmem, "alias", name=ALIAS)
    return etree.tostring(shmem, encoding="unicode")


def find_all(domain: etree._Element) -> list[Shmem]:
    """Every region device of ours in a domain's XML, a clone's foreign one included."""
    return [_parse(e) for e in domain.iterfind("devices/shmem") if _is_ours(e)]


def find_own(domain: etree._Element) -> Shmem | None:
    """The domain's own region device."""
    name = region_name(domain.findtext("uuid") or "")
    return next((s for s in find_all(domain) if s.name == name), None)


def find_foreign(domain: etree._Element) -> list[etree._Element]:
    """Devices that carry another domain's region: this one is a clone."""
    name = region_name(domain.findtext("uuid") or "")
    return [e for e in domain.iterfind("devices/shmem") if _is_ours(e) and e.get("name") != name]


def own_element(domain: etree._Element) -> etree._Element | None:
    """The element of ``find_own``, as detachDevice wants it."""
    name = region_name(domain.findtext("uuid") or "")
    return next((e for e in domain.iterfind("devices/shmem") if _is_ours(e) and e.get("name") == name), None)


def _is_ours(element: etree._Element) -> bool:
    model = element.find("model")
    return model is not None and model.get("type") in (PLAIN, DOORBELL) and is_region_name(element.get("name", ""))


def _parse(element: etree._Element) -> Shmem:
    size, alias, server = element.find("size"), element.find("alias"), element.find("server")
    if server is not None:
        found = _SOCKET.search(server.get("path", ""))
        return Shmem(element.get("name", ""), int(found[2]) * MIB if found else 0, None if alias is None else alias.get("name"),
                     server.get("path", ""))
    n_bytes = DEFAULT_BYTES if size is None else size_in_bytes(size.text or "", size.get("unit", "b"))
    return Shmem(element.get("name", ""), n_bytes, None if alias is None else alias.get("name"))


def size_in_bytes(text: str, unit: str) -> int:
    """libvirt's scaled integers: K, M, G, T and KiB ... are powers of 1024, KB, MB ... of 1000."""
    power = _POWERS.get(unit[:1].lower(), 0)
    factor = (1000 if len(unit) == 2 and unit[1:].lower() == "b" else 1024) ** power
    try:
        return int(text) * factor
    except ValueError:
        raise ConfigError(f"{text!r} is no size",
                          hint="Use a number and a unit, e.g. <size unit='M'>128</size>") from None
