# SPDX-License-Identifier: Apache-2.0
"""SELinux: a region gets the label that its own domain's QEMU would have given it, and no other domain's may open it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself is slow to import
    from typing import Any

ENFORCE = "/sys/fs/selinux/enforce"
TYPE = "svirt_tmpfs_t"  # of files that a confined QEMU makes on a tmpfs


ANY_DOMAIN = f"system_u:object_r:{TYPE}:s0"  # without categories: every confined QEMU may


def is_on() -> bool:
    return os.path.exists(ENFORCE)


def context(domain: Any) -> str:
    """The label for the region from the domain's XML (of either XML library), "" where libvirt has set none.

    libvirt's image label carries the categories of this run of the domain; only the type is another on a tmpfs.
    """
    for element in domain.findall("seclabel"):
        parts = (element.findtext("imagelabel") or "").strip().split(":", 3)
        if element.get("model") == "selinux" and len(parts) == 4:
            return ":".join((parts[0], parts[1], TYPE, parts[3]))
    return ""


def apply(file: str | int, wanted: str) -> None:
    """Sets the label of a path or descriptor. Raises OSError."""
    os.setxattr(file, "security.selinux", wanted.encode() + b"\0")
