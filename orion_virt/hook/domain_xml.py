# SPDX-License-Identifier: Apache-2.0
"""What the hook must know of a domain, read from the XML that libvirt gives it on stdin."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from . import doorbell

METADATA_URI = "https://orion-virt/domain/1"
DEFAULT_SHMEM_BYTES = 4 << 20  # libvirt's, where <shmem> has no <size>
_REGION = re.compile(r"orion-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\Z")
_UNITS = {
    "b": 1, "bytes": 1, "KB": 10**3, "k": 1 << 10, "KiB": 1 << 10, "MB": 10**6, "M": 1 << 20, "MiB": 1 << 20,
    "GB": 10**9, "G": 1 << 30, "GiB": 1 << 30, "TB": 10**12, "T": 1 << 40, "TiB": 1 << 40,
}


@dataclass(frozen=True)
class Shmem:
    """One of our devices."""

    name: str
    size_bytes: int
    server: str = ""  # where QEMU connects to the doorbell's server; "" for ivshmem-plain


@dataclass(frozen=True)
class Domain:
    """A domain as far as the hook cares."""

    name: str
    uuid: str
    shmems: tuple[Shmem, ...]
    required: bool

    @property
    def region(self) -> str:
        """The only region that this domain may use."""
        return f"orion-{self.uuid}"


def parse(xml: bytes) -> Domain:
    """Raises ValueError for what is no domain's XML."""
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise ValueError(f"libvirt's XML is not readable: {error}") from error
    uuid = (root.findtext("uuid") or "").strip().lower()
    if root.tag != "domain" or not _REGION.match(f"orion-{uuid}"):
        raise ValueError("libvirt's XML is no domain with a UUID")
    found = (_shmem(element) for element in root.findall("devices/shmem"))
    vgpu = root.find(f"metadata/{{{METADATA_URI}}}vgpu")
    required = vgpu is not None and vgpu.get("required") == "yes" and vgpu.get("enabled") != "no"
    return Domain(root.findtext("name") or "", uuid, tuple(s for s in found if s), required)


def _shmem(element: ET.Element) -> Shmem | None:
    """None for another program's device."""
    model = element.find("model")
    kind = "" if model is None else model.get("type")
    name = element.get("name", "")
    if kind not in ("ivshmem-plain", "ivshmem-doorbell") or not _REGION.match(name):
        return None
    if kind == "ivshmem-doorbell":
        server = element.find("server")
        path = "" if server is None else server.get("path", "")
        return Shmem(name, doorbell.size_of(path, name), path)
    size = element.find("size")
    if size is None:
        return Shmem(name, DEFAULT_SHMEM_BYTES)
    return Shmem(name, int(size.text or "0") * _UNITS.get(size.get("unit", "b"), 1))
