# SPDX-License-Identifier: Apache-2.0
"""Checks of who can reach regions: QEMU's group and its members, the files, AppArmor, SELinux."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from orion_virt.doctor.facts import ERROR, OK, WARNING, Facts, Finding
from orion_virt.domain import shmem

QEMU_USERS = ("libvirt-qemu", "qemu", "root")
PROFILES = "/sys/kernel/security/apparmor/profiles"
SELINUX = "/sys/fs/selinux/enforce"
SELINUX_TYPES = ("svirt_tmpfs_t", "svirt_image_t")


def _lines(facts: Facts, name: str) -> list[list[str]]:
    return [line.split(":") for line in (facts.machine.read(name) or "").splitlines() if line.count(":") >= 3]


def qemu_group(facts: Facts) -> Iterator[Finding]:
    """The group of regions exists, QEMU is in it, and nobody else: its members can open every domain's region."""
    name = facts.settings.shm_group_name
    entry = next((fields for fields in _lines(facts, "/etc/group") if fields[0] == name), None)
    if entry is None:
        yield Finding(
            ERROR,
            f"group {name} ([server-shm] shm_group_name) does not exist: QEMU cannot open regions",
            "name QEMU's group there; `ps -o group,supgrp -C qemu-system-x86_64` of a running domain shows it",
        )
        return
    gid, members = entry[2], {m for m in entry[3].split(",") if m}
    members |= {fields[0] for fields in _lines(facts, "/etc/passwd") if fields[3] == gid}
    yield from _qemu_is_in(facts, name, int(gid))
    people = sorted(members - set(QEMU_USERS))
    if people:
        yield Finding(
            WARNING,
            f"{', '.join(people)} {'is a member' if len(people) == 1 else 'are members'} of group {name}, "
            "so they can read and write the region of every domain",
            "; ".join(f"gpasswd -d {person} {name}" for person in people)
            + ", or name a group in shm_group_name that only QEMU has",
        )
    else:
        yield Finding(OK, f"group {name} of the regions has no members but QEMU")


def _qemu_is_in(facts: Facts, name: str, gid: int) -> Iterator[Finding]:
    """By the groups that a running QEMU has; without one by qemu.conf's user."""
    for entry in sorted(facts.machine.path("/proc").glob("[0-9]*/status")):
        text = facts.machine.read(str(entry.relative_to(facts.machine.root))) or ""
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        if not fields.get("Name", "").startswith("qemu-system"):
            continue
        groups = {int(g) for key in ("Gid", "Groups") for g in fields.get(key, "").split()}
        if gid not in groups and "0" not in fields.get("Uid", "").split()[1:2]:
            yield Finding(
                ERROR,
                f"QEMU (pid {entry.parent.name}) is not in group {name}: it cannot open its region",
                f"usermod -aG {name} of QEMU's user and start the domain again, or correct shm_group_name",
            )
        return


def region_files(facts: Facts) -> Iterator[Finding]:
    """Each region is root's and QEMU's group's, 0660, and some domain's."""
    base = facts.settings.shm_path_base.rstrip("/")
    wrong = False
    known = {region["uuid"] for region in facts.known.get("regions", [])}
    groups = [int(fields[2]) for fields in _lines(facts, "/etc/group") if fields[0] == facts.settings.shm_group_name]
    for path in sorted(facts.machine.path(base).glob("orion-*")):
        if not shmem.is_region_name(path.name):
            continue
        name, info = f"{base}/{path.name}", path.lstat()
        for text, fix in _faults(name, info, groups[0] if groups else -1):
            wrong = True
            yield Finding(ERROR, text, fix)
        if facts.known and path.name.removeprefix("orion-") not in known:
            wrong = True
            yield Finding(
                WARNING,
                f"{name} is no region that oriond knows: left over, or of a domain that was started without the hook",
                f"if no QEMU has it open (fuser {name}): rm {name}; else power-cycle the domain",
            )
    if not wrong:
        yield Finding(OK, "region files have the right owner and mode")


def _faults(name: str, info: os.stat_result, gid: int) -> Iterator[tuple[str, str]]:
    if not stat.S_ISREG(info.st_mode):
        yield f"{name} is no file: somebody planted it", f"rm -r {name}"
        return
    if info.st_uid != 0:
        yield (
            f"{name} belongs to uid {info.st_uid}, who can replace it",
            "shut its domain down and start it again, with the hook",
        )
    if gid >= 0 and info.st_gid != gid:
        yield f"{name} is of group {info.st_gid}, QEMU's is {gid}", f"chgrp {gid} {name}"
    if stat.S_IMODE(info.st_mode) != 0o660:
        yield f"{name} has mode {stat.S_IMODE(info.st_mode):04o}", f"chmod 0660 {name}"


def apparmor(facts: Facts) -> Iterator[Finding]:
    """The profile of each domain that has a device allows exactly its region."""
    profiles = facts.machine.read(PROFILES)
    if not profiles:
        return
    for domain in facts.running():
        uuid = domain["uuid"]
        if domain["device"] != "live" or f"libvirt-{uuid} (enforce)" not in profiles:
            continue
        file = f"/etc/apparmor.d/libvirt/libvirt-{uuid}"
        region = f"{facts.settings.shm_path_base.rstrip('/')}/orion-{uuid}"
        rules = (facts.machine.read(f"{file}.files") or "") + (facts.machine.read(file) or "")
        if re.search(rf'^\s*"?{re.escape(region)}"?\s+\w*rw', rules, re.M):
            yield Finding(OK, "its AppArmor profile covers its region", domain=domain["name"])
        else:
            yield Finding(
                ERROR,
                f"its AppArmor profile does not cover {region}: QEMU is refused its memory",
                f"echo '  \"{region}\" rwk,' >> {file}.files && apparmor_parser -r {file}",
                domain["name"],
            )


def selinux(facts: Facts) -> Iterator[Finding]:
    """The region of each domain has a label that its QEMU may use."""
    if (facts.machine.read(SELINUX) or "").strip() != "1":
        return
    for domain in facts.running():
        if domain["device"] != "live":
            continue
        region = f"{facts.settings.shm_path_base.rstrip('/')}/orion-{domain['uuid']}"
        label = facts.machine.label(region)
        if any(kind in label for kind in SELINUX_TYPES):
            yield Finding(OK, f"SELinux label of its region: {label}", domain=domain["name"])
        else:
            yield Finding(
                ERROR,
                f"SELinux label of {region} is {label or 'unknown'}: QEMU is refused its memory",
                f"chcon -t svirt_image_t -l s0 {region}",
                domain["name"],
            )
