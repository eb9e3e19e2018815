# SPDX-License-Identifier: Apache-2.0
"""Runs commands in a real VM on a host where no package can be installed, such as a lent GPU machine.

python3 tests/vm/gpu_vm.py make BUNDLE              on a machine with QEMU: collects QEMU, kernel, initramfs in BUNDLE.tar.xz
python3 tests/vm/gpu_vm.py run BUNDLE [--driver D] [--memory MIB] [--timeout S] COMMAND...
                                                     unpacks it, starts oriond and a guest whose root is this machine's own
                                                     file system, and runs each COMMAND in it as the user `guest`

No libvirt takes part: QEMU (software emulation) is started directly with the region behind its ivshmem device.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

import host as hosts  # noqa: E402
from vm.harness.guest import Guest, GuestConfig  # noqa: E402

LIBRARIES = "/usr/lib/x86_64-linux-gnu"
ROMS = ("/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/linuxboot_dma.bin", "/usr/share/qemu/kvmvapic.bin")
# What the installer's udev rule does; there is no udevd in this guest. The client's user is `guest`.
PERMIT = """for d in /sys/bus/pci/devices/*; do
[ "$(cat $d/vendor)$(cat $d/device)" = 0x1af40x1110 ] || continue
chgrp guest $d/resource2* && chmod 0660 $d/resource2*; done"""


def make(bundle: Path) -> None:
    """Collects what `run` needs into BUNDLE.tar.xz (some 25 MB)."""
    from vm.harness.cache import guest_cache
    from vm.harness.initramfs import build
    from vm.harness.kernel import fetch

    cache = guest_cache()
    kernel = fetch(cache)
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        raise SystemExit("gpu_vm: qemu-system-x86_64 is missing: apt-get install qemu-system-x86")
    tcg = f"{LIBRARIES}/qemu/accel-tcg-x86_64.so"
    listed = subprocess.run(["ldd", qemu, tcg], capture_output=True, text=True, check=True).stdout
    libraries = {word for line in listed.splitlines() for word in line.split() if word.startswith("/")} - {f"{qemu}:", f"{tcg}:"}
    with tarfile.open(bundle.with_suffix(".tar.xz"), "w:xz") as tar:
        for name, source in {"qemu": qemu, "modules/accel-tcg-x86_64.so": tcg, "vmlinuz": kernel.image,
                             "initrd": build(kernel, cache), **{f"rom/{Path(r).name}": r for r in ROMS},
                             **{f"lib/{Path(p).name}": p for p in libraries if not p.endswith(":")}}.items():
            tar.add(Path(source).resolve(), name)


class BareGuest(Guest):
    """A guest without libvirt; `run` is the harness's own."""

    def __init__(self, bundle: Path, region: Path, memory_mib: int, state: Path) -> None:
        self.config = GuestConfig("gpu-vm", memory_mib=memory_mib)
        self._directory, self._socket, self._buffer = state, None, b""
        lib = bundle / "lib"
        size = region.stat().st_size
        argv = [str(lib / "ld-linux-x86-64.so.2"), "--library-path", str(lib), str(bundle / "qemu"), "-L", str(bundle / "rom"),
                "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "4", "-m", str(memory_mib), "-display", "none",
                "-nodefaults", "-no-reboot", "-serial", f"file:{self.console}", "-kernel", str(bundle / "vmlinuz"),
                "-initrd", str(bundle / "initrd"), "-append", "console=ttyS0 quiet panic=-1 orion.name=gpu-vm orion.root=9p",
                "-object", f"memory-backend-file,id=region,mem-path={region},size={size},share=on",
                "-device", "ivshmem-plain,memdev=region,master=on",
                "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
                "-device", "virtio-9p-pci,fsdev=root,mount_tag=root", "-device", "virtio-rng-pci",
                "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
                "-chardev", f"socket,id=run,path={self._port},server=on,wait=off", "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=run,name=org.orion.run.0"]
        self.process = subprocess.Popen(argv, env={**os.environ, "QEMU_MODULE_DIR": str(bundle / "modules")},
                                        stdin=subprocess.DEVNULL)

    def destroy(self, undefine: bool = True) -> None:
        """Ends QEMU."""
        self.close()
        self.process.kill()
        self.process.wait()


def client_words(host: hosts.Host) -> str:
    """Shell assignments for a client in the guest; slirp's 10.0.2.2 is this host's loopback."""
    return (f"export HOME=/tmp PATH={Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin "
            f"LD_LIBRARY_PATH={REPO}/orion_virt/_lib/guest ORION_SERVER=10.0.2.2:{host.port} "
            f"ORION_CONTROLLER=10.0.2.2:{host.controller_port} ")


@contextlib.contextmanager
def booted(archive: Path, driver: str, memory_mib: int, region_mib: int) -> Iterator[tuple[hosts.Host, BareGuest]]:
    """oriond with its region and a guest that is up and may open its BAR 2."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        with tarfile.open(archive.with_suffix(".tar.xz")) as tar:
            tar.extractall(bundle)
        with hosts.running(Path(folder) / "host", region_mib=region_mib, simulated=driver == "simulated") as host:
            begin = time.monotonic()
            guest = BareGuest(bundle, host.region, memory_mib, Path(folder))
            try:
                guest.wait_ready(120)
                print(f"guest: up after {time.monotonic() - begin:.1f} s", flush=True)
                guest.run(PERMIT, user="root")
                yield host, guest
            finally:
                guest.destroy()


def run(args: argparse.Namespace) -> int:
    """Boots and runs the commands; prints their output and times; 1 if one failed."""
    failed = 0
    with booted(args.bundle, args.driver, args.memory, args.region_mib) as (host, guest):
        for command in args.command:
            begin = time.monotonic()
            done = guest.run(f"{client_words(host)}; cd {REPO}; {command}", timeout=args.timeout)
            print(f"$ {command}\n{done.output}\n(exit {done.status}, {time.monotonic() - begin:.1f} s)", flush=True)
            failed |= done.status != 0
        print(host.output()[-1500:])
    return failed


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "run"])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--driver", choices=["nvidia", "simulated"], default="nvidia")
    parser.add_argument("--memory", type=int, default=4096)
    parser.add_argument("--region-mib", type=int, default=1024)
    parser.add_argument("--timeout", type=int, default=300)
    parser.add_argument("command", nargs="*")
    args = parser.parse_intermixed_args()
    if args.action == "make":
        make(args.bundle)
    else:
        raise SystemExit(run(args))


if __name__ == "__main__":
    main()
