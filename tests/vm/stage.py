# SPDX-License-Identifier: Apache-2.0
"""What a VM test has to work with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vm.harness import Oriond, PrivateHost, PrivateLibvirt


@dataclass
class Setup:
    """The private host, its libvirt and its daemon."""

    host: PrivateHost
    libvirt: PrivateLibvirt
    oriond: Oriond

    @property
    def shm(self) -> Path:
        """/dev/shm of the private host."""
        return self.host.inside("/dev/shm")

    def regions(self) -> list[str]:
        return sorted(p.name for p in self.shm.iterdir())


def eventually(condition: Callable[[], bool], message: str, seconds: float = 25) -> None:
    """Waits for something that the daemon does by itself."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message
        time.sleep(0.05)
