# SPDX-License-Identifier: Apache-2.0
"""What the daemon and its libvirt part (``domains.py``) promise each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from orion_virt.config import ServerConfig

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""One command of control.sock: the request's object in, the answer's fields out (without "ok").
An OrionError becomes ``{"ok": false, "error", "hint"}``."""


class Host(Protocol):
    """What ``Domains`` may ask of the daemon. Everything runs in the daemon's event loop."""

    async def listen_on(self, address: str) -> str:
        """Also accepts guests at this IP address; idempotent. Returns "ip:port" for the header.

        Raises Unavailable when the address is not this machine's or its port is taken.
        """
        ...

    def server_addrs(self) -> list[str]:
        """Every "ip:port" listened on now."""
        ...

    def controller_addr(self, server_addr: str) -> str:
        """The controller's "ip:port" as a guest that reaches us at `server_addr` should dial it."""
        ...

    def close_channels(self, uuid: str, reason: str) -> int:
        """Ends every channel of a domain; returns how many there were. Extents come back as workers end."""
        ...

    def channels(self, uuid: str) -> list[dict[str, Any]]:
        """The live channels of a domain, for people."""
        ...


class DomainsPart(Protocol):
    """What the daemon asks of ``domains.Domains(config, regions, host)``."""

    commands: dict[str, Command]
    """`domains`, `attach`, `detach`, ... by name."""

    async def start(self) -> None:
        """Connects to libvirt in the background; never raises because libvirt is down."""
        ...

    async def stop(self) -> None: ...

    async def reconfigure(self, config: ServerConfig) -> None:
        """Decides anew about every domain, by other settings."""
        ...

    def hook(self, op: str, uuid: str, name: str) -> None:
        """A datagram of the hook: only a hint."""
        ...
