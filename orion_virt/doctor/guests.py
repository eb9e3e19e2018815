# SPDX-License-Identifier: Apache-2.0
"""Checks of domains, as far as the host can see into them: device, slots, mapping, versions, transport."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lxml import etree

from orion_virt.doctor.facts import ERROR, INFO, OK, WARNING, Facts, Finding
from orion_virt.domain import definition

I440FX_SLOTS = 32
POWER_CYCLE = "shut it down and start it again (a reboot from inside is not enough)"


def problems(facts: Facts) -> Iterator[Finding]:
    """What oriond itself has found."""
    if isinstance(facts.domains, list):
        for domain in facts.domains:
            for problem in domain["problems"]:
                yield Finding(WARNING, problem, domain=domain["name"])


def device(facts: Facts) -> Iterator[Finding]:
    """A running domain that shall have the device has it; else whether it can be plugged in, and why not."""
    for domain in facts.running():
        if not domain["wanted"]:
            yield Finding(INFO, f"has no vGPUs: {domain['reason']}", domain=domain["name"])
        elif domain["device"] == "live":
            yield Finding(OK, f"has its device, {domain['size_mib']} MiB", domain=domain["name"])
        else:
            why, fix = _no_device(domain, facts.xml.get(domain["uuid"]))
            yield Finding(ERROR, f"runs without its device: {why}", fix, domain["name"])


def _no_device(domain: dict[str, Any], xml: etree._Element | None) -> tuple[str, str]:
    again = POWER_CYCLE if domain["device"] == "defined" else f"orion-virt attach {domain['name']}, then {POWER_CYCLE}"
    if xml is None:
        return "it was started before", again
    if definition.machine(xml) == "q35" and not definition.has_pci_bridge(xml):
        return "q35 without a PCI bridge has no slot that takes it while it runs", again
    if definition.machine(xml) == "pc" and len(used_slots(xml)) >= I440FX_SLOTS - 1:  # slot 0 is the host bridge
        return (
            "no free PCI slot",
            f"remove a device or add a pci-bridge controller (virsh edit {domain['name']}), then {POWER_CYCLE}",
        )
    return "it can be plugged in now", f"orion-virt attach {domain['name']}"


def used_slots(xml: etree._Element) -> set[str]:
    """Slots of PCI bus 0."""
    return {
        a.get("slot", "")
        for a in xml.iterfind("devices//address[@type='pci']")
        if int(a.get("bus", "0"), 0) == 0 and int(a.get("slot", "0"), 0)
    }


def mapping(facts: Facts) -> Iterator[Finding]:
    """What keeps guests from mapping the device, or makes that slow."""
    amd = "AuthenticAMD" in (facts.machine.read("/proc/cpuinfo") or "")
    for domain in facts.running():
        xml = facts.xml.get(domain["uuid"])
        if xml is None or domain["device"] != "live":
            continue
        if secure_boot(xml):
            yield Finding(
                WARNING,
                "boots with Secure Boot: a locked-down kernel does not let programs map the device, they go "
                "the slower way over TCP",
                f"switch Secure Boot off: virsh edit {domain['name']}, then {POWER_CYCLE}",
                domain["name"],
            )
        if amd and xml.get("type") == "kvm":
            yield Finding(
                INFO,
                "on AMD's processors the guest's own page attributes count, so that the region may be uncached there",
                "in the guest: compare ORION_BAR=wc",
                domain["name"],
            )


def secure_boot(xml: etree._Element) -> bool:
    """By the loader, or by libvirt's choice of a firmware."""
    loader = xml.find("os/loader")
    feature = xml.find("os/firmware/feature[@name='secure-boot']")
    return (loader is not None and loader.get("secure") == "yes") or (
        feature is not None and feature.get("enabled") == "yes"
    )


def processes(facts: Facts) -> Iterator[Finding]:
    """Clients of other versions, and those that go over TCP although their domain has a device."""
    live = {domain["uuid"]: domain["name"] for domain in facts.running() if domain["device"] == "live"}
    names = {domain["uuid"]: domain["name"] for domain in facts.running()}
    for channel in facts.known.get("channels", []):
        who = f"{channel['comm']} (pid {channel['pid']} there)"
        name = names.get(channel["domain"], channel["domain"] or channel["peer"])
        if facts.build and channel.get("build") and _commit(channel["build"]) != _commit(facts.build):
            yield Finding(
                WARNING,
                f"{who} has client build {channel['build']}, the host {facts.build}",
                "install this host's install-client there",
                name,
            )
        if channel["transport"] == "tcp" and channel["domain"] in live:
            yield Finding(
                WARNING,
                f"{who} goes over TCP although the domain has a device",
                "its stderr says why: group orion (a new login), Secure Boot, or a device without an address",
                name,
            )


def _commit(build: str) -> str:
    return build.partition("-")[0]
