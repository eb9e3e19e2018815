# SPDX-License-Identifier: Apache-2.0
"""Our side of the controller: registration, heartbeat, confirmation and release."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from orion_virt import config, credential
from orion_virt.errors import Conflict, NotFound, OrionError, Unavailable

BEAT_SECONDS = 5.0
_CALL_SECONDS = 5.0
_RELEASE_TRIES = 3

_log = logging.getLogger("orion.accounts")


class Accounts:
    """All methods are for the event loop; the HTTP runs in threads."""

    def __init__(self, addr: str, secret: str, describe: Callable[[], dict[str, Any]]) -> None:
        """`describe` gives the body of a registration, live allocations included."""
        pair = config.split_addr(addr, config.DEFAULT_CONTROLLER_PORT)
        assert pair is not None, "config has checked it"
        self._host, self._port = pair
        self._addr = addr
        self._secret = secret
        self._describe = describe
        self._registered = False
        self._told = False
        self._task: asyncio.Task[None] | None = None
        self._again = asyncio.Event()

    @property
    def is_registered(self) -> bool:
        return self._registered

    @property
    def name(self) -> str:
        return str(self._describe()["name"])

    def start(self) -> None:
        self._task = asyncio.create_task(self._beat_forever(), name="heartbeat")

    def renew(self) -> None:
        """Registers again soon: our addresses changed."""
        self._registered = False
        self._again.set()

    async def stop(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._registered:
            with contextlib.suppress(OrionError):
                await self._call("POST", f"/v1/heartbeat/{quote(self.name, safe='')}?status=off", {})

    async def _beat_forever(self) -> None:
        while True:
            await self._beat()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._again.wait(), BEAT_SECONDS)
            self._again.clear()

    async def _beat(self) -> None:
        try:
            if self._registered:
                await self._heartbeat("continue")
            else:
                await self._heartbeat("on")
                self._registered, self._told = True, False
                _log.info("registered with the controller at %s", self._addr)
        except NotFound:
            self._registered = False
            self._again.set()  # it was restarted: tell it of everything at once
        except OrionError as error:
            self._registered = False
            if not self._told:
                _log.warning("%s", error)
            self._told = True

    async def _heartbeat(self, status: str) -> None:
        path = f"/v1/heartbeat/{quote(self.name, safe='')}?res=nvidia_cuda&status={status}"
        await self._call("POST", path, self._describe())

    async def confirm(self, uuid: str) -> dict[str, Any]:
        """The allocation, now ours to serve. Raises NotFound, Conflict, Unavailable."""
        path = f"/v1/service/confirm/{quote(uuid, safe='')}?server={quote(self.name, safe='')}"
        return await self._call("POST", path, {})

    async def release(self, uuid: str) -> None:
        """Frees it; a controller that is gone frees it when it misses us."""
        for left in reversed(range(_RELEASE_TRIES)):
            try:
                await self._call("POST", f"/v1/service/release/{quote(uuid, safe='')}", {})
                return
            except NotFound:
                return
            except OrionError as error:
                if left == 0:
                    _log.warning("allocation %s could not be released: %s", uuid, error)
                else:
                    await asyncio.sleep(0.2)

    async def _call(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        status, data = await asyncio.to_thread(self._call_blocking, method, path, json.dumps(body))
        if status == 200:
            return data
        kind = {404: NotFound, 409: Conflict}.get(status, Unavailable)
        raise kind(str(data.get("error", f"the controller answered {status}")), hint=str(data.get("hint", "")))

    def _call_blocking(self, method: str, path: str, body: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_CALL_SECONDS)
        try:
            connection.request(method, path, body, {credential.HEADER: self._secret, "Connection": "close"})
            answer = connection.getresponse()
            data = json.loads(answer.read(1 << 20))
            return answer.status, data if isinstance(data, dict) else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unavailable(
                f"the controller at {self._addr} does not answer ({error})",
                hint="Start orion-controller, or correct [controller] controller_addr",
            ) from error
        finally:
            connection.close()
