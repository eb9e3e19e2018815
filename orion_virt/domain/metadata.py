# SPDX-License-Identifier: Apache-2.0
"""Our element in a domain's <metadata>: what its owner wants of us. A bad value means the default, and is said."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lxml import etree

from orion_virt.errors import ConfigError
from orion_virt.model.ceiling import Ceiling

URI = "https://orion-virt/domain/1"
PREFIX = "orion"
TAG = "vgpu"
SCHEMA = Path(__file__).with_name("vgpu.rng")
_YES_NO = {"yes": True, "no": False}


@dataclass(frozen=True)
class Settings:
    """`<orion:vgpu enabled= required= vgpus= memory= total= compute= region= gateway= doorbell=>`; None: not said.

    ``memory`` and ``region`` are MiB, ``compute`` percent. ``marked``: the element is there and does not say no.
    """

    enabled: bool | None = None
    required: bool = False
    vgpus: int | None = None
    memory: int | None = None
    total: int | None = None
    compute: int | None = None
    region: int | None = None
    gateway: str | None = None
    doorbell: bool = False
    present: bool = False
    errors: tuple[str, ...] = ()

    @property
    def marked(self) -> bool:
        return self.present and self.enabled is not False


def read(domain: etree._Element) -> Settings:
    """The settings of a domain's XML; never fails."""
    return parse(find(domain))


def find(domain: etree._Element) -> etree._Element | None:
    """Our element in a domain's XML."""
    return domain.find(f"metadata/{{{URI}}}{TAG}")


def values_of(domain: etree._Element) -> dict[str, str]:
    """What a domain's XML says, unchecked, as somebody wrote it."""
    found = find(domain)
    return {} if found is None else {str(k): str(v) for k, v in found.attrib.items()}


def ceiling(settings: Settings) -> Ceiling:
    """What the processes may have at most."""
    return Ceiling(settings.vgpus, settings.memory, settings.total, settings.compute)


def defaults(settings: Settings) -> tuple[int, int]:
    """What a process has that says nothing: vGPUs, and MiB of each; 0: ours. A ceiling is a default too."""
    vgpus = settings.vgpus or 0
    return min(vgpus, settings.total or vgpus), settings.memory or 0


def element(values: Mapping[str, str]) -> etree._Element:
    """Our element with these attributes."""
    return etree.Element(f"{{{URI}}}{TAG}", dict(values))


def parse(found: etree._Element | None) -> Settings:
    """One element, with or without its namespace (libvirt's metadata call returns it without)."""
    if found is None:
        return Settings()
    values: dict[str, Any] = {}
    errors: list[str] = []
    for name, text in found.attrib.items():
        reader = _READERS.get(str(name))
        if reader is None:
            errors.append(f"unknown attribute {name}; known are {', '.join(_READERS)}")
            continue
        value = reader(str(text))
        if value is None:
            errors.append(f"{name}='{text}' is not valid; accepted: {_ACCEPTED[str(name)]}")
        else:
            values[str(name)] = value
    return Settings(**values, present=True, errors=tuple(errors))


@functools.cache
def _schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(str(SCHEMA)))


def check(values: Mapping[str, str]) -> None:
    """Raises ConfigError, with what is accepted, for what the schema or the parser does not take."""
    made = element(values)
    errors = parse(made).errors
    if errors:
        raise ConfigError(errors[0], hint=f"The schema is {SCHEMA}")
    if not _schema().validate(made):
        raise ConfigError(f"{fragment(values)} is not valid: {_schema().error_log.last_error.message}",
                          hint=f"The schema is {SCHEMA}")


def fragment(values: Mapping[str, str]) -> str:
    """The element for setMetadata, without xmlns: libvirt would accept one and then lose the element."""
    return etree.tostring(etree.Element(TAG, dict(values)), encoding="unicode")


def _number(low: int, high: int) -> Callable[[str], int | None]:
    def reader(text: str) -> int | None:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            return None
        return int(text)

    return reader


def _address(text: str) -> str | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    beyond_reach = found.is_loopback or found.is_unspecified or found.is_multicast or found.version == 6 and found.is_link_local
    return None if beyond_reach else str(found)


_READERS: dict[str, Callable[[str], Any]] = {
    "enabled": _YES_NO.get, "required": _YES_NO.get, "vgpus": _number(1, 32), "memory": _number(1, 1 << 24),
    "total": _number(1, 1600), "compute": _number(1, 100), "region": _number(2, 1 << 20), "gateway": _address,
    "doorbell": _YES_NO.get,
}
_ACCEPTED = {
    "enabled": "yes or no", "required": "yes or no", "vgpus": "1 to 32", "memory": "MiB, 1 to 16777216",
    "total": "1 to 1600", "compute": "percent, 1 to 100", "region": "MiB, 2 to 1048576", "doorbell": "yes or no",
    "gateway": "an IP address of this host that the guest can dial, so no loopback and no link-local IPv6",
}
NAMES = tuple(_READERS)
