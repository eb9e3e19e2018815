# SPDX-License-Identifier: Apache-2.0
"""A host and a guest for the blocks of a page: the names and addresses that the page says lead to those of a test."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import console
import host as hosts

PROGRAMS = {"orion-virt": "main", "orion-check": "check", "oriond": "oriond", "orion-controller": "controller"}
DIRECTORIES = {"etc": "/etc/orion", "run": "/run/orion", "log": "/var/log/orion", "state": "/var/lib/orion"}
HOLDER = """
import ctypes, sys
cuda, context = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p()
print(cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), flush=True)
sys.stdin.readline()
"""


class Stage:
    """One page's; `work` is where its files are saved and its commands run."""

    def __init__(self, host: hosts.Host, work: Path) -> None:
        self.host, self.work = host, work
        self._host_bin, self._guest, self._root = work / ".host", work / ".guest", work / ".root"
        self._host_bin.mkdir(parents=True)
        self._guest.mkdir()
        (self._root / "etc").mkdir(parents=True)
        for name, module in PROGRAMS.items():
            main = f"import sys; from orion_virt.cli.{module} import main; sys.argv[0] = {name!r}; main()"
            console.program(self._host_bin / name, sys.executable, "-c", main)
        for folder in (self._host_bin, self._guest):
            console.program(folder / "sudo", "env")
            console.program(folder / "python3", sys.executable)
        for name in ("libcuda.so.1", "libnvidia-ml.so.1", "orion-smi", "orion-probe"):
            shutil.copy(hosts.LIB / "guest" / name, self._guest)
        shutil.copy(hosts.ROOT / "guest-agent" / "installer" / "orion-check", self._guest)

    def _real(self, text: str) -> str:
        """The page's addresses as they are here."""
        return text.replace("127.0.0.1:9123", self.host.controller).replace("127.0.0.1/9960", f"127.0.0.1/{self.host.port}")

    def _told(self, text: str) -> str:
        """The opposite, of an output."""
        for name, path in DIRECTORIES.items():
            text = text.replace(str(self.host.dir / name), path)
        text = text.replace(str(self.host.dir / "home"), "/home/user")
        return text.replace(self.host.controller, "127.0.0.1:9123").replace(str(self.host.port), "9960")

    def run(self, kind: str, text: str) -> list[str]:
        """What is wrong with a block of commands."""
        if kind == "guest":
            env = self.host.env | {"PATH": console.path_before(self._guest), "LD_LIBRARY_PATH": str(self._guest),
                                   "ORION_ROOT": str(self._root)}  # for install-client alone: this machine is no guest
            return console.run(text, env, self.work, self._real, self._told)
        env = self.host.server_env | {"PATH": console.path_before(self._host_bin)}
        with self.holder() if kind == "busy" else contextlib.nullcontext():
            return console.run(text, env, self.work, self._real, self._told)

    @contextlib.contextmanager
    def holder(self) -> Iterator[None]:
        """A program of the guest that has a vGPU meanwhile."""
        with subprocess.Popen([sys.executable, "-c", HOLDER], env=self.host.env, text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:  # fmt: skip
            assert process.stdout is not None and process.stdout.readline() == "0\n"
            try:
                yield
            finally:
                process.communicate(timeout=180)
