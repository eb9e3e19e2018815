# SPDX-License-Identifier: Apache-2.0
"""An orion-controller of oriond's own (`--with-controller`): reached wherever oriond is, gone when oriond is."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Callable

from orion_virt import config as configs
from orion_virt.config import split_addr

STOP_SECONDS = 5
_log = logging.getLogger("orion.controller")


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


class EmbeddedController:
    """The process; it ends when its standard input does, so also when oriond is killed."""

    def __init__(self, addr: str) -> None:
        pair = split_addr(addr, configs.DEFAULT_CONTROLLER_PORT)
        assert pair is not None
        self._host = pair[0]
        self._troubles: dict[str, str] = {}
        self._at: set[str] = set()
        self._unread = b""
        argv = [sys.executable, "-m", "orion_virt.cli.controller", "--listen", addr, "--also-at-stdin"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    # ---- where it serves ----

    def also_at(self, ip: str) -> None:
        """Serves guests that reach us at this address. One that was configured to listen elsewhere stays there."""
        if is_loopback(self._host) and not is_loopback(ip):
            self._at.add(ip)
            self._say(f"+{ip}")

    def not_at(self, ip: str) -> None:
        """Stops what `also_at` began."""
        if ip in self._at:
            self._at.discard(ip)
            self._troubles.pop(ip, None)
            self._say(f"-{ip}")

    def trouble(self, ip: str) -> str:
        """Why the controller does not serve at this address; empty where it does, or need not."""
        return self._troubles.get(ip, "")

    def watch(self, changed: Callable[[str], None]) -> None:
        """From now on hears how the controller fares, in the running event loop."""
        assert self._process.stdout
        asyncio.get_running_loop().add_reader(self._process.stdout.fileno(), self._hear, changed)

    def _say(self, line: str) -> None:
        assert self._process.stdin
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except OSError:
            _log.error("the controller is gone: guests get no vGPU; start oriond again")

    def _hear(self, changed: Callable[[str], None]) -> None:
        """Lines "IP" (it serves there) and "IP why it does not"."""
        assert self._process.stdout
        read = os.read(self._process.stdout.fileno(), 65536)
        if not read:
            asyncio.get_running_loop().remove_reader(self._process.stdout.fileno())
            return
        *lines, self._unread = (self._unread + read).split(b"\n")
        for line in lines:
            ip, _, why = line.decode("utf-8", "replace").partition(" ")
            if ip not in self._at or why == self.trouble(ip):
                continue
            if why:
                _log.warning("%s", why)
            self._troubles[ip] = why
            changed(ip)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
