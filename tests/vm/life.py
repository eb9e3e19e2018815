# SPDX-License-Identifier: Apache-2.0
"""A guest that carries its own files, so that it can be saved and migrated, and a CUDA program that computes in it."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

from orion_virt import paths
from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig, PrivateLibvirt
from vm.harness.cache import REPO
from vm.stage import Setup, eventually

WHERE = "/opt/orion"
SOURCE = Path(__file__).parent / "programs" / "steady.c"
PTX = REPO / "guest-agent" / "demo" / "kernels.ptx"
LIBRARY = paths.lib() / "guest" / "libcuda.so.1"
# What the udev rule of the installer does; there is no udevd in this guest.
PERMIT = """
for d in /sys/bus/pci/devices/*; do
    [ "$(cat $d/vendor)$(cat $d/device)" = 0x1af40x1110 ] || continue
    chgrp guest $d/resource2* && chmod 0660 $d/resource2*
done
"""


def files(directory: Path) -> tuple[tuple[str, Path], ...]:
    """The program, our library and what both need of libc, by their paths in the guest."""
    program = directory / "steady"
    if not program.exists():
        subprocess.run(["cc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-o", program, SOURCE, "-ldl", "-lm"], check=True)
    needed = subprocess.run(["ldd", program, LIBRARY], capture_output=True, text=True, check=True).stdout
    libraries = {path: Path(path).resolve() for path in re.findall(r"(/lib\S+) \(0x", needed)}
    ours = {f"{WHERE}/steady": program, f"{WHERE}/libcuda.so.1": LIBRARY, f"{WHERE}/kernels.ptx": PTX}
    return tuple({**libraries, **ours}.items())


def carried(libvirt: PrivateLibvirt, directory: Path, name: str, **config: object) -> Guest:
    """Such a guest, not yet defined."""
    made = {"memory_mib": 192, "files": files(directory), **config}
    return Guest(libvirt, GuestConfig(name, **made), CACHE)  # type: ignore[arg-type]


def qcow2(libvirt: PrivateLibvirt, name: str, mib: int = 16) -> Path:
    """A new, empty image that QEMU may use."""
    cluster = 1 << 16
    image = bytearray(4 * cluster)  # header, refcount table, refcounts, L1 table
    struct.pack_into(">4sIQIIQIIQQIIQ", image, 0, b"QFI\xfb", 2, 0, 0, 16, mib << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0)
    struct.pack_into(">Q", image, cluster, 2 * cluster)
    struct.pack_into(">4H", image, 2 * cluster, 1, 1, 1, 1)
    path = libvirt.open_directory("vm") / name
    path.write_bytes(image)
    shutil.chown(path, libvirt.user, libvirt.group)
    return path


def disk(libvirt: PrivateLibvirt, name: str) -> str:
    """The element of a disk of the one format in which libvirt keeps snapshots with memory."""
    return ("<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
            f"<source file='{qcow2(libvirt, name)}'/><target dev='vda' bus='virtio'/></disk>")


def device(setup: Setup, guest: Guest) -> str:
    return str(setup.oriond.domain(guest.config.name).get("device"))


def up(setup: Setup, guest: Guest) -> Guest:
    """Defines and starts it, and waits for its region."""
    guest.define()
    eventually(lambda: device(setup, guest) == "defined", "no device in the definition")
    guest.start()
    ready(setup, guest)
    return guest


def ready(setup: Setup, guest: Guest) -> None:
    """Waits until programs of its user can shake hands."""
    eventually(lambda: bool(setup.oriond.domain(guest.config.name).get("server_addrs")), "no header")
    permitted = guest.run(PERMIT, user="root")
    assert permitted.status == 0, permitted.output


def compute(guest: Guest, rounds: int = 3, user: str = "guest") -> str:
    """A new program that computes `rounds` right results; what it printed."""
    done = guest.run(f"{steady('once')} {rounds}", user=user)
    assert done.status == 0, f"{done.output}{said(guest, 'once')}"
    assert said(guest, "once") == f"round {rounds}"
    return done.output


def steady(status: str) -> str:
    return f"{WHERE}/steady {WHERE}/libcuda.so.1 {WHERE}/kernels.ptx /tmp/{status}"


def said(guest: Guest, status: str = "status") -> str:
    return guest.run(f"cat /tmp/{status}").output.strip()


def begin(guest: Guest, status: str = "status") -> None:
    """Starts a program that computes until something ends it, and waits for its first results."""
    guest.run(f"rm -f /tmp/{status}; {steady(status)} >/tmp/{status}.out 2>&1 &")
    eventually(lambda: rounds(guest, status) > 1, "the program does not come up", 120)


def rounds(guest: Guest, status: str = "status") -> int:
    found = re.fullmatch(r"round (\d+)", said(guest, status))
    return int(found[1]) if found else 0


def goes_on(guest: Guest, status: str = "status") -> None:
    """The program computes right results still."""
    before = rounds(guest, status)
    assert before, f"it has ended: {said(guest, status)}"
    eventually(lambda: rounds(guest, status) > before + 2, f"it does not go on: {said(guest, status)}", 120)


def ends(guest: Guest, code: int = 46, status: str = "status") -> None:
    """The program gets this CUresult, soon and once."""
    try:
        eventually(lambda: said(guest, status).startswith(f"error {code} "), f"it got no error {code}", 120)
    except AssertionError as error:
        raise AssertionError(f"{error}: {said(guest, status)}; console: {guest.console_tail()}") from None
