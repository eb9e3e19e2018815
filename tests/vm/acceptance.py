# SPDX-License-Identifier: Apache-2.0
"""The acceptance on a GPU host: an ordinary user in a VM trains on two vGPUs of 12000 MiB of one card.

python3 tests/vm/acceptance.py BUNDLE      (BUNDLE.tar.xz from `tests/vm/gpu_vm.py make BUNDLE`; PyTorch on this host)

Trains the same network natively with both replicas on one device, then in the VM with ORION_VGPU=2 ORION_GMEM=12000, and
watches `nvidia-smi` on the host meanwhile. It passes when the guest saw two devices of that size, printed the
same losses as the native run, and the host's `nvidia-smi` listed processes of oriond's session and no others.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from pathlib import Path

import gpu_vm
import host as hosts

MIB = 12000
PROGRAM = gpu_vm.REPO / "tests" / "gpu" / "programs" / "cifar.py"


class Watch(threading.Thread):
    """Collects until stopped what the host's nvidia-smi lists, {pid: (name, most MiB seen)}, and oriond's processes."""

    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.seen: dict[int, tuple[str, int]] = {}
        self.ours: set[int] = set()
        self._session, self._done = session, threading.Event()

    def run(self) -> None:
        ask = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"]
        while not self._done.wait(1):
            self.ours.update(hosts.processes_of_session(self._session))
            for line in subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines():
                pid, name, mib = (word.strip() for word in line.split(","))
                used = int(mib) if mib.isdigit() else 0
                self.seen[int(pid)] = (name, max(used, self.seen.get(int(pid), ("", 0))[1]))

    def stop(self) -> None:
        """Ends the thread."""
        self._done.set()
        self.join()


def losses(output: str) -> list[str]:
    """The lines that must not depend on where the replicas lie."""
    return [line for line in output.splitlines() if line.startswith(("step ", "replicas", "accuracy"))]


def judge(native: str, guest: str, watch: Watch) -> list[str]:
    """What is wrong; empty when the acceptance passed."""
    wrong = []
    for index in range(2):
        if f"device {index}: " not in guest or f"{MIB} MiB" not in guest:
            wrong.append(f"the guest did not see device {index} of {MIB} MiB")
    if "device 2: " in guest:
        wrong.append("the guest saw more than two devices")
    if not losses(native) or losses(guest) != losses(native):
        wrong.append("the guest's losses are not the native ones")
    if "replicas equal: True" not in guest:
        wrong.append("the replicas differ")
    if not watch.seen:
        wrong.append("nvidia-smi on the host listed no process while the guest trained")
    wrong += [f"nvidia-smi on the host listed {name} (pid {pid}), which is not ours"
              for pid, (name, _) in watch.seen.items() if pid not in watch.ours]
    return wrong


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--timeout", type=int, default=420)
    args = parser.parse_args()
    steps = f"--steps {args.steps}"
    native = subprocess.run([sys.executable, str(PROGRAM), "--devices", "cuda:0,cuda:0", *steps.split()], capture_output=True,
                            text=True, check=True).stdout
    print(f"native:\n{native}", flush=True)
    with gpu_vm.booted(args.bundle, "nvidia", 4096, 1024) as (host, guest):
        watch, begin = Watch(host.process.pid), time.monotonic()
        watch.start()
        done = guest.run(f"{gpu_vm.client_words(host)}; export ORION_VGPU=2 ORION_GMEM={MIB}; cd {gpu_vm.REPO}; "
                         f"python3 {PROGRAM} --memory {steps} 2>&1", timeout=args.timeout)
        watch.stop()
        print(f"guest ({time.monotonic() - begin:.0f} s):\n{done.output}", flush=True)
        print("nvidia-smi on the host:", watch.seen)
        wrong = judge(native, done.output, watch)
        print(host.output()[-1500:] if wrong else "", end="")
    print("\n".join(wrong) or "PASSED")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
