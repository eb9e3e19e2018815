# SPDX-License-Identifier: Apache-2.0
"""An orion-controller of oriond's own (`--with-controller`): reached wherever oriond is, gone when oriond is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable

from orion_virt import config as configs
from orion_virt.config import split_addr
from orion_virt.server.workers import words

STOP_SECONDS = 5
AGAIN_SECONDS = 0.1, 10.0  # until one that has ended is started again: the first time, and at most
_LIVED_SECONDS = 60.0      # one that served so long begins with the first again
_log = logging.getLogger("orion.controller")


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


class EmbeddedController:
    """The process, started again where it ends; it ends when its standard input does, so also when oriond is killed."""

    def __init__(self, addr: str) -> None:
        pair = split_addr(addr, configs.DEFAULT_CONTROLLER_PORT)
        assert pair is not None
        self._host = pair[0]
        self._troubles: dict[str, str] = {}
        self._at: set[str] = set()
        self._unread = b""
        self._argv = [sys.executable, "-m", "orion_virt.cli.controller", "--listen", addr, "--also-at-stdin"]
        self._again: asyncio.TimerHandle | None = None
        self._wait = AGAIN_SECONDS[0]
        self._said = ""  # of its last end
        self._changed: Callable[[str], None] = lambda ip: None
        self._renewed: Callable[[], None] = lambda: None
        self._start()

    def _start(self) -> None:
        self._started = time.monotonic()
        self._process = subprocess.Popen(self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

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

    def watch(self, changed: Callable[[str], None], renewed: Callable[[], None]) -> None:
        """From now on hears how the controller fares, in the running event loop, and starts it again where it ends.

        `changed(ip)`: it serves there now, or does not. `renewed`: it is another process, which must be told of us.
        """
        self._changed, self._renewed = changed, renewed
        self._listen()

    def unwatch(self) -> None:
        """It may end from now on."""
        loop = asyncio.get_running_loop()
        if self._again is not None:
            self._again.cancel()
        elif self._process.stdout:
            loop.remove_reader(self._process.stdout.fileno())

    def _listen(self) -> None:
        assert self._process.stdout
        asyncio.get_running_loop().add_reader(self._process.stdout.fileno(), self._hear)

    def _say(self, line: str) -> None:
        assert self._process.stdin
        with contextlib.suppress(OSError, ValueError):  # the next one is told of all at its start
            self._process.stdin.write(f"{line}\n".encode())

    def _hear(self) -> None:
        """Lines "IP" (it serves there) and "IP why it does not"."""
        assert self._process.stdout
        read = os.read(self._process.stdout.fileno(), 65536)
        if not read:
            self._ended()
            return
        *lines, self._unread = (self._unread + read).split(b"\n")
        for line in lines:
            ip, _, why = line.decode("utf-8", "replace").partition(" ")
            if ip not in self._at or why == self.trouble(ip):
                continue
            if why:
                _log.warning("%s", why)
            self._troubles[ip] = why
            self._changed(ip)

    def _ended(self) -> None:
        """Its output has ended, so it has, or is about to. Running programs do not need it; new ones do."""
        assert self._process.stdout
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._process.stdout.fileno())
        self._process.kill()
        self._reap()
        first, most = AGAIN_SECONDS
        if time.monotonic() - self._started > _LIVED_SECONDS:
            self._wait, self._said = first, ""
        else:
            self._wait = min(2 * self._wait, most)
        why = words(self._process.returncode)
        if why != self._said:  # once, not at every try
            self._said = why
            _log.error("the controller ended (%s) and is started again; until then new programs get no vGPU", why)
        self._again = loop.call_later(self._wait, self._restart)

    def _restart(self) -> None:
        self._again, self._unread = None, b""
        self._troubles.clear()
        try:
            self._start()
        except OSError as error:
            self._wait = AGAIN_SECONDS[1]
            _log.error("the controller cannot be started: %s; the next try is in %.0f s", error.strerror, self._wait)
            self._again = asyncio.get_running_loop().call_later(self._wait, self._restart)
            return
        self._listen()
        for ip in sorted(self._at):
            self._say(f"+{ip}")
        self._renewed()

    def stop(self) -> None:
        self._process.terminate()
        self._reap()

    def _reap(self) -> None:
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
