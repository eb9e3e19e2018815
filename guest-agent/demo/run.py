# SPDX-License-Identifier: Apache-2.0
"""`make demo`: a real VM with a stock kernel runs a CUDA program on its host, and cleans up after itself.

Everything lives in namespaces and a temporary directory of its own; kernel and guest root are cached (ORION_CACHE).
"""

from __future__ import annotations

import contextlib
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

from orion_virt.errors import OrionError, Unavailable  # noqa: E402
from vm.harness import Guest, GuestConfig, Oriond, PrivateHost, PrivateLibvirt, Share, guest_cache  # noqa: E402
from vm.harness.root import guest_root  # noqa: E402

KVM_PROBE_SECONDS = 12
STEPS = 7
LIB = REPO / "orion_virt" / "_lib"


class Steps:
    """Numbered progress lines with the time that each step took."""

    def __init__(self) -> None:
        self._number, self._begin = 0, time.monotonic()

    def __call__(self, text: str) -> None:
        self._number += 1
        print(f"[{self._number}/{STEPS}] {time.monotonic() - self._begin:5.1f} s  {text}", flush=True)

    def note(self, text: str) -> None:
        print(f"                {text}", flush=True)


def choose_driver() -> tuple[str, str]:
    """(driver of server.conf, why)."""
    if not Path("/dev/nvidia0").exists():
        return "simulated", "simulated GPU: this host has no NVIDIA GPU (/dev/nvidia0)"
    found = subprocess.run([sys.executable, "-m", "orion_virt.gpu.probe"], cwd=REPO, capture_output=True, text=True,
                           timeout=60, check=False)
    if found.returncode:
        return "simulated", "simulated GPU: the NVIDIA driver does not start"
    return "nvidia", "NVIDIA GPU of this host"


def kvm_boots(cache: Path) -> tuple[bool, str]:
    """Whether a stock kernel reaches user space under KVM within seconds, and what was seen."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False, "software emulation: no /dev/kvm"
    with PrivateHost(shm_mib=64, cache=cache, kvm=True) as host:
        libvirt = PrivateLibvirt(host)
        libvirt.start(network=False)
        guest = Guest(libvirt, GuestConfig("kvm-probe", kind="kvm", network=False), cache)
        try:
            guest.define()
            guest.start(timeout=KVM_PROBE_SECONDS)
        except OrionError:
            return False, f"software emulation: under KVM a stock kernel did not reach user space in {KVM_PROBE_SECONDS} s"
        finally:
            guest.destroy()
    return True, "KVM"


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
    logs = oriond.output() + "".join(p.read_text(errors="replace") for p in (oriond.host.state / "orion" / "log").rglob("*")
                                     if p.is_file())
    if said[1] not in logs:
        raise Unavailable(f"the controller's log does not know allocation {said[1]}")
    return said[1]


def demo(step: Steps) -> None:
    """The whole run; OrionError says what went wrong and what to do."""
    cache = guest_cache()
    driver, why = choose_driver()
    step("Kernel and guest root of the distribution (downloaded once)")
    root = guest_root(cache)
    step("Can this machine's KVM boot a stock kernel?")
    kvm, how = kvm_boots(cache)
    step.note(f"using {how}")
    step.note(f"using the {why}")
    step("Private libvirtd, controller and oriond")
    with PrivateHost(shm_mib=1024, cache=cache, kvm=kvm) as host:
        libvirt = PrivateLibvirt(host)
        libvirt.start()
        oriond = Oriond(host, f"[server]\ndriver = {driver}\n")
        oriond.start()
        client = libvirt.open_directory("client")
        shutil.copy(LIB / "install-client", client / "install-client")
        guest = Guest(libvirt, GuestConfig("orion-demo", kind="kvm" if kvm else "qemu", root=root,
                                           shares=(Share(client, "/client"),)), cache)
        step("virsh define, virsh start: the daemon adds the device, the hook makes its memory")
        guest.define()
        wait_for_device(oriond, guest)
        guest.start()
        row = guest.libvirt.virsh("domifaddr", "orion-demo").stdout.strip()
        step.note(f"virsh domifaddr: {' '.join(row.split())}; gateway {libvirt.gateway}")
        step("install-client in the guest")
        install(guest)
        step("A CUDA program as an ordinary user of the guest, without a driver")
        output = compute(guest, oriond)
        print("".join(f"    {line}\n" for line in output.splitlines()), end="")
        allocation = allocation_agrees(output, oriond)
        step.note(f"the controller's log has the same allocation {allocation}")
        guest.destroy()
        oriond.stop()
    step("Done, everything is removed")


def main() -> None:
    """Entry point; one clear error on stderr, exit 1, when something is missing."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    if not (LIB / "install-client").exists():
        raise SystemExit("demo: nothing is built; run `make demo`, which builds first")
    try:
        demo(Steps())
    except OrionError as error:
        hint = f"\nWhat to do: {error.hint}" if error.hint else ""
        raise SystemExit(f"demo: {error}{hint}") from None
    except KeyboardInterrupt:
        with contextlib.suppress(BrokenPipeError):
            print("demo: interrupted, everything is removed", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
