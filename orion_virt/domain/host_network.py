# SPDX-License-Identifier: Apache-2.0
"""This host's own network devices, addresses and neighbours, read by iproute2."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from orion_virt.domain.nic import Device, GuestAddress, Interface
from orion_virt.errors import Unavailable

_SECONDS = 5
_NO_NEIGHBOUR = {"FAILED", "INCOMPLETE", "NOARP"}


def devices() -> dict[str, Device]:
    """Every network device of this host by name. Raises Unavailable."""
    return {device.name: device for device in map(Device.parse, _ip("addr"))}


def every_address() -> list[str]:
    """This host's addresses, loopback last; none where they cannot be read."""
    try:
        found = [str(address.ip) for device in devices().values() for address in device.addresses]
    except Unavailable:
        found = []
    return [*found, "127.0.0.1", "::1"]


def neighbours(nics: Sequence[Interface]) -> list[GuestAddress]:
    """What the kernel's neighbour table knows of these NICs, as `virsh domifaddr --source arp` would show it.

    libvirt's own source fails on recent kernels ("wrong nlmsg len"), and knows IPv4 only. Neither knows a prefix: it is
    shown as 0. Link-local IPv6 addresses, which every NIC has, say nothing and are left out.
    """
    if not nics:
        return []
    by_mac = {nic.mac: nic for nic in nics}
    found = []
    for entry in _ip("neigh"):
        nic = by_mac.get(str(entry.get("lladdr", "")).lower())
        if nic is None or _NO_NEIGHBOUR & set(entry.get("state", [])) or str(entry["dst"]).startswith("fe80:"):
            continue
        if nic.bridge in (None, entry.get("dev")):  # not what it had on another bridge before
            found.append(GuestAddress(nic.target or nic.mac, nic.mac, str(entry["dst"]), 0, "arp"))
    return found


def _ip(what: str) -> list[dict[str, Any]]:
    try:
        done = subprocess.run(["ip", "-j", what, "show"], capture_output=True, timeout=_SECONDS, check=False)
        if done.returncode == 0:
            return [dict(entry) for entry in json.loads(done.stdout or b"[]") if entry]
        said = done.stderr.decode("utf-8", "replace").strip()
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        said = str(error)
    raise Unavailable(f"`ip -j {what}` fails: {said}", hint="Install iproute2 (4.14 or newer)")
