# SPDX-License-Identifier: Apache-2.0
"""A real etcd server on loopback, with its data in a directory of the test's."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from host import free_port, wait_for


class Etcd:
    """One member. `url` is what controllers are told."""

    def __init__(self, home: Path, ip: str) -> None:
        if shutil.which("etcd") is None:
            pytest.skip("etcd is not installed")
        self._home, self._port, self._peer = home, free_port(), free_port()
        self.url = f"http://{ip}:{self._port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self._peer}"
        argv = ["etcd", "--data-dir", str(self._home / "data"), "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        with open(self._home / "etcd.log", "ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        assert wait_for(self._is_healthy), (self._home / "etcd.log").read_text()

    def _is_healthy(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
            return b"true" in answer.read()
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)


@contextlib.contextmanager
def running(home: Path, ip: str = "127.0.0.1"):
    made = Etcd(home, ip)
    try:
        made.start()
        yield made
    finally:
        made.stop()
