# SPDX-License-Identifier: Apache-2.0
"""`make demo`: a real VM with a stock kernel runs a CUDA program on its host, and cleans up after itself.

Everything lives in namespaces and a temporary directory of its own; kernel and guest root are cached (ORION_CACHE).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from orion_virt.errors import Forbidden, NotFound, OrionError, Unavailable  # noqa: E402
from vm.harness import Guest, GuestConfig, Oriond, PrivateHost, PrivateLibvirt, Share, guest_cache  # noqa: E402
from vm.harness.kernel import fetch  # noqa: E402
from vm.harness.probe import kvm_boots  # noqa: E402
from vm.harness.root import guest_root  # noqa: E402

STEPS = 7
NEEDED_MEMORY_MIB = 1200  # guest, its region, QEMU, libvirtd, oriond and a worker
NEEDED_DISK_MIB = 1300  # kernel and guest root
LIB = REPO / "orion_virt" / "_lib"
DOMAIN = "orion-demo"
TOOLS = ("qemu-system-x86_64", "libvirtd", "virsh", "dnsmasq", "debootstrap", "unshare", "setpriv")
SAY_EVERY_SECONDS = 5
PR_SET_PDEATHSIG = 1


class Steps:
    """Numbered progress lines with the time since the start."""

    def __init__(self) -> None:
        self._number, self._begin, self._said = 0, time.monotonic(), 0.0

    def __call__(self, text: str) -> None:
        self._number += 1
        self._said = time.monotonic()
        print(f"[{self._number}/{STEPS}] {self._said - self._begin:5.1f} s  {text}", flush=True)

    def note(self, text: str) -> None:
        print(f"                {text}", flush=True)

    def progress(self, text: str) -> None:
        """One of many lines: shown every few seconds."""
        if time.monotonic() - self._said >= SAY_EVERY_SECONDS:
            self._said = time.monotonic()
            self.note(f"... {text}")


def check_machine(cache: Path, memory_mib: int, disk_mib: int) -> None:
    """What would fail later and less clearly. Raises OrionError."""
    if os.geteuid() != 0:
        raise Forbidden("root is needed for a private libvirt and namespaces", hint="Run `make demo`, which uses sudo")
    if not (LIB / "install-client").exists():
        raise Unavailable("nothing is built", hint="Run `make demo`, which builds first")
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise NotFound(f"not installed: {', '.join(missing)}", hint="Run `make demo`, which installs what is missing")
    if memory_mib < NEEDED_MEMORY_MIB:
        raise Unavailable(f"{NEEDED_MEMORY_MIB} MiB of memory are needed, {memory_mib} are available", hint="End something else")
    if disk_mib < NEEDED_DISK_MIB and not (cache / "root" / "done").exists():
        raise Unavailable(f"{NEEDED_DISK_MIB} MiB of disk are needed in {cache}, {disk_mib} are free",
                          hint="Free some, or set ORION_CACHE to a directory elsewhere")
    with PrivateHost(shm_mib=16):  # says what is missing: tools, libvirt's directories, the right to make namespaces
        pass


def available_memory_mib() -> int:
    found = re.search(r"MemAvailable:\s+(\d+)", Path("/proc/meminfo").read_text())
    return int(found[1]) >> 10 if found else 0


def available_disk_mib(cache: Path) -> int:
    there = next(p for p in (cache, *cache.parents) if p.exists())
    return shutil.disk_usage(there).free >> 20


def choose_driver() -> tuple[str, str]:
    """(driver of server.conf, why)."""
    if not Path("/dev/nvidia0").exists():
        return "simulated", "simulated GPU: this host has no NVIDIA GPU (/dev/nvidia0)"
    argv = ["timeout", "60", sys.executable, "-m", "orion_virt.gpu.probe"]
    found = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, check=False)
    if found.returncode:
        said = re.search(r'"error": "(.+?)"', found.stdout)
        return "simulated", f"simulated GPU: the NVIDIA driver does not start ({said[1] if said else 'no answer'})"
    return "nvidia", "NVIDIA GPU of this host"


def wait_for_device(oriond: Oriond, guest: Guest) -> None:
    """The daemon adds the device by itself; Unavailable with its log when it does not."""
    end = time.monotonic() + 20
    while "ivshmem" not in guest.libvirt.virsh("dumpxml", "--inactive", guest.config.name).stdout:
        if time.monotonic() > end:
            raise Unavailable(f"oriond did not add the device: {oriond.output()[-1000:]}")
        time.sleep(0.1)


def install(guest: Guest) -> None:
    """install-client in the guest, for the ordinary user `guest`."""
    done = guest.run("sh /client/install-client -q --user guest", user="root")
    if done.status:
        raise Unavailable(f"install-client failed in the guest: {done.output}")


def compute(guest: Guest, oriond: Oriond) -> str:
    """Runs the program; its output. Unavailable with both sides' words when it is wrong."""
    done = guest.run("id; /usr/lib/orion/demo/orion-demo", timeout=150)
    if done.status or "PASSED" not in done.output:
        raise Unavailable(f"the program failed in the guest (exit {done.status}):\n{done.output}\n{oriond.output()[-2000:]}")
    return done.output


def allocation_agrees(output: str, oriond: Oriond) -> str:
    """The allocation id that the guest printed, found in the controller's log as well."""
    said = re.search(r"Client exits with allocation ID ([0-9a-f-]{36})", output)
    if not said:
        raise Unavailable(f"the guest printed no allocation ID:\n{output}")
    end = time.monotonic() + 5
    while not re.search(rf"released.*{said[1]}|{said[1]}.*released", oriond.output()):
        if time.monotonic() > end:
            raise Unavailable(f"the controller's log does not know allocation {said[1]}:\n{oriond.output()[-2000:]}")
        time.sleep(0.1)
    return said[1]


def demo(step: Steps) -> None:
    """The whole run; OrionError says what went wrong and what to do."""
    cache = guest_cache()
    check_machine(cache, available_memory_mib(), available_disk_mib(cache))
    step(f"Kernel and guest root of the distribution, kept in {cache}")
    kernel = fetch(cache)
    root = guest_root(cache, step.progress)
    step("Can this machine's KVM boot a stock kernel? (one trial, at most 10 s)")
    kvm, why = kvm_boots(kernel, cache)
    step.note(f"using {'KVM' if kvm else 'software emulation'}: {why}")
    driver, how = choose_driver()
    step.note(f"using the {how}")
    step("Private libvirtd, controller and oriond")
    with PrivateHost(shm_mib=1024, cache=cache, kvm=kvm) as host:
        libvirt = PrivateLibvirt(host)
        libvirt.start()
        oriond = Oriond(host, f"[server]\ndriver = {driver}\n")
        oriond.start()
        client = libvirt.open_directory("client")
        shutil.copy(LIB / "install-client", client / "install-client")
        guest = Guest(libvirt, GuestConfig(DOMAIN, kind="kvm" if kvm else "qemu", root=root,
                                           shares=(Share(client, "/client"),)), cache)
        run(step, guest, oriond)
        guest.destroy()
        oriond.stop()
    step("Done, everything is removed")


def run(step: Steps, guest: Guest, oriond: Oriond) -> None:
    """From the definition of the domain to the program's result."""
    step("virsh define, virsh start: the daemon adds the device, the hook makes its memory")
    guest.define()
    wait_for_device(oriond, guest)
    guest.start()
    row = guest.libvirt.virsh("domifaddr", DOMAIN).stdout.split()
    step.note(f"the guest is up at {row[-1] if row else '?'}, its gateway is {guest.libvirt.gateway}")
    step("install-client in the guest")
    install(guest)
    step("A CUDA program as an ordinary user of the guest, without a driver")
    output = compute(guest, oriond)
    print("".join(f"    {line}\n" for line in output.splitlines()), end="")
    step.note(f"the controller's log has the same allocation {allocation_agrees(output, oriond)}")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point; one clear error on stderr, exit 1, when something is missing."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # make or sudo was killed
    try:
        demo(Steps())
    except (KeyboardInterrupt, BrokenPipeError):
        with contextlib.suppress(BrokenPipeError):
            print("demo: interrupted, everything is removed", file=sys.stderr, flush=True)
        os._exit(130)  # no further write to a terminal that may be gone
    except (OrionError, OSError, subprocess.SubprocessError) as error:
        raise SystemExit(f"demo: {error}") from None


if __name__ == "__main__":
    main()
