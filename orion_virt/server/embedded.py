# SPDX-License-Identifier: Apache-2.0
"""An orion-controller of oriond's own (`--with-controller`): reached wherever oriond is, gone when oriond is."""

from __future__ import annotations

import logging
import subprocess
import sys

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
        argv = [sys.executable, "-m", "orion_virt.cli.controller", "--listen", addr, "--also-at-stdin"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def also_at(self, ip: str) -> None:
        """Serves guests that reach us at this address. One that was configured to listen elsewhere stays there."""
        if not is_loopback(self._host) or is_loopback(ip):
            return
        assert self._process.stdin
        try:
            self._process.stdin.write(f"+{ip}\n")
            self._process.stdin.flush()
        except OSError:
            _log.error("the controller is gone: guests get no vGPU; start oriond again")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdin
        self._process.stdin.close()
