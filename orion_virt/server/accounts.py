# SPDX-License-Identifier: Apache-2.0
"""Our side of the controller: registration, heartbeat, confirmation and release."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp

from orion_virt import config, credential
from orion_virt.errors import ConfigError, Conflict, Forbidden, NotFound, OrionError, ProtocolError, Unavailable, words_of

BEAT_SECONDS = 5.0
AGAIN_SECONDS = 0.5  # while it does not know us
_PATIENCE = 6  # failures, before one is worth a line: a controller that starts with us needs a moment
_CALL_SECONDS = 5.0
_RELEASE_TRIES = 3
_KINDS = {400: ProtocolError, 403: Forbidden, 404: NotFound, 409: Conflict}

_log = logging.getLogger("orion.accounts")


class Accounts:
    """For the event loop."""

    def __init__(self, addr: str, secret: str, describe: Callable[[], dict[str, Any]], tls_ca: str = "",
                 report: Callable[[], Awaitable[dict[str, Any]]] | None = None) -> None:
        """`describe` gives the body of a registration, live allocations included, `report` what the web page shows of us.

        Raises ConfigError."""
        pair = config.split_addr(addr, config.DEFAULT_CONTROLLER_PORT)
        assert pair is not None, "config has checked it"
        self._addr = addr
        self._tls = trusting(tls_ca) if tls_ca else None
        self._url = f"{'https' if tls_ca else 'http'}://{config.join_addr(*pair)}/v1"
        self._secret = secret
        self._describe = describe
        self._report = report
        self._session: aiohttp.ClientSession | None = None
        self._opening: set[str] = set()  # confirmed, or about to be, and not yet among what `describe` gives
        self._registered = self._stale = self._registering = False
        self._nr_told = 0  # registrations that have ended
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._again, self._known = asyncio.Event(), asyncio.Event()

    @property
    def is_registered(self) -> bool:
        return self._registered

    @property
    def name(self) -> str:
        return str(self._describe()["name"])

    def start(self) -> None:
        self._task = asyncio.create_task(self._beat_forever(), name="heartbeat")

    async def settled(self, seconds: float) -> None:
        """Returns when the controller knows us, or time is up."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._known.wait(), seconds)

    def renew(self) -> None:
        """Registers again soon: our addresses changed, or we and the controller may not agree on what is live."""
        self._registered, self._stale = False, True
        self._again.set()

    async def stop(self, for_good: bool = True) -> None:
        """``for_good``: what we serve has ended, and the controller may forget us."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            if self._registered and for_good:
                with contextlib.suppress(OrionError):
                    await self._call(f"/heartbeat/{quote(self.name, safe='')}?status=off", {})
        if self._session is not None:
            await self._session.close()

    async def _beat_forever(self) -> None:
        while True:
            await self._beat()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._again.wait(), BEAT_SECONDS if self._registered else AGAIN_SECONDS)
            self._again.clear()

    async def _beat(self) -> None:
        try:
            if self._registered:
                await self._heartbeat("continue")
                self._begin_to_tell()
            else:
                self._stale = False
                await self._register()
                self._registered, self._failures = not self._stale, 0
                self._known.set()
                _log.info("registered with the controller at %s", self._addr)
        except NotFound:
            self._registered = False
            self._again.set()  # it was restarted: tell it of everything at once
        except OrionError as error:
            self._registered = False
            self._failures += 1
            if self._failures == (_PATIENCE if isinstance(error, Unavailable) else 1):
                _log.warning("%s", error)

    async def _register(self) -> None:
        self._registering = True
        try:
            await self._heartbeat("on")
        finally:
            self._registering = False
            self._nr_told += 1

    async def _heartbeat(self, status: str) -> None:
        path = f"/heartbeat/{quote(self.name, safe='')}?res=nvidia_cuda&status={status}"
        body = self._describe()
        self._opening -= {allocation["uuid"] for allocation in body["allocations"]}
        await self._call(path, body | {"opening": sorted(self._opening)})

    def _begin_to_tell(self) -> None:
        """Beside the heartbeat, which must not wait for cards that answer slowly."""
        if self._report is not None and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell_usage(self._report), name="usage")

    async def _tell_usage(self, report: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        """Nothing depends on it: a controller that does not take it shows allocations alone."""
        try:
            await self._call(f"/usage/{quote(self.name, safe='')}", await report())
        except OrionError as error:
            _log.debug("the controller did not take what we use: %s", error)

    async def confirm(self, uuid: str, holder: dict[str, Any]) -> dict[str, Any]:
        """The allocation, now ours to serve; `holder` is who shows it. Raises NotFound, Conflict, Forbidden, Unavailable."""
        self._opening.add(uuid)
        try:
            path = f"/service/confirm/{quote(uuid, safe='')}?server={quote(self.name, safe='')}"
            return await self._call(path, holder)
        except BaseException as error:
            self._opening.discard(uuid)
            if not isinstance(error, OrionError) or isinstance(error, Unavailable):
                self.renew()  # perhaps it has confirmed and could not tell
            raise

    async def release(self, uuid: str) -> None:
        """Frees it; where that cannot be said now, the next registration says it."""
        before = self._nr_told
        for left in reversed(range(_RELEASE_TRIES)):
            try:
                await self._call(f"/service/release/{quote(uuid, safe='')}", {})
                break
            except NotFound:
                break
            except OrionError as error:
                if left == 0:
                    _log.warning("allocation %s could not be released: %s", uuid, error)
                    self.renew()
                else:
                    await asyncio.sleep(0.2)
        self._opening.discard(uuid)
        if self._registering or self._nr_told != before:
            self.renew()  # a registration of meanwhile tells of it, and may have come after the release

    async def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, headers={credential.HEADER: self._secret},
                                                  connector=aiohttp.TCPConnector(limit=0, force_close=True))
        try:
            async with self._session.post(self._url + path, json=body, ssl=self._tls or True) as answer:
                data, status = json.loads(await answer.read()), answer.status
        except (OSError, aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            raise Unavailable(
                f"the controller at {self._addr} does not answer ({words_of(error)})",
                hint="Start orion-controller, or correct [controller] controller_addr",
            ) from error
        data = data if isinstance(data, dict) else {}
        if status == 200:
            return data
        kind = _KINDS.get(status, Unavailable)
        raise kind(str(data.get("error", f"the controller answered {status}")), hint=str(data.get("hint", "")))


def trusting(tls_ca: str) -> ssl.SSLContext:
    """For whom a file of PEM certificates vouches. Raises ConfigError."""
    try:
        return ssl.create_default_context(cafile=tls_ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"[controller] tls_ca = {tls_ca!r} cannot be used: {error}", hint="A file of PEM certificates") from error
