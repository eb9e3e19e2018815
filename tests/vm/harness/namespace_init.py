# SPDX-License-Identifier: Apache-2.0
"""Process 1 of the private namespaces: mounts what is private, says so, and lives until its stdin closes.

It runs as `unshare ... python3 -I namespace_init.py STATE SHM_MIB KVM`. When it ends, for whatever reason, the
kernel kills every process of the pid namespace, so that nothing outlives the harness; STATE is removed too.
"""

import contextlib
import os
import select
import shutil
import signal
import stat
import subprocess
import sys

# A directory of STATE, and what of the system it covers.
COVERED = (
    ("etc-libvirt", "/etc/libvirt"),
    ("lib-libvirt", "/var/lib/libvirt"),
    ("cache-libvirt", "/var/cache/libvirt"),
    ("log-libvirt", "/var/log/libvirt"),
    ("run", "/run"),
)


def mount(*args: str) -> None:
    """mount(8), or SystemExit with what it said."""
    done = subprocess.run(["mount", *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"mount {' '.join(args)}: {done.stderr.strip()}")


def main(state: str, shm_mib: str, kvm: str) -> int:
    for name, target in COVERED:
        mount("--bind", f"{state}/{name}", target)
    mount("-t", "tmpfs", "-o", f"mode=1777,size={shm_mib}m", "orion-shm", "/dev/shm")
    give_kvm(state, kvm)
    mount("-t", "sysfs", "sysfs", "/sys")  # /sys/class/net must show this network namespace
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wake_r, wake_w = os.pipe()
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([0, wake_r], [], [])
        if 0 in ready and not os.read(0, 1):
            end(state)
            return 0
        if wake_r in ready:
            os.read(wake_r, 4096)
            reap()


def end(state: str) -> None:
    """Kills everything here and removes the state directory: our starter may be dead."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    shutil.rmtree(state, ignore_errors=True)


def give_kvm(state: str, kvm: str) -> None:
    """A /dev/kvm of our own that QEMU's user may open, or one that nobody may.

    Where it can be opened but does not serve, libvirtd asks QEMU 15 times what it can do with it.
    """
    if not os.path.exists("/dev/kvm"):
        return
    ours = f"{state}/kvm"
    if kvm == "yes":
        os.mknod(ours, stat.S_IFCHR, os.stat("/dev/kvm").st_rdev)
        os.chmod(ours, 0o666)
    else:
        os.close(os.open(ours, os.O_CREAT | os.O_EXCL, 0))
    mount("--bind", ours, "/dev/kvm")


def reap() -> None:
    """Takes the exit status of orphans, of which process 1 is the parent."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
