# SPDX-License-Identifier: Apache-2.0
"""What the daemon and its libvirt part (``domains.py``) promise each other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from orion_virt.config import ServerConfig
from orion_virt.errors import OrionError
from orion_virt.gpu.inventory import Inventory
from orion_virt.region.regions import Regions
from orion_virt.server.ceilings import Ceilings

if TYPE_CHECKING:
    from orion_virt.server.accounts import Accounts
    from orion_virt.server.channels import Channels
    from orion_virt.server.names import Names
    from orion_virt.server.usage import Usage
    from orion_virt.server.workers import Pool

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""One command of control.sock: the request's object in, the answer's fields out (without "ok").
An OrionError becomes ``{"ok": false, "error", "hint"}``."""


class Host(Protocol):
    """What ``Domains`` may ask of the daemon. Everything runs in the daemon's event loop."""

    ceilings: Ceilings
    """What processes of running domains may have; see ceilings.Ceilings."""

    def listen_for(self, who: str, addresses: Iterable[str]) -> Mapping[str, OrionError]:
        """From now on guests are accepted at these IP addresses on behalf of `who` (a domain), and at no others of its.

        Returns those that cannot be had now, and why: they are tried again, and `look_again(who)` says when that changed.
        """
        ...

    def listening_problems(self, who: str) -> list[str]:
        """What of that which `who` asked for fails now, with the remedy."""
        ...

    def server_addrs(self) -> list[str]:
        """Every "ip:port" listened on now."""
        ...

    def controller_addr(self, server_addr: str) -> str:
        """The controller's "ip:port" as a guest that reaches us at `server_addr` should dial it."""
        ...

    def close_channels(self, uuid: str, reason: str, guest_gone: bool = False) -> int:
        """Ends every channel of a domain; returns how many there were. Extents come back as workers end.

        ``guest_gone``: no program is left there that had to be told, so workers are killed at once.
        """
        ...

    def channels(self, uuid: str) -> list[dict[str, Any]]:
        """The live channels of a domain, for people."""
        ...

    def usage_of(self, uuid: str) -> dict[str, Any]:
        """What the processes of a domain have and do now; see usage.total."""
        ...

    def processes_of(self, uuid: str) -> list[dict[str, Any]]:
        """Its processes, over TCP too."""
        ...

    async def hold(self, uuid: str, seconds: float) -> None:
        """Ends them, and lets none begin for so long (0: it may again); returns when all is given back."""
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

    def look_again(self, uuid: str) -> None:
        """Something that concerns this domain has changed."""
        ...

    def addresses_changed(self) -> None:
        """This host has got or lost an address."""
        ...

    def links_changed(self) -> None:
        """A network device of this host has changed."""
        ...

    def neighbour(self, mac: str) -> None:
        """This host has heard of a neighbour."""
        ...


class Parts(Protocol):
    """What monitoring looks at; the daemon has it."""

    config: ServerConfig
    inventory: Inventory
    regions: Regions
    accounts: Accounts
    pool: Pool
    channels_part: Channels
    usage: Usage
    names: Names
