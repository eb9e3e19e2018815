# SPDX-License-Identifier: Apache-2.0
"""What has to be done with a domain: pure decisions from its XML and the settings."""

from __future__ import annotations

from dataclasses import dataclass

from lxml import etree

from orion_virt.domain import metadata
from orion_virt.errors import ProtocolError
from orion_virt.units import MIB, power_of_two_at_least

NVIDIA_PCI = "0x10de"
Q35_LIVE_BYTES = 2 * MIB  # more gets no address behind a bridge that the firmware has not sized for it


@dataclass(frozen=True)
class Policy:
    """[libvirt] of server.conf, and who was detached for good."""

    attach: str = "all"
    exclude: tuple[str, ...] = ()
    detached: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Decision:
    """Whether the domain shall have the device, and why (not)."""

    wanted: bool
    reason: str


def parse(xml: str) -> etree._Element:
    """A domain's XML as libvirt gives it. Raises ProtocolError for anything else."""
    try:
        root = etree.fromstring(xml.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError as error:
        raise ProtocolError(f"libvirt sent XML that is not readable: {error}") from error
    if root.tag != "domain" or not root.findtext("uuid"):
        raise ProtocolError(f"libvirt sent <{root.tag}> instead of a domain")
    return root


def host_devices(domain: etree._Element) -> list[str]:
    """Of each host device passed through, the sysfs file that names its vendor: the XML does not."""
    found = []
    for element in domain.iterfind("devices/hostdev/source/address"):
        kind = element.getparent().getparent().get("type")
        if kind == "mdev":  # a mediated device lies in the directory of its card
            found.append(f"/sys/bus/mdev/devices/{element.get('uuid')}/../vendor")
        elif kind == "pci":
            part = [int(element.get(k, "0"), 0) for k in ("domain", "bus", "slot", "function")]
            found.append(f"/sys/bus/pci/devices/{part[0]:04x}:{part[1]:02x}:{part[2]:02x}.{part[3]:x}/vendor")
    return found


def decide(domain: etree._Element, policy: Policy, nvidia: bool = False) -> Decision:
    """``nvidia``: a card of NVIDIA's is passed through to the domain."""
    name, uuid = domain.findtext("name") or "", domain.findtext("uuid") or ""
    settings = metadata.read(domain)
    if settings.enabled is False:
        return Decision(False, "its metadata says enabled='no'")
    if name in policy.exclude or uuid in policy.exclude:
        return Decision(False, "[libvirt] exclude names it")
    if uuid in policy.detached:
        return Decision(False, "it was detached for good (orion-virt attach takes that back)")
    if nvidia:
        return Decision(False, "it has an NVIDIA GPU of its own (<hostdev>)")
    if policy.attach == "marked" and not settings.marked:
        return Decision(False, "[libvirt] attach = marked, and its metadata has no <orion:vgpu>")
    return Decision(True, "marked" if settings.marked else "[libvirt] attach = all")


def machine(domain: etree._Element) -> str:
    """`q35` or `pc` (everything that is not q35)."""
    kind = domain.find("os/type")
    name = "" if kind is None else str(kind.get("machine", ""))
    return "q35" if "q35" in name else "pc"


def has_pci_bridge(domain: etree._Element) -> bool:
    """Whether a conventional PCI slot that takes hot-plug exists on q35."""
    return any(e.get("model") in ("pcie-to-pci-bridge", "pci-bridge", "dmi-to-pci-bridge")
               for e in domain.iterfind("devices/controller[@type='pci']"))


def live_bytes(domain: etree._Element, wanted_bytes: int, room_bytes: int = Q35_LIVE_BYTES,
               fresh: bool = False) -> tuple[int, str]:
    """How large a region can be plugged into the running domain: (bytes, reason); 0 bytes: not at all.

    ``room_bytes``: what its firmware left behind the bridge, more where it has seen the device. ``fresh``: the
    firmware has not run yet, and will make room.
    """
    if machine(domain) == "pc":
        return wanted_bytes, "i440fx takes any size"
    if has_pci_bridge(domain):
        if fresh:
            return wanted_bytes, "its firmware has not run yet"
        room = max(room_bytes, Q35_LIVE_BYTES)
        return min(wanted_bytes, room), f"a running q35 domain has room for {room // MIB} MiB behind its bridge"
    return 0, "q35 without a PCI bridge has nowhere to plug it in"


def region_bytes(domain: etree._Element, configured: int) -> int:
    """The size that the domain's region shall have; ``configured`` from server.conf for this kind of domain."""
    settings = metadata.read(domain)
    return power_of_two_at_least(max(2, settings.region) * MIB) if settings.region else configured
