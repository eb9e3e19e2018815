# SPDX-License-Identifier: Apache-2.0
"""A worker alone, with us as its daemon and its guest: any build of executor and simulated GPU, exit status in sight."""

from __future__ import annotations

import array
import contextlib
import errno
import json
import mmap
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

from guest import DEVICE_BYTES, Ring
from host import LIB, ROOT

from orion_virt import layout
from orion_virt.region.extents import Extents

BLOCK = layout.EXTENT_BYTES


class Sandbox(Ring):
    """One worker with its channel; grants come from `region_mib` of a private file."""

    def __init__(self, folder: Path, executor: Path = LIB / "libexecutor.so",
                 driver: Path = LIB / "simgpu/libcuda.so.1", env: dict[str, str] | None = None, region_mib: int = 32) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / "worker.log"
        self.log_path.write_text("")
        self.said: layout.Control | None = None
        self.extents = Extents(region_mib << 20)
        self.extents.take(layout.CHANNEL_BYTES)
        self.fd = os.open(folder / "region", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self.fd, region_mib << 20)
        memory = mmap.mmap(self.fd, region_mib << 20)
        memory[BLOCK : BLOCK + 64] = layout.channel_head(1, layout.CHANNEL_BYTES)
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", "orion_virt.server.worker", "--control-fd", str(theirs.fileno())]
        self.process = subprocess.Popen(
            [*argv, "--executor", str(executor), "--driver", str(driver)], cwd=ROOT, pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        conn, far = socket.socketpair()
        super().__init__(memory, BLOCK, conn)
        message = {
            "channel": 1, "domain": "d", "transport": "shm", "base": layout.BASES[0], "block": BLOCK,
            "region_bytes": region_mib << 20, "devices": [{"ordinal": 0, "memory": DEVICE_BYTES}] * 2,
            "log": str(self.log_path), "uid": os.geteuid(), "gid": os.getegid(), "env": {},
        }  # fmt: skip
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [far.fileno(), self.fd, log]))]
        self.control.sendmsg([json.dumps(message).encode()], rights)
        far.close()
        os.close(log)
        self._daemon = threading.Thread(target=self._serve, daemon=True)
        self._daemon.start()

    def _serve(self) -> None:
        """The daemon's side: grants and releases until the worker is gone."""
        with contextlib.suppress(OSError):
            while raw := self.control.recv(1024):
                message = layout.Control.from_buffer_copy(raw)
                if message.kind == layout.GRANT:
                    run = self.extents.take(message.a)
                    status, (off, n_bytes) = (0, run) if run else (-errno.ENOMEM, (0, 0))
                    self.control.send(bytes(layout.Control(kind=layout.GRANT, status=status, a=off, b=n_bytes)))
                elif message.kind == layout.RELEASE:
                    self.extents.give_back(message.a, message.b)
                elif message.kind == layout.CLOSED:
                    self.said = message

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait(10)
        self._daemon.join(10)
        self.conn.close()
        self.control.close()
        self.memory.close()
        os.close(self.fd)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def end(self) -> tuple[int, str]:
        """Hangs up where the worker has not, and gives its exit status and what it said last."""
        self.conn.close()
        status = self.process.wait(15)
        self._daemon.join(10)
        return status, self.said.text.decode() if self.said else ""
