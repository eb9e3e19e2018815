# SPDX-License-Identifier: Apache-2.0
"""Which libvirt we serve: this machine's system one, since a region is this machine's memory and root's file."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from orion_virt.errors import ConfigError

VARIABLE = "ORION_LIBVIRT_URI"
ACCEPTED = "qemu:///system (test:///default for tests)"


def chosen(configured: str = "") -> str:
    """The variable's URI, else the configured one ("": none). Raises ConfigError for one that we cannot serve."""
    uri = os.environ.get(VARIABLE, "")
    why = refusal(uri) if uri else ""
    if why:
        raise ConfigError(f"{VARIABLE} = {uri} is {why}", hint=f"Accepted: {ACCEPTED}")
    return uri or configured


def refusal(uri: str) -> str:
    """Why a session's, a remote or another hypervisor's URI is not served; "" for one that is."""
    parts = urlsplit(uri)
    driver, _, transport = parts.scheme.partition("+")
    if parts.netloc or transport not in ("", "unix"):
        return "libvirt of another machine: run oriond and orion-virt there"
    if driver == "test" and not transport:
        return ""
    if driver != "qemu":
        return "no URI of QEMU's driver"
    if parts.path != "/system":
        return "a user's own libvirt: its QEMU cannot open regions, which are root's files; define the domain in qemu:///system"
    return ""
