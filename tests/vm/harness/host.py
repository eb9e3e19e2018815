# SPDX-License-Identifier: Apache-2.0
"""A private host inside this one: own mounts, network and processes, gone without a trace when it is closed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from orion_virt.errors import Forbidden, NotFound, Unavailable

from . import namespace_init

ORION_DIRS = ("etc", "run", "log", "state")
STOP_SECONDS = 10


class PrivateHost:
    """Namespaces in which daemons and virtual machines of a test or a demonstration live.

    ``state`` is a temporary directory that both sides see at the same path; ``/run``, ``/dev/shm`` and libvirt's
    directories are private. ``cache`` keeps what libvirt finds out about QEMU (8 s) from one time to the next.
    Use it as a context manager: leaving it, or the end of this process, ends everything in it.
    """

    def __init__(self, shm_mib: int = 2048, prefix: str = "orion-vm-", cache: Path | None = None,
                 kvm: bool = False) -> None:
        self.shm_mib = shm_mib
        self._kvm = "yes" if kvm else "no"
        self._cache = cache
        self._prefix = prefix
        self._init: subprocess.Popen[str] | None = None
        self._children: list[subprocess.Popen[Any]] = []
        self.state = Path()
        self.pid = 0

    def __enter__(self) -> PrivateHost:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Raises Forbidden or Unavailable with the remedy where namespaces cannot be had."""
        self._check()
        self.state = Path(tempfile.mkdtemp(prefix=self._prefix, dir="/tmp"))
        self.state.chmod(0o755)
        try:
            if self._cache is not None:
                (self._cache / "libvirt").mkdir(parents=True, exist_ok=True)
                (self.state / "cache-libvirt").symlink_to((self._cache / "libvirt").resolve())
            for name, _ in namespace_init.COVERED:
                (self.state / name).mkdir(exist_ok=True)
            for name in ORION_DIRS:
                (self.state / "orion" / name).mkdir(parents=True)
            self._start_init()
        except BaseException:
            self.stop()
            raise

    def _check(self) -> None:
        if os.geteuid() != 0:
            raise Forbidden("a private libvirt needs root", hint="Run it with sudo")
        for tool in ("unshare", "nsenter", "mount", "ip"):
            if not shutil.which(tool):
                raise NotFound(f"{tool} is not installed", hint="apt-get install util-linux mount iproute2")
        for _, target in namespace_init.COVERED:
            if not Path(target).is_dir():
                raise NotFound(f"{target} is missing", hint="apt-get install libvirt-daemon-system qemu-system-x86")

    def _start_init(self) -> None:
        script = str(Path(namespace_init.__file__))
        argv = ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc",
                "--propagation", "private", sys.executable, "-I", script, str(self.state), str(self.shm_mib), self._kvm]
        # A session of its own: Ctrl-C must reach us first, who take everything down in order.
        self._init = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      text=True, start_new_session=True)
        assert self._init.stdout and self._init.stderr
        if self._init.stdout.readline().strip() != "ready":
            said = self._init.stderr.read().strip()
            raise Unavailable(f"this machine gives us no namespaces of our own ({said})",
                              hint="In a container, run it with --privileged")
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        self.pid = int(children[0])

    def stop(self) -> None:
        """Kills everything inside and removes the state directory; may be called twice."""
        if self._init is not None:
            assert self._init.stdin
            self._init.stdin.close()
            try:
                self._init.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._init.kill()
                self._init.wait(STOP_SECONDS)
            for child in self._children:  # dead with the namespace
                child.wait(STOP_SECONDS)
            self._children.clear()
            for stream in (self._init.stdout, self._init.stderr):
                if stream:
                    stream.close()
            self._init = None
        if self.state != Path():
            shutil.rmtree(self.state, ignore_errors=True)

    def inside(self, path: str | Path) -> Path:
        """A path of the private host as this process can open it."""
        return Path(f"/proc/{self.pid}/root{path}")

    @property
    def environ(self) -> dict[str, str]:
        """The variables that point every part of orion-virt at this host's directories."""
        found = {f"ORION_{name.upper()}": str(self.state / "orion" / name) for name in ORION_DIRS}
        return {**os.environ, **found, "ORION_LIBVIRT_URI": "qemu:///system"}

    def argv(self, command: list[str], directory: str | Path = "/") -> list[str]:
        """`command` as it must be called from outside, to run in `directory`."""
        return ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--uts", "--",
                "env", "-C", str(directory), *command]

    def run(self, command: list[str], timeout: float = 180, check: bool = False, cwd: str | Path = "/",
            **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Runs a command inside and waits for it; text in and out."""
        kwargs.setdefault("env", self.environ)
        return subprocess.run(self.argv(command, cwd), capture_output=True, text=True, timeout=timeout, check=check,
                              **kwargs)

    def popen(self, command: list[str], cwd: str | Path = "/", **kwargs: Any) -> subprocess.Popen[Any]:
        """Starts a command inside. Leaving the host kills it."""
        kwargs.setdefault("env", self.environ)
        child: subprocess.Popen[Any] = subprocess.Popen(self.argv(command, cwd), **kwargs)
        self._children.append(child)
        return child
