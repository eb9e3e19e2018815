# SPDX-License-Identifier: Apache-2.0
"""Who wants which address, and what happens when it comes, goes, or cannot be had."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import pytest

from orion_virt.errors import OrionError, Unavailable
from orion_virt.server import listening
from orion_virt.server.listening import Listening


class Door:
    """Listens at the addresses of `here` whose port is free."""

    def __init__(self) -> None:
        self.here, self.taken, self.open = {"127.0.0.1", "10.0.0.1"}, set[str](), set[str]()

    def listen(self, ip: str) -> bool:
        number = errno.EADDRINUSE if ip in self.taken else 0 if self._is_here(ip) else errno.EADDRNOTAVAIL
        if number:
            raise Unavailable(f"cannot listen on {ip}", hint="Look") from OSError(number, "")
        self.open.add(ip)
        return True

    def _is_here(self, ip: str) -> bool:
        return ip in self.here or ip in ("0.0.0.0", "::")

    def silence(self, ip: str) -> None:
        self.open.remove(ip)

    def addresses(self) -> list[str]:
        return sorted(self.open)


class Controller:
    """Is told where to serve."""

    def __init__(self) -> None:
        self.at: list[str] = []
        self.troubles: dict[str, str] = {}
        self.changed: Callable[[str], None] = lambda ip: None

    def also_at(self, ip: str) -> None:
        self.at.append(f"+{ip}")

    def not_at(self, ip: str) -> None:
        self.at.append(f"-{ip}")

    def trouble(self, ip: str) -> str:
        return self.troubles.get(ip, "")

    def watch(self, changed: Callable[[str], None], renewed: Callable[[], None]) -> None:
        self.changed = changed

    def unwatch(self) -> None:
        pass


class Kit:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.door, self.controller = Door(), Controller()
        self.told: list[str] = []
        self.moves = 0
        monkeypatch.setattr(listening, "is_here", self.door._is_here)
        self.listening = Listening(self.door, self.controller, self._moved, self.told.append)  # type: ignore[arg-type]

    def _moved(self) -> None:
        self.moves += 1


@pytest.fixture
def kit(monkeypatch: pytest.MonkeyPatch) -> Kit:
    return Kit(monkeypatch)


def test_the_last_who_needs_it_closes_it(kit: Kit) -> None:
    assert kit.listening.want("a", ["10.0.0.1", "10.0.0.1"]) == {} and kit.listening.want("b", ["10.0.0.1"]) == {}
    kit.listening.want("a", [])
    assert kit.door.open == {"10.0.0.1"} and kit.moves == 1
    kit.listening.want("b", ["127.0.0.1"])
    assert kit.door.open == {"127.0.0.1"} and kit.controller.at == ["+10.0.0.1", "-10.0.0.1", "+127.0.0.1"] and kit.moves == 2


def test_an_address_that_comes_and_goes(kit: Kit) -> None:
    troubles = kit.listening.want("a", ["10.0.0.9", "10.0.0.1"])
    assert list(troubles) == ["10.0.0.9"] and listening.is_missing(troubles["10.0.0.9"])
    assert kit.listening.problems("a") == ["cannot listen on 10.0.0.9. Look; it is tried again by itself"]
    kit.listening.host_changed()
    assert kit.told == []
    kit.door.here.add("10.0.0.9")
    kit.listening.host_changed()
    assert kit.told == ["a"] and kit.door.open == {"10.0.0.1", "10.0.0.9"} and kit.listening.problems("a") == []
    kit.door.here.remove("10.0.0.1")
    kit.listening.host_changed()
    assert kit.told == ["a", "a"] and kit.door.open == {"10.0.0.9"} and len(kit.listening.problems("a")) == 1
    kit.listening.want("a", [])
    assert kit.listening.problems("a") == [] and kit.door.open == set()


def test_the_controllers_trouble_is_said_too(kit: Kit) -> None:
    async def body() -> None:
        kit.listening.start(["127.0.0.1"])
        kit.listening.want("a", ["10.0.0.1"])
        kit.controller.troubles["10.0.0.1"] = "the controller cannot listen"
        kit.controller.changed("10.0.0.1")
        await kit.listening.stop()

    asyncio.run(body())
    assert kit.told == ["a"] and kit.listening.problems("a") == ["the controller cannot listen; it is tried again by itself"]


def start(kit: Kit, *always: str) -> None:
    async def body() -> None:
        kit.listening.start(always)
        await kit.listening.stop()

    asyncio.run(body())


def test_a_wildcard_covers_its_family(kit: Kit) -> None:
    start(kit, "0.0.0.0")
    assert kit.listening.want("a", ["10.0.0.1", "127.0.0.1"]) == {} and kit.door.open == {"0.0.0.0"}
    assert list(kit.listening.want("a", ["10.0.0.1", "fd00::1"])) == ["fd00::1"]
    kit.listening.want("a", [])
    assert kit.door.open == {"0.0.0.0"}


def test_what_keeps_oriond_from_starting(kit: Kit) -> None:
    """A port that somebody has; an address that may come yet is waited for."""
    kit.door.taken.add("10.0.0.1")
    with pytest.raises(OrionError, match="cannot listen on 10.0.0.1"):
        start(kit, "10.0.0.1")
    start(kit, "10.0.0.9", "127.0.0.1")
    assert kit.door.open == {"127.0.0.1"}
    kit.door.here.add("10.0.0.9")
    kit.listening.host_changed()
    assert kit.door.open == {"127.0.0.1", "10.0.0.9"}
