# SPDX-License-Identifier: Apache-2.0
"""Which controllers of a q35 definition go with our device again."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

from orion_virt.domain import controllers

ADDED = {("pcie-root-port", 5), ("pcie-to-pci-bridge", 6)}
PORTS = "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'><address type='pci' bus='0x00' slot='0x01' "
                f"function='{n}'/></controller>" for n in range(1, 6))
BRIDGE = "<controller type='pci' index='6' model='pcie-to-pci-bridge'><address type='pci' bus='0x04' slot='0x00'/></controller>"


def domain(devices: str = "") -> etree._Element:
    return etree.fromstring(f"<domain><devices><controller type='pci' index='0' model='pcie-root'/>{PORTS}{BRIDGE}{devices}"
                            "<controller type='usb' index='0' model='none'/></devices></domain>")


def indexes(found: list[etree._Element]) -> list[str | None]:
    return [element.get("index") for element in found]


def test_keys() -> None:
    assert ("pcie-to-pci-bridge", 6) in controllers.keys(domain())
    assert len(controllers.keys(domain())) == 7


def test_the_bridge_goes_before_the_port_that_replaced_its_own() -> None:
    assert indexes(controllers.unused(domain(), ADDED)) == ["6", "5"]


def test_what_somebody_uses_stays() -> None:
    nic = "<interface><address type='pci' bus='0x06' slot='0x02'/></interface>"
    assert indexes(controllers.unused(domain(nic), ADDED)) == ["5"]
    on_port = "<interface><address type='pci' bus='0x05' slot='0x00'/></interface>"
    assert indexes(controllers.unused(domain(on_port), ADDED)) == ["6"]


def test_a_port_under_a_bridge_that_goes_goes_too() -> None:
    assert indexes(controllers.unused(domain(), {("pcie-root-port", 4), ("pcie-to-pci-bridge", 6)})) == ["6", "4"]


def test_others_are_never_touched() -> None:
    assert controllers.unused(domain(), set()) == []


def test_a_definition_of_libvirt() -> None:
    golden = etree.fromstring((Path(__file__).parent / "golden" / "domain" / "live-q35.xml").read_bytes())
    assert any(model == "pcie-to-pci-bridge" for model, _ in controllers.keys(golden))
