# SPDX-License-Identifier: Apache-2.0
"""The <orion:vgpu> element: read defensively, since libvirt checks nothing in it."""

from __future__ import annotations

import pytest
from lxml import etree

from orion_virt.domain import metadata
from orion_virt.errors import ConfigError
from orion_virt.model import ceiling


def element(attributes: str) -> etree._Element:
    return etree.fromstring(f"<vgpu {attributes}/>")


def test_absent() -> None:
    found = metadata.parse(None)
    assert found == metadata.Settings() and not found.marked


def test_all() -> None:
    found = metadata.parse(element("enabled='yes' required='yes' vgpus='2' memory='12000' total='3' compute='50' "
                                   "region='128' gateway='192.168.122.1' doorbell='yes'"))
    assert found == metadata.Settings(True, True, 2, 12000, 3, 50, 128, "192.168.122.1", True, True)
    assert found.marked


@pytest.mark.parametrize("attribute", [
    "enabled='true'", "required='1'", "vgpus='0'", "vgpus='33'", "memory='12G'", "memory='-1'", "compute='101'",
    "doorbell='on'", "region='1'", "region='²'", "gateway='host'", "gateway='fe80::1'", "gateway='127.0.0.1'", "gateway='0.0.0.0'",
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


def schema_takes(name: str, text: str) -> bool:
    return bool(metadata._schema().validate(metadata.element({name: text})))


def parser_takes(name: str, text: str) -> bool:
    return not metadata.parse(metadata.element({name: text})).errors


SAMPLES = ["", "0", "1", "2", "32", "33", "100", "101", "1600", "1601", "1048576", "1048577", "16777216", "16777217",
           "-1", "+1", "1.0", "1e2", "007", " 2 ", "2 2", "²", "yes", "no", " yes ", "Yes", "true", "99999999999999999999", "12G"]
ADDRESSES = ["192.168.122.1", "fd00::1", "::", "::ffff:10.0.0.1"]


@pytest.mark.parametrize("name", metadata._READERS)
def test_schema_and_parser_take_the_same(name: str) -> None:
    for text in SAMPLES + ADDRESSES:
        if name != "gateway":
            assert schema_takes(name, text) == parser_takes(name, text), f"{name}={text!r}"
        elif parser_takes(name, text):  # no schema language knows all forms of an address: the parser is stricter
            assert schema_takes(name, text), text


def test_schema_and_parser_know_the_same_attributes() -> None:
    """An attribute that one of them lacks would be refused here and taken there."""
    named = {e.get("name") for e in etree.parse(str(metadata.SCHEMA)).iter("{http://relaxng.org/ns/structure/1.0}attribute")}
    assert named == set(metadata._READERS) == set(metadata._ACCEPTED)
    assert not metadata._schema().validate(metadata.element({"vgpu": "2"}))
    assert not metadata._schema().validate(etree.fromstring(f"<vgpu xmlns='{metadata.URI}'><more/></vgpu>"))


@pytest.mark.parametrize(("values", "words"), [({"vgpus": "33"}, "1 to 32"), ({"vgpu": "1"}, "known are enabled"),
                                               ({"gateway": "host"}, "an IP address")])
def test_check_says_what_is_accepted(values: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        metadata.check(values)
    metadata.check({"vgpus": "32", "gateway": "10.0.0.1"})


@pytest.mark.parametrize(("attributes", "found"), [
    ("", (0, 0)), ("vgpus='2' memory='500'", (2, 500)), ("vgpus='4' total='3'", (3, 0)), ("total='3'", (0, 0))])
def test_a_ceiling_is_the_default_too(attributes: str, found: tuple[int, int]) -> None:
    assert metadata.defaults(metadata.parse(element(attributes))) == found


def test_ceilings() -> None:
    limit = ceiling.Ceiling(2, 500, 3)
    at_most = [500 << 20] * 2
    assert ceiling.refusal(limit, at_most, 1) is None and ceiling.refusal(ceiling.Ceiling(), [1 << 60] * 32, 99) is None
    for asked, in_use, passes in (([1] * 3, 0, False), ([1, (500 << 20) + 1], 0, False), (at_most, 2, True)):
        found = ceiling.refusal(limit, asked, in_use)
        assert found is not None and found.passes is passes
    assert ceiling.refusal(ceiling.Ceiling(total=1), [1, 1], 0) == ceiling.Refusal(
        "2 vGPU asked for, 0 of the 1 that this domain may have are in use",
        "Set ORION_VGPU=1 or less; on the host: orion-virt set DOMAIN --total N", False)
