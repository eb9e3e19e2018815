# SPDX-License-Identifier: Apache-2.0
"""PCI controllers that libvirt adds to a definition for our device, and that go with it again."""

from __future__ import annotations

from lxml import etree

Key = tuple[str, int]
"""A controller's model and index."""


def keys(domain: etree._Element) -> set[Key]:
    """The PCI controllers of a domain's XML."""
    return {_key(element) for element in domain.iterfind("devices/controller[@type='pci']")}


def _key(element: etree._Element) -> Key:
    return str(element.get("model", "")), int(element.get("index", "0"), 0)


def unused(domain: etree._Element, added: set[Key]) -> list[etree._Element]:
    """Of those in `added` the ones on which nothing else sits by now, in the order in which they can be taken out.

    The last one first: libvirt keeps a port to spare, and makes a new one where the bridge still has its own.
    """
    left = [element for element in domain.iterfind("devices/controller[@type='pci']") if _key(element) in added]
    left.sort(key=lambda element: -_key(element)[1])
    found: list[etree._Element] = []
    while True:
        gone = {id(element) for element in found}
        free = [e for e in left if id(e) not in gone and not _carries(domain, _key(e)[1], gone)]
        if not free:
            return found
        found += free


def _carries(domain: etree._Element, index: int, gone: set[int]) -> bool:
    """Whether a device (of those not in `gone`) has its address on this controller's bus."""
    return any(int(address.get("bus", "0"), 0) == index and id(address.getparent()) not in gone
               for address in domain.iterfind("devices/*/address[@type='pci']"))
