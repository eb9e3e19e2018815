# SPDX-License-Identifier: Apache-2.0
"""What checks look at and find. Files and programs are reached through Machine, so that tests have their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree

from orion_virt.config import ServerConfig
from orion_virt.errors import OrionError
from orion_virt.server import confine

OK, INFO, WARNING, ERROR = "ok", "info", "warning", "error"
RUN_SECONDS = 10


@dataclass(frozen=True)
class Finding:
    """``fix``: a command or a sentence that puts it right. ``domain``: its name, "" for the host."""

    level: str
    text: str
    fix: str = ""
    domain: str = ""


class Machine:
    """This host: its files below `root`, and its programs."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str | None:
        """A file's text, None where it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace")
        except OSError:
            return None

    def label(self, name: str) -> str:
        """A file's SELinux label."""
        try:
            return os.getxattr(self.path(name), "security.selinux").decode().rstrip("\0")
        except OSError:
            return ""

    def landlock(self) -> int:
        """The kernel's version of Landlock, 0 for none."""
        return confine.landlock_version()

    def run(self, argv: Sequence[str]) -> str | None:
        """What a program prints; None where it is not installed, fails or hangs."""
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=RUN_SECONDS, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None


@dataclass
class Facts:
    """Gathered once. An error stands for what could not be gathered because of it."""

    machine: Machine
    config: ServerConfig | OrionError
    status: dict[str, Any] | OrionError
    domains: list[dict[str, Any]] | OrionError
    xml: dict[str, etree._Element] = field(default_factory=dict)  # live XML of running domains, by UUID
    bridges: tuple[str, ...] = ()  # of libvirt's networks that are up
    hook_source: Path | None = None
    build: str = ""  # of the installed version
    is_root: bool = True

    @property
    def settings(self) -> ServerConfig:
        return self.config if isinstance(self.config, ServerConfig) else ServerConfig()

    @property
    def known(self) -> dict[str, Any]:
        """oriond's status, empty where it does not answer."""
        return self.status if isinstance(self.status, dict) else {}

    def running(self) -> Iterator[dict[str, Any]]:
        """Domains that run, as oriond has them."""
        if isinstance(self.domains, list):
            yield from (domain for domain in self.domains if domain["state"] == "running")
