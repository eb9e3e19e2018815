# SPDX-License-Identifier: Apache-2.0
"""What `orion-virt doctor` looks at: each check is one function from facts to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from orion_virt.doctor import files, firewall, guests, host
from orion_virt.doctor.facts import Facts, Finding

Check = Callable[[Facts], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    host.configuration,
    host.daemon,
    host.controller,
    host.monitoring,
    host.libvirt,
    host.hook,
    host.shared_memory,
    host.huge_pages,
    files.qemu_group,
    files.region_files,
    files.apparmor,
    files.selinux,
    guests.problems,
    guests.device,
    guests.mapping,
    guests.processes,
    firewall.firewall,
)


def examine(facts: Facts, domain: str = "") -> Iterator[tuple[str, Finding]]:
    """(check, finding) of every check; with `domain` only what is the host's or that domain's."""
    for check in CHECKS:
        for finding in check(facts):
            if not domain or finding.domain in ("", domain):
                yield check.__name__, finding
