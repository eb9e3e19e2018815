# SPDX-License-Identifier: Apache-2.0
"""Whether KVM of this machine boots a stock kernel: found out by booting one, remembered until the host reboots."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from .initramfs import build
from .kernel import Kernel

KVM_PROBE_SECONDS = 10
REACHED = "orion-guest:"  # what the guest's init writes
KVM = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TOO_SLOW = f"under KVM a stock kernel did not reach user space in {KVM_PROBE_SECONDS} s"


def kvm_boots(kernel: Kernel, cache: Path) -> tuple[bool, str]:
    """Whether to use KVM, and why (not)."""
    if not KVM.is_char_device() or not os.access(KVM, os.R_OK | os.W_OK):
        return False, f"there is no {KVM} to use"
    initrd = build(kernel, cache)
    key = hashlib.sha256(f"{initrd} {BOOT_ID.read_text()}".encode()).hexdigest()[:16]
    verdict = cache / f"kvm-{key}"
    if not verdict.exists():
        for old in cache.glob("kvm-*"):
            old.unlink(missing_ok=True)
        verdict.write_text("yes" if _reaches_user_space(kernel.image, initrd) else "no")
    return (True, "a stock kernel boots under KVM") if verdict.read_text() == "yes" else (False, TOO_SLOW)


def _reaches_user_space(image: Path, initrd: Path) -> bool:
    """One boot with neither disk nor network; the guest powers off as soon as its init has run."""
    argv = ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-machine", "pc,accel=kvm", "-cpu", "host", "-m", "256",
            "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(image), "-initrd", str(initrd),
            "-append", "console=ttyS0 quiet panic=-1"]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=KVM_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return REACHED.encode() in done.stdout
