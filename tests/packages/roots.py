# SPDX-License-Identifier: Apache-2.0
"""Root directories of whole systems into which things are installed, and which forget it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LOADER = "/lib64/ld-linux-x86-64.so.2"
C_LIBRARIES = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1")
# A tmpfs for what is written, an overlay on `lower`, and what every program expects; then wait to be used.
ENTER = """
set -e
mount -t tmpfs work "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" root "$2/root"
cd "$2/root"
mkdir -p proc sys dev tmp run
mount -t proc proc proc
mount -t sysfs -o ro sys sys
mount -t tmpfs dev dev
for node in null zero urandom random full tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
mount --bind /dev/shm dev/shm
mount -t tmpfs -o mode=1777 tmp tmp
mount -t tmpfs -o mode=755 run run
"""
STAY = "echo ready; exec sleep infinity"
# systemd as in a container: a cgroup and a network of its own, no service but what is asked for.
BOOT = """
umount dev/shm
mount -t tmpfs shm dev/shm
mount -t cgroup2 cgroup2 sys/fs/cgroup
ip link set lo up
mkdir -p mnt
pivot_root . mnt # units with mounts of their own need a root that is no chroot
cd /
umount -l mnt
echo ready
exec env -i container=orion PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --unit=basic.target --log-target=null
"""
SPACES = ("--mount", "--pid")
ALL_SPACES = (*SPACES, "--uts", "--ipc", "--net", "--cgroup")


class Root:
    """One of them, in namespaces of its own; network and /dev/shm are the machine's, unless systemd runs in a `group`."""

    def __init__(self, lower: Path, work: Path, group: Path | None = None) -> None:
        self._work = work
        self._spaces = SPACES if group is None else ALL_SPACES
        argv = ["unshare", *self._spaces, "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "sh", "-c",
                ENTER + (STAY if group is None else BOOT), "-", str(lower), str(work)]
        if group is not None:
            argv = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "-", *argv]
        self._holder = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._holder.stdout
        said = self._holder.stdout.readline()
        if said != "ready\n":
            self.close()
            pytest.fail(f"no root on {lower}: {said}")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()
        self._pid = children[0]

    @property
    def path(self) -> Path:
        """The root as this process reaches it."""
        return Path(f"/proc/{self._pid}/root{self.mount_point}")

    def put(self, source: Path, name: str) -> None:
        target = self.path / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)

    def run(self, *argv: str, timeout: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        """A program of the root, as root, with nothing of this environment."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"} | variables
        words = [f"{key}={value}" for key, value in env.items()]
        return subprocess.run(["nsenter", *self._spaces, "-t", self._pid, "chroot", self.mount_point, "/usr/bin/env", "-i", *words, *argv],
                              capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)

    def outside(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A program of this machine, which sees the root at `mount_point`."""
        return subprocess.run(["nsenter", "--mount", "-t", self._pid, *argv], capture_output=True, text=True, timeout=300, check=False)

    @property
    def mount_point(self) -> str:
        return f"{self._work}/root" if self._spaces is SPACES else "/"

    def must(self, *argv: str, **variables: str) -> str:
        """stdout of what has to succeed."""
        done = self.run(*argv, **variables)
        assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def changes(self, archive: Path) -> None:
        """Writes what was written here, as a tar file for the same lower root elsewhere."""
        done = self.outside("tar", "-C", f"{self._work}/upper", "-cf", str(archive), ".")
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait(10)
        assert self._holder.stdout
        self._holder.stdout.close()


@contextlib.contextmanager
def cgroup() -> Iterator[Path]:
    """A new one of version 2, gone at the end with all processes in it."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"]
    if not mounts:
        pytest.skip("there is no cgroup2")
    group = Path(mounts[0]) / f"orion-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup2 can be made: {error.strerror}")
    try:
        yield group
    finally:
        (group / "cgroup.kill").write_text("1")
        folders = [group, *(p for p in group.rglob("*") if p.is_dir())]
        for folder in sorted(folders, key=lambda p: len(p.parts), reverse=True):
            for _ in range(100):  # the kernel takes a moment to reap what was killed
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.05)


@contextlib.contextmanager
def booted(work: Path) -> Iterator[Root]:
    """This machine, which forgets it, under a systemd of its own that runs no service yet."""
    work.mkdir(parents=True)
    with cgroup() as group:
        root = Root(Path("/"), work, group)
        try:
            for _ in range(300):
                if root.run("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                    break
                time.sleep(0.1)
            else:
                pytest.fail("systemd does not come up")
            yield root
        finally:
            root.close()


@contextlib.contextmanager
def opened(lower: Path, work: Path) -> Iterator[Root]:
    """A Root on `lower` that is gone at the end; `work` becomes its mount point."""
    work.mkdir(parents=True)
    root = Root(lower, work)
    try:
        yield root
    finally:
        root.close()


def bare_root(whole: Path, target: Path) -> Path:
    """busybox and glibc: no Python, no package manager, no coreutils."""
    for name in ("bin", "lib64", "etc", "usr/bin", "usr/lib", "root", "lib/x86_64-linux-gnu"):
        (target / name).mkdir(parents=True)
    shutil.copy("/usr/bin/busybox" if Path("/usr/bin/busybox").exists() else "/bin/busybox", target / "bin" / "busybox")
    shutil.copy(whole / LOADER.lstrip("/"), target / LOADER.lstrip("/"))
    for name in C_LIBRARIES:
        shutil.copy(whole / "lib/x86_64-linux-gnu" / name, target / "lib/x86_64-linux-gnu" / name)
    for applet in subprocess.run([target / "bin" / "busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            (target / "bin" / applet).symlink_to("busybox")
    (target / "usr/bin/env").symlink_to("/bin/busybox")
    (target / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (target / "etc/group").write_text("root:x:0:\n")
    return target
