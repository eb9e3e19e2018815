# SPDX-License-Identifier: Apache-2.0
"""The <orion:vgpu> element: read defensively, since libvirt checks nothing in it."""

from __future__ import annotations

import pytest
from lxml import etree

from orion_virt.domain import metadata


def element(attributes: str) -> etree._Element:
    return etree.fromstring(f"<vgpu {attributes}/>")


def test_absent() -> None:
    found = metadata.parse(None)
    assert found == metadata.Settings() and not found.marked


def test_all() -> None:
    found = metadata.parse(element("enabled='yes' required='yes' vgpus='2' memory='12000' compute='50' region='128' "
                                   "gateway='192.168.122.1'"))
    assert found == metadata.Settings(True, True, 2, 12000, 50, 128, "192.168.122.1", True)
    assert found.marked


@pytest.mark.parametrize("attribute", [
    "enabled='true'", "required='1'", "vgpus='0'", "vgpus='33'", "memory='12G'", "memory='-1'", "compute='101'",
    "region='1'", "region='²'", "gateway='host'", "gateway='fe80::1'", "gateway='127.0.0.1'", "gateway='0.0.0.0'",
    "vgpus=''"])
def test_a_bad_value_is_the_default_and_said(attribute: str) -> None:
    found = metadata.parse(element(attribute))
    assert len(found.errors) == 1 and "accepted: " in found.errors[0]
    assert found == metadata.Settings(present=True, errors=found.errors)


def test_one_bad_value_does_not_spoil_the_others() -> None:
    found = metadata.parse(element("vgpus='many' memory='8000'"))
    assert (found.vgpus, found.memory, found.marked) == (None, 8000, True)


def test_unknown_attribute() -> None:
    found = metadata.parse(element("vgpu='2'"))
    assert found.errors and "vgpus" in found.errors[0]


def test_in_a_domain_by_namespace_only() -> None:
    def domain(uri: str) -> etree._Element:
        return etree.fromstring(f"<domain><metadata><x:vgpu xmlns:x='{uri}' enabled='no'/></metadata></domain>")

    assert metadata.read(domain(metadata.URI)).enabled is False
    assert not metadata.read(domain("https://example.org/")).present


def test_fragment_has_no_namespace() -> None:
    assert metadata.fragment({"region": "64"}) == '<vgpu region="64"/>'
