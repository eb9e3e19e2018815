# SPDX-License-Identifier: Apache-2.0
"""The names of domains for monitoring, from libvirt, and not oftener than needed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from orion_virt.errors import OrionError
from orion_virt.server.contract import Command

FRESH_SECONDS = 30.0
AGAIN_SECONDS = 5.0
_ANSWER_SECONDS = 2.0


class Names:
    """For the event loop. What libvirt last said stays known while it is down."""

    def __init__(self, command: Callable[[], Command | None], clock: Callable[[], float] = time.monotonic) -> None:
        """``command`` gives the one called `names`; None where libvirt is not followed."""
        self._command = command
        self._clock = clock
        self._names: dict[str, str] = {}
        self._asked_at = float("-inf")

    async def known(self, uuids: Iterable[str]) -> dict[str, str]:
        """By UUID; asks anew where what is known is old, or a moment old and one of these is missing."""
        age = self._clock() - self._asked_at
        missing = not set(uuids) <= set(self._names)
        if age > FRESH_SECONDS or missing and age > AGAIN_SECONDS:
            self._asked_at = self._clock()
            await self._ask()
        return self._names

    async def _ask(self) -> None:
        command = self._command()
        if command is None:
            return
        try:
            self._names = (await asyncio.wait_for(command({}), _ANSWER_SECONDS))["by_uuid"]
        except (OrionError, asyncio.TimeoutError):
            return  # it is down or busy, which others report
