# SPDX-License-Identifier: Apache-2.0
"""oriond (with its controller) inside a PrivateHost."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from orion_virt.errors import Unavailable

from .host import PrivateHost
from .libvirtd import REPO

START_SECONDS = 180
STOP_SECONDS = 15


class Oriond:
    """The daemon as a user runs it: own configuration, own directories, the private libvirt."""

    def __init__(self, host: PrivateHost, settings: str = "", argv: list[str] | None = None) -> None:
        """``settings``: the text of server.conf. ``argv``: how to start it, by default from this checkout."""
        self.host = host
        self._argv = argv or [sys.executable, "-m", "orion_virt.cli.oriond", "--foreground", "--with-controller"]
        self.configure(settings)
        self.process: subprocess.Popen[Any] | None = None

    def configure(self, settings: str) -> None:
        """Another server.conf, for the next start."""
        (self._dir("etc") / "server.conf").write_text(settings)

    def wait(self) -> None:
        """Until it has ended by another's doing."""
        if self.process is not None:
            self.process.wait(STOP_SECONDS)
            self.process = None

    def _dir(self, name: str) -> Any:
        return self.host.state / "orion" / name

    def start(self) -> None:
        """Starts it and waits until it answers. Unavailable with its output's end otherwise."""
        with (self.host.state / "oriond.out").open("ab") as out:
            self.process = self.host.popen(self._argv, cwd=REPO, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                           start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.ask("ping").get("ok"):
                    return
            except OSError:
                time.sleep(0.1)
        raise Unavailable(f"oriond did not start: {self.output()[-1500:]}")

    def output(self) -> str:
        """What it wrote on its terminal."""
        return (self.host.state / "oriond.out").read_text(errors="replace")

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """One command over control.sock, which both sides see."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(30)
            sock.connect(str(self._dir("run") / "control.sock"))
            sock.sendall(json.dumps({"cmd": command, **fields}).encode() + b"\n")
            with sock.makefile() as lines:
                return dict(json.loads(lines.readline() or "{}"))

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`orion-virt ARGUMENTS` inside."""
        return self.host.run([sys.executable, "-m", "orion_virt.cli.main", *arguments], cwd=REPO)

    def domain(self, name: str) -> dict[str, Any]:
        """What `orion-virt list` knows of one domain."""
        found = [d for d in self.ask("domains").get("domains", []) if d["name"] == name]
        return dict(found[0]) if found else {}

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ends it with a signal and waits."""
        if self.process is None:
            return
        # nsenter waits for the daemon, its child in the pid namespace.
        self.host.run(["sh", "-c", f"kill -{int(number)} $(cat {self._dir('run')}/oriond.lock)"])
        self.process.wait(STOP_SECONDS)
        self.process = None
