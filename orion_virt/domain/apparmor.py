# SPDX-License-Identifier: Apache-2.0
"""AppArmor: libvirt extends a domain's profile for devices of its definition, but not for <shmem> that is plugged in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lxml import etree

from orion_virt.errors import Conflict

HELPERS = ("/usr/lib/libvirt/virt-aa-helper", "/usr/libexec/virt-aa-helper")
HELPER_SECONDS = 20


def profile(domain: etree._Element) -> str:
    """The profile that confines this running domain, "" where none does."""
    for element in domain.iterfind("seclabel[@model='apparmor']"):
        return (element.findtext("label") or "").strip()
    return ""


def helper() -> str | None:
    """libvirt's own program for these profiles."""
    return next((path for path in HELPERS if Path(path).exists()), shutil.which("virt-aa-helper"))


def arguments(name: str, path: str) -> list[str]:
    """-r: reload the profile; -F: append this one path to what it allows. The domain's XML comes on stdin."""
    return ["-r", "-u", name, "-F", path]


def allow(domain: etree._Element, path: str) -> None:
    """Lets this domain's QEMU use this one file, as libvirt does for other devices. Raises Conflict."""
    name = profile(domain)
    if not name:
        return
    program = helper()
    if program is None:
        raise Conflict(f"AppArmor confines the domain ({name}) and libvirt's virt-aa-helper is not found",
                       hint="Shut the domain down and start it again: then libvirt allows the device by itself")
    try:
        done = subprocess.run([program, *arguments(name, path)], input=etree.tostring(domain), capture_output=True,
                              timeout=HELPER_SECONDS, check=False)
        said = b"" if done.returncode == 0 else done.stderr or b"it said nothing"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error).encode()
    if said:
        raise Conflict(f"{name} cannot be extended by {path}: {said.decode(errors='replace').strip()}",
                       hint="Shut the domain down and start it again: then libvirt allows the device by itself")
