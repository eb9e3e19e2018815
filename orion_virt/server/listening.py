# SPDX-License-Identifier: Apache-2.0
"""At which addresses guests are accepted: those that somebody asked for, as far and as long as this host has them."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from orion_virt.errors import OrionError, Unavailable
from orion_virt.server.embedded import EmbeddedController

RETRY_SECONDS = 5.0
_ITSELF = "oriond"
_log = logging.getLogger("orion.listening")


class Door(Protocol):
    """What accepts guests; see guests.Guests."""

    def listen(self, ip: str) -> bool: ...

    def silence(self, ip: str) -> None: ...

    def addresses(self) -> list[str]: ...


def is_here(ip: str) -> bool:
    """Whether this host has the address now, ready for use."""
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((ip, 0))
        except OSError:
            return False
    return True


def is_missing(error: OrionError) -> bool:
    """Whether listening failed because the address is not this host's, so that it may come yet."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRNOTAVAIL


class Listening:
    """For the event loop. Closing a listener leaves every connection that it has accepted alone."""

    def __init__(self, door: Door, controller: EmbeddedController | None, moved: Callable[[], None],
                 tell: Callable[[str], None]) -> None:
        """``moved``: the set of addresses has changed. ``tell(who)``: something of what `who` asked for has, by itself."""
        self._door = door
        self._controller = controller
        self._moved = moved
        self._tell = tell
        self._wanted: dict[str, tuple[str, ...]] = {}
        self._troubles: dict[str, OrionError] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, always: Sequence[str]) -> None:
        """Listens at these for good; one that this host does not have yet is waited for. Raises Unavailable for other reasons."""
        for error in self.want(_ITSELF, always).values():
            if not is_missing(error):
                raise error
        if self._controller is not None:
            self._controller.watch(self._of_controller, self._moved)
        self._task = asyncio.create_task(self._retry_forever(), name="listen again")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if self._controller is not None:
                self._controller.unwatch()

    def want(self, who: str, ips: Iterable[str]) -> dict[str, OrionError]:
        """From now on `who` needs these and no others; returns those that cannot be had now, and why."""
        self._wanted[who] = tuple(dict.fromkeys(ips))
        if not self._wanted[who]:
            del self._wanted[who]
        self._apply()
        return {ip: self._troubles[ip] for ip in self._wanted.get(who, ()) if ip in self._troubles}

    def problems(self, who: str) -> list[str]:
        """What of that which `who` asked for fails now, with the remedy."""
        found = []
        for ip in self._wanted.get(who, ()):
            if ip in self._troubles:
                found.append(f"{self._troubles[ip]}; it is tried again by itself")
            if self._controller is not None and (said := self._controller.trouble(ip)):
                found.append(f"{said}; it is tried again by itself")
        return found

    def host_changed(self) -> None:
        """An address of this host has come or gone."""
        changed = self._apply()
        for who, ips in list(self._wanted.items()):
            if who != _ITSELF and changed.intersection(ips):
                self._tell(who)

    # ---- doing it ----

    def _apply(self) -> set[str]:
        """Brings the listeners to what is wanted; returns the addresses that came or went."""
        wanted = {ip for ips in self._wanted.values() for ip in ips if not self._is_covered(ip)}
        before = set(self._door.addresses())
        for ip in before:
            if ip not in wanted:
                self._close(ip, "nobody needs it any more")
            elif not is_here(ip):
                self._close(ip, "this host has it no longer")
        for ip in self._troubles.keys() - wanted:
            del self._troubles[ip]
        for ip in sorted(wanted.difference(self._door.addresses())):
            self._open(ip)
        changed = before.symmetric_difference(self._door.addresses())
        if changed:
            self._moved()
        return changed

    def _is_covered(self, ip: str) -> bool:
        """By a wildcard that is listened on anyway."""
        wildcard = "::" if ":" in ip else "0.0.0.0"
        return ip != wildcard and wildcard in self._wanted.get(_ITSELF, ())

    def _open(self, ip: str) -> None:
        try:
            self._door.listen(ip)
        except Unavailable as error:
            if str(self._troubles.get(ip)) != str(error):
                _log.warning("%s", error)
            self._troubles[ip] = error
            return
        self._troubles.pop(ip, None)
        if self._controller is not None:
            self._controller.also_at(ip)

    def _close(self, ip: str, why: str) -> None:
        self._door.silence(ip)
        if self._controller is not None:
            self._controller.not_at(ip)
        _log.info("not listening on %s any more: %s", ip, why)

    async def _retry_forever(self) -> None:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if self._troubles:
                self.host_changed()
            for ip in self._door.addresses():
                if self._controller is not None and self._controller.trouble(ip):
                    self._controller.also_at(ip)

    def _of_controller(self, ip: str) -> None:
        for who, ips in list(self._wanted.items()):
            if who != _ITSELF and ip in ips:
                self._tell(who)
