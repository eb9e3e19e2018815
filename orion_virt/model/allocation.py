# SPDX-License-Identifier: Apache-2.0
"""The life of an allocation: granted, confirmed, then gone. Who asked for it, and who holds it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from orion_virt.model.gpu import VGpu

CONFIRM_SECONDS = 30  # granted and not confirmed: it expires


class State(Enum):
    GRANTED = "granted"
    CONFIRMED = "confirmed"


@dataclass(frozen=True)
class Client:
    """Who asks. ``owner`` names a domain by a key that only who reads its region can make; ``domain`` is said by a
    server, which has proof. Both are empty where only the source address is known."""

    address: str = ""
    owner: str = ""
    domain: str = ""


@dataclass(frozen=True)
class Holder:
    """The guest process behind a confirmed allocation, as its server tells."""

    client: Client = Client()
    process: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Allocation:
    """What the controller granted to one guest process, or to a group of them that share it.

    ``granted_at``: seconds since 1970, for people alone. ``joining``: further processes that were told of it and that no
    server has confirmed yet. ``asked_at``: host of the controller that was asked.
    """

    uuid: str
    vgpus: tuple[VGpu, ...]
    granted_at: float
    client: Client = Client()
    holder: Holder = Holder()
    state: State = State.GRANTED
    group: str = ""
    joining: int = 0
    asked_at: str = ""

    @property
    def server(self) -> str:
        return self.vgpus[0].server

    @property
    def domain(self) -> str:
        """UUID of the domain that has it; empty where nothing proved one."""
        return self.holder.client.domain or self.client.domain

    def confirmed(self, holder: Holder) -> Allocation:
        """One more process has come for it; of a group the first one's holder stays."""
        if self.state is State.CONFIRMED:
            return replace(self, joining=max(0, self.joining - 1))
        return replace(self, state=State.CONFIRMED, holder=holder)

    def released(self) -> Allocation | None:
        """What is left of it: a grant, where somebody is on the way to a group whose last process has just ended."""
        return replace(self, state=State.GRANTED, holder=Holder(), joining=self.joining - 1) if self.joining else None

    def is_of(self, shown_by: Client, servers_own: tuple[str, ...], askers_host: tuple[str, ...] = ()) -> bool:
        """Whether who shows the id may be who asked for it.

        A domain is known by proof; without one both sides must have come from the same address. ``servers_own``: addresses
        of its server; a question that came from there was translated on its way (NAT, user-mode networks), so its address
        tells nothing. ``askers_host``: addresses of another host that was asked: from there it comes translated.
        """
        if not shown_by.address:
            return True  # a server that does not say who shows it
        if self.client.owner:
            return self.client.owner == shown_by.owner
        if self.client.domain:
            return self.client.domain == shown_by.domain
        return self.client.address in (shown_by.address, "", *servers_own) or shown_by.address in askers_host
