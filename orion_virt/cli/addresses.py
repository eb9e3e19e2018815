# SPDX-License-Identifier: Apache-2.0
"""What `orion-virt show` prints of a domain's addresses: its own, as virsh prints them, and ours, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RULE = "-" * 79
SOURCES = {"lease": "DHCP leases", "agent": "guest agent", "arp": "this host's neighbour table, which knows no prefix"}


def gateway_lines(domain: Mapping[str, Any]) -> list[str]:
    """Where the guest reaches this host and why there; why not over its other NICs."""
    lines = []
    for gateway in domain["gateways"]:
        behind = f" (this host's {gateway['listen']})" if gateway["listen"] != gateway["address"] else ""
        lines.append(f"  {'gateway:':<16} {gateway['address']}{behind}: {gateway['why']}")
    if not domain["gateways"] and domain["state"] == "running" and domain["device"] == "live":
        lines.append(f"  {'gateway:':<16} none")
    return lines + [f"  {'no gateway:':<16} {why}" for why in domain["unusable"]]


def domifaddr(name: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table for each source of addresses, in the layout of `virsh domifaddr`."""
    lines = []
    for source in dict.fromkeys(row["source"] for row in rows):
        lines += ["", f"virsh domifaddr {name} --source {source}    ({SOURCES.get(source, source)})"]
        lines += table([row for row in rows if row["source"] == source])
    return lines


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of one source, byte for byte as virsh prints it; an interface with several addresses is named once."""
    lines = [f" {'Name':<10} {'MAC address':<20} {'Protocol':<8}     Address", RULE]
    named = ("", "")
    for row in rows:
        who = (row["name"], row["mac"])
        if not row["address"]:
            lines.append(f" {who[0]:<10} {who[1] or 'N/A':<17}    {'N/A':<12} N/A")
            continue
        shown = ("-", "-") if who == named and row["source"] != "arp" else who
        named = who
        lines.append(f" {shown[0]:<10} {shown[1]:<17}    {row['protocol']:<12} {row['address']}/{row['prefix']}")
    return lines
