# SPDX-License-Identifier: Apache-2.0
"""Which group QEMU runs with, found and not assumed: qemu.conf, then the passwd database."""

from __future__ import annotations

import grp
import pwd

AUTO = "auto"
QEMU_CONF = "/etc/libvirt/qemu.conf"
USERS = ("libvirt-qemu", "qemu")  # what distributions build libvirt with


class Unknown(Exception):
    """QEMU's group cannot be told; the text says what was looked at and what to set."""


class Owner:
    """``gid`` of the group that may use regions, its ``group`` name, and ``how`` it was found."""

    def __init__(self, gid: int, how: str) -> None:
        self.gid = gid
        self.how = how
        try:
            self.group = grp.getgrgid(gid).gr_name
        except KeyError:
            self.group = f"+{gid}"


def find(configured: str = AUTO) -> Owner:
    """``configured``: a group's name, `+gid`, or `auto`. Raises Unknown."""
    if configured != AUTO:
        return Owner(_gid(configured, "[server-shm] shm_group_name"), "[server-shm] shm_group_name")
    said = _qemu_conf()
    if "group" in said:
        return Owner(_gid(said["group"], QEMU_CONF), f"group in {QEMU_CONF}")
    # libvirt gives QEMU all groups of its user, the one in passwd among them.
    for name in [said["user"]] if "user" in said else USERS:
        try:
            entry = pwd.getpwuid(int(name[1:])) if name[:1] == "+" and name[1:].isdigit() else pwd.getpwnam(name)
        except KeyError:
            continue
        return Owner(entry.pw_gid, f"the group of QEMU's user {entry.pw_name}")
    raise Unknown(f"QEMU's user is unknown: {said.get('user') or ' and '.join(USERS)} is not in the passwd database; "
                  f"name its group: group in {QEMU_CONF}, or [server-shm] shm_group_name in server.conf")


def _gid(name: str, where: str) -> int:
    """libvirt's rule: `+107` is a number, anything else a name, or a number where there is no such name."""
    if name[:1] == "+" and name[1:].isdigit():
        return int(name[1:])
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdigit():
            return int(name)
        raise Unknown(f"group {name!r} ({where}) does not exist; name QEMU's group there, or set "
                      "shm_group_name = auto") from None


def _qemu_conf() -> dict[str, str]:
    """`user` and `group`, where they are set to something."""
    try:
        with open(QEMU_CONF, encoding="utf-8", errors="replace") as file:
            lines = [line.partition("=") for line in file if "=" in line]
    except OSError:
        return {}
    found = {key.strip(): value.split("#")[0].strip().strip("\"'") for key, _, value in lines}
    return {key: found[key] for key in ("user", "group") if found.get(key)}


def members(gid: int) -> list[str]:
    """Who may open every region of this host beside root and QEMU: members of the group."""
    listed = {entry.pw_name for entry in pwd.getpwall() if entry.pw_gid == gid}
    try:
        listed.update(grp.getgrgid(gid).gr_mem)
    except KeyError:
        pass
    return sorted(listed - {"root", *USERS})

