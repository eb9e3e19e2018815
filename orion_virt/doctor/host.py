# SPDX-License-Identifier: Apache-2.0
"""Checks of the host: oriond, its controller, the hook, libvirt, memory."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from orion_virt.doctor.facts import ERROR, INFO, OK, WARNING, Facts, Finding
from orion_virt.errors import OrionError
from orion_virt.hook import owner
from orion_virt.server import identity
from orion_virt.units import MIB

HOOK = "/etc/libvirt/hooks/qemu.d/50-orion-virt"
HOOK_ENV = "/etc/libvirt/hooks/orion-virt.env"
THP = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
LOW_BYTES = 64 * MIB


def configuration(facts: Facts) -> Iterator[Finding]:
    """server.conf is read without error."""
    if isinstance(facts.config, OrionError):
        yield Finding(ERROR, facts.config.message, facts.config.hint)
        return
    for warning in facts.config.warnings:
        yield Finding(WARNING, warning, "correct or remove the line")
    yield Finding(OK, f"{facts.config.file or 'server.conf (none: defaults)'} is in order")


def daemon(facts: Facts) -> Iterator[Finding]:
    """oriond answers, and is the version that is installed."""
    if isinstance(facts.status, OrionError):
        yield Finding(ERROR, facts.status.message, facts.status.hint)
        return
    running = str(facts.status.get("build", ""))
    if facts.build and running != facts.build:
        yield Finding(
            WARNING,
            f"oriond runs build {running or 'unknown'}, {facts.build} is installed",
            "systemctl restart oriond (CUDA programs that run go on)",
        )
    yield Finding(
        OK,
        f"oriond runs (pid {facts.status['pid']}), {len(facts.status['gpus'])} "
        f"{'simulated ' if facts.status['simulated'] else ''}GPU",
    )


def controller(facts: Facts) -> Iterator[Finding]:
    """oriond is registered with its controller: else nobody gets a vGPU."""
    if not facts.known:
        return
    addr = facts.known["controller_addr"]
    if facts.known["registered"]:
        yield Finding(OK, f"registered with the controller at {addr}")
    else:
        yield Finding(
            ERROR,
            f"oriond is not registered with a controller at {addr}: no program gets a vGPU",
            "start orion-controller there, or oriond --with-controller, or correct [controller] controller_addr",
        )


def memory(facts: Facts) -> Iterator[Finding]:
    """Whether the driver says what workers have of a card: else what it takes for itself is estimated."""
    told = {channel.get("driver_memory") for channel in facts.known.get("channels", [])}
    if "estimated" in told and not facts.known.get("simulated"):
        yield Finding(
            WARNING,
            "NVML does not list the workers, so what the driver takes for itself is estimated, and a process may have more of a "
            "card than ORION_GMEM",
            "run oriond where `nvidia-smi` lists its workers by their own pids: in a container with the host's pids, or outside one",
        )
    elif "measured" in told:
        yield Finding(OK, "ORION_GMEM counts what the driver takes for itself, as NVML reports it of each worker")


def monitoring(facts: Facts) -> Iterator[Finding]:
    """Where metrics are wanted, Prometheus gets them."""
    found = facts.known.get("metrics", {})
    if found.get("problem"):
        yield Finding(WARNING, f"metrics are not served: {found['problem']}", "correct [server] metrics in server.conf, then "
                      "systemctl reload oriond")
    elif found.get("addr"):
        yield Finding(OK, f"metrics are served at {found['addr']}")


def hook(facts: Facts) -> Iterator[Finding]:
    """libvirt's hook is installed, of this version, and finds its package."""
    text = facts.machine.read(HOOK)
    install = "orion-virt hook install"
    if text is None:
        yield Finding(
            WARNING,
            f"{HOOK} is not installed: oriond makes regions ahead for domains that it has seen; for others QEMU makes "
            "the files itself, with everybody's read access, and oriond does not use them",
            install,
        )
        return
    path = facts.machine.path(HOOK)
    if not path.stat().st_mode & 0o100:
        yield Finding(ERROR, f"{HOOK} is not executable, so libvirt passes it over", f"chmod 755 {HOOK}")
    elif facts.hook_source is not None and text != facts.hook_source.read_text():
        yield Finding(WARNING, f"{HOOK} is of another version", install)
    else:
        yield from _hook_finds_package(facts, install)


def _hook_finds_package(facts: Facts, install: str) -> Iterator[Finding]:
    lines = (facts.machine.read(HOOK_ENV) or "").splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    package = found.get("ORION_PYTHONPATH", "")
    group = found.get("ORION_QEMU_GROUP", owner.AUTO)
    if not package or not (facts.machine.path(package) / "orion_virt" / "hook" / "qemu.py").exists():
        yield Finding(
            ERROR, f"{HOOK_ENV} names no directory with our package (ORION_PYTHONPATH={package or 'missing'})", install
        )
    elif group != facts.settings.shm_group_name:
        yield Finding(
            ERROR,
            f"the hook gives regions to group {group}, server.conf to {facts.settings.shm_group_name}",
            install,
        )
    else:
        yield Finding(OK, "the hook is installed and of this version")


def libvirt(facts: Facts) -> Iterator[Finding]:
    """oriond reaches libvirt."""
    if isinstance(facts.domains, OrionError):
        if facts.known:
            yield Finding(ERROR, facts.domains.message, facts.domains.hint)
        return
    yield Finding(OK, f"libvirt answers, {len(facts.domains)} domains")


def shared_memory(facts: Facts) -> Iterator[Finding]:
    """The tmpfs of regions is one, holds them, and has room."""
    base = facts.settings.shm_path_base.rstrip("/") or "/"
    mounts = [line.split() for line in (facts.machine.read("/proc/mounts") or "").splitlines()]
    kinds = [fields[2] for fields in mounts if len(fields) > 2 and fields[1] == base]
    if not kinds or kinds[-1] not in ("tmpfs", "ramfs"):
        what = f"a {kinds[-1]}" if kinds else "no mount of its own"
        yield Finding(ERROR, f"{base} is {what}, regions need a tmpfs", f"mount -t tmpfs -o mode=1777 tmpfs {base}")
        return
    if base != "/dev/shm" and facts.settings.libvirt_attach != "off":
        yield Finding(
            ERROR,
            f"[server-shm] shm_path_base is {base}: libvirt's <shmem> knows /dev/shm only",
            "remove shm_path_base from server.conf",
        )
    room = _statvfs(facts, base)
    if room is None:
        return
    total, free = room
    used, budget = facts.known.get("shm_used_mib", 0) * MIB, facts.known.get("shm_budget_mib", 0) * MIB
    bigger = f"mount -o remount,size={2 * max(total, used) // MIB}m {base} (and the same in /etc/fstab)"
    if budget > total:
        yield Finding(
            ERROR, f"[server-shm] shm_budget is {budget // MIB} MiB, {base} has {total // MIB}: VMs may crash", bigger
        )
    elif free < LOW_BYTES:
        yield Finding(
            ERROR, f"{base} has {free // MIB} MiB left of {total // MIB}: programs get no shared memory", bigger
        )
    elif budget and used + 128 * MIB > budget:
        yield Finding(
            WARNING,
            f"regions use {used // MIB} of {budget // MIB} MiB: the next domain gets a small one or none",
            f"raise [server-shm] shm_budget, or {bigger}",
        )
    else:
        regions = f"regions use {used // MIB} of {budget // MIB} MiB, " if budget else ""
        yield Finding(OK, f"{base}: {regions}{free // MIB} of {total // MIB} MiB are free")


def _statvfs(facts: Facts, base: str) -> tuple[int, int] | None:
    try:
        found = os.statvfs(facts.machine.path(base))
    except OSError:
        return None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def huge_pages(facts: Facts) -> Iterator[Finding]:
    """Whether the tmpfs has huge pages; only a matter of speed."""
    text = facts.machine.read(THP) or ""
    chosen = text.partition("[")[2].partition("]")[0]
    if chosen in ("never", "deny"):
        yield Finding(
            INFO,
            "regions have pages of 4 KiB (transparent huge pages of shared memory are off)",
            f"echo within_size > {shlex.quote(THP)}",
        )
    elif chosen:
        yield Finding(OK, f"transparent huge pages of shared memory: {chosen}")


def confinement(facts: Facts) -> Iterator[Finding]:
    """Workers have nothing of the host but their cards."""
    if facts.known.get("simulated") and not facts.settings.confine:
        return
    if facts.settings.confine is False:
        yield Finding(
            INFO,
            "workers are not confined: a guest that takes one over has the network and the files of worker_user",
            "confine = auto, which is the default, in [server] of server.conf",
        )
    elif not facts.machine.landlock():
        yield Finding(
            WARNING,
            "this kernel has no Landlock (Linux 5.13, and `landlock` in the kernel's lsm=): workers can read the files that "
            "everybody can read",
            "a newer kernel, or add landlock to lsm= on the kernel's command line",
        )
    else:
        yield Finding(OK, f"workers are confined (Landlock {facts.machine.landlock()}, seccomp)")
    yield from _closed_nodes(facts)


def _closed_nodes(facts: Facts) -> Iterator[Finding]:
    user = identity.STARTING
    closed = identity.closed_nodes(user, identity.group_for(user, user, facts.machine.path("/dev")), facts.machine.path("/dev"))
    if closed and facts.settings.confine is not False and facts.settings.worker_user in ("", identity.AUTO):
        yield Finding(
            WARNING,
            f"workers keep root: {', '.join(closed)} may be opened by some users only",
            "options nvidia NVreg_DeviceFileMode=0666 in /etc/modprobe.d, or [server] worker_user = a user of the nodes' group",
        )
