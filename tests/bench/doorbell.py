# SPDX-License-Identifier: Apache-2.0
"""What a doorbell saves a guest whose worker sleeps: `python3 tests/bench/doorbell.py [--kvm]`, as root.

One guest, one program, in turn with and without permission to ring: a call each 20 ms, timed in the guest.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from vm.conftest import SETTINGS  # noqa: E402
from vm.harness import Guest, GuestConfig, Oriond, PrivateHost, PrivateLibvirt, Share, guest_cache  # noqa: E402
from vm.stage import eventually  # noqa: E402

from orion_virt import paths  # noqa: E402

RUNS, CALLS, PAUSE_US = 6, 150, 20000
METADATA = "<orion:vgpu xmlns:orion='https://orion-virt/domain/1' region='64' doorbell='yes'/>"
WHERE = "/opt/orion"
PROGRAM = r"""
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e6 + t.tv_nsec / 1e3; }
int main(int argc, char **argv)
{
    void *lib = dlopen("/opt/orion/libcuda.so.1", RTLD_NOW), *context;
    int (*init)(unsigned) = dlsym(lib, "cuInit"), (*retain)(void **, int) = dlsym(lib, "cuDevicePrimaryCtxRetain");
    int (*set)(void *) = dlsym(lib, "cuCtxSetCurrent"), (*info)(size_t *, size_t *) = dlsym(lib, "cuMemGetInfo_v2");
    int calls = atoi(argv[1]), pause = atoi(argv[2]);
    size_t free, total;
    if (argc != 3 || init(0) || retain(&context, 0) || set(context)) return 1;
    for (int i = 0; i < calls; i++) {
        double begin;
        if (pause) usleep(pause);
        begin = now();
        if (info(&free, &total)) return 1;
        printf("us %.1f\n", now() - begin);
    }
    return 0;
}
"""


def prepare(directory: Path) -> None:
    directory.mkdir()
    shutil.copy(paths.lib() / "guest" / "libcuda.so.1", directory)
    (directory / "program.c").write_text(PROGRAM)
    subprocess.run(["cc", "-O2", "-o", directory / "program", directory / "program.c", "-ldl"], check=True)


def times(guest: Guest, rings: bool, pause_us: int) -> list[float]:
    mode = "0660" if rings else "0600"
    assert guest.run(f"chgrp guest /sys/bus/pci/devices/*/resource[02]; chmod 0660 /sys/bus/pci/devices/*/resource2; "
                     f"chmod {mode} /sys/bus/pci/devices/*/resource0", user="root").status == 0
    done = guest.run(f"{WHERE}/program {CALLS} {pause_us}", timeout=120)
    assert done.status == 0, done.output
    found = [float(line.split()[1]) for line in done.output.splitlines() if line.startswith("us ")]
    return found[10:]  # the first ones prove the doorbell and warm everything up


def measure(host: PrivateHost, kvm: bool) -> None:
    libvirt = PrivateLibvirt(host)
    libvirt.start()
    oriond = Oriond(host, SETTINGS)
    oriond.start()
    prepare(host.state / "program")
    guest = Guest(libvirt, GuestConfig("bench", kind="kvm" if kvm else "qemu", root=Path("/"), memory_mib=768, vcpus=1,
                                       shares=(Share(host.state / "program", WHERE),), metadata=METADATA), guest_cache())
    guest.define()
    eventually(lambda: bool(oriond.domain("bench").get("doorbell")), "no doorbell in the definition")
    guest.start()
    eventually(lambda: bool(oriond.domain("bench").get("server_addrs")), "no header")
    for name, pause_us in (("worker asleep", PAUSE_US), ("worker awake", 0)):
        found: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(RUNS):
            for rings in found:
                found[rings] += times(guest, rings, pause_us)
        for rings, values in found.items():
            low, median, high = (statistics.quantiles(values, n=20)[i] for i in (1, 9, 17))
            print(f"{name}, {'doorbell' if rings else 'byte over TCP':13}: median {median:7.0f} us, 10 to 90 % {low:6.0f} to {high:6.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kvm", action="store_true", help="a guest under KVM instead of software emulation")
    kvm = parser.parse_args().kvm
    with PrivateHost(cache=guest_cache(), kvm=kvm) as host:
        measure(host, kvm)


if __name__ == "__main__":
    main()
