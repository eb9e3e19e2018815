# SPDX-License-Identifier: Apache-2.0
"""The state that the controllers of a pool of hosts share, in etcd (3.4 or newer), through its JSON gateway.

A life is a lease. One key, the guard, is written by every change and compared by the next: whoever decided from less
than the newest state changes nothing. Its value names the change, so that one whose answer got lost is recognized.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import ssl
import uuid as uuids
from collections.abc import Sequence
from typing import Any

import aiohttp

from orion_virt.controller import crash
from orion_virt.controller.store import SECONDS, Changes, Entry, Seen
from orion_virt.errors import OrionError, Unavailable, words_of

_CALL_SECONDS = 3
_AGAIN_SECONDS = 0.5
_REVISION = ""  # in Seen.hidden, beside the leases of lives
_NOT_FOUND = 5  # gRPC
_log = logging.getLogger("orion.controller")


class _Refused(OrionError):
    """etcd understood and refused; `code` is gRPC's."""


class EtcdStore:
    """See store.Store."""

    is_shared = True

    def __init__(self, endpoints: Sequence[str], prefix: str = "/orion/", tls: ssl.SSLContext | None = None) -> None:
        """``endpoints``: URLs of members, of which any will do."""
        self._endpoints = list(endpoints)
        self._prefix = prefix
        self._tls: ssl.SSLContext | bool = tls or True
        self._all = {"key": _coded(prefix), "range_end": _coded(prefix[:-1] + chr(ord(prefix[-1]) + 1))}
        self._guard = _coded(f"{prefix}guard")
        self._leases: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    # ---- store.Store ----

    async def read(self) -> Seen:
        answer = await self._post("kv/range", self._all)
        hidden, entries, version = {_REVISION: str(answer["header"]["revision"])}, {}, 0
        for item in answer.get("kvs", []):
            if item["key"] == self._guard:
                version = int(item["mod_revision"])
                continue
            raw = json.loads(base64.b64decode(item["value"]))
            entries[base64.b64decode(item["key"]).decode()[len(self._prefix):]] = Entry(raw["value"], raw["life"])
            if raw["life"]:
                hidden[raw["life"]] = str(item.get("lease", "0"))
        self._leases = {life: lease for life, lease in hidden.items() if life}
        return Seen(version, entries, hidden)

    async def write(self, seen: Seen, changes: Changes, label: str) -> bool:
        name = uuids.uuid4().hex
        leases = dict(seen.hidden)
        for life in {entry.life for entry in changes.values() if entry is not None and entry.life} - leases.keys():
            leases[life] = await self._new_lease(life)
        steps = [self._step(key, entry, leases) for key, entry in changes.items()]
        crash.point(label, "begun")
        try:
            answer = await self._post("kv/txn", {
                "compare": [{"key": self._guard, "target": "MOD", "result": "EQUAL", "mod_revision": str(seen.version)}],
                "success": [*steps, {"requestPut": {"key": self._guard, "value": _coded(name)}}],
                "failure": [{"requestRange": {"key": self._guard}}],
            })
        except _Refused as error:
            if error.code == _NOT_FOUND:
                return False  # a lease has ended since we looked
            raise
        if not answer.get("succeeded") and not _is_guarded_by(answer, name):
            return False
        self._leases |= {life: lease for life, lease in leases.items() if life}
        return True

    def _step(self, key: str, entry: Entry | None, leases: dict[str, str]) -> dict[str, Any]:
        coded = _coded(self._prefix + key)
        if entry is None:
            return {"requestDeleteRange": {"key": coded}}
        value = _coded(json.dumps({"value": entry.value, "life": entry.life}))
        return {"requestPut": {"key": coded, "value": value, "lease": leases[entry.life] if entry.life else "0"}}

    async def renew(self, life: str) -> bool:
        lease = self._leases.get(life)
        if lease is None:
            await self.read()
            lease = self._leases.get(life)
        if lease is None:
            return False
        answer = await self._post("lease/keepalive", {"ID": lease})
        return int(answer.get("result", {}).get("TTL", 0)) > 0

    async def changed(self, seen: Seen, seconds: float) -> None:
        watch = {"create_request": self._all | {"start_revision": str(int(seen.hidden[_REVISION]) + 1)}}
        with contextlib.suppress(asyncio.TimeoutError):
            try:
                await asyncio.wait_for(self._first_event(watch), seconds)
            except (OSError, aiohttp.ClientError, ValueError):
                self._next_member()
                await asyncio.sleep(min(seconds, _AGAIN_SECONDS))

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    # ---- the gateway ----

    async def _new_lease(self, life: str) -> str:
        answer = await self._post("lease/grant", {"TTL": str(SECONDS[life.split("/", 1)[0]])})
        return str(answer["ID"])

    async def _first_event(self, watch: dict[str, Any]) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_SECONDS)
        async with self._client().post(self._url("watch"), json=watch, ssl=self._tls, timeout=timeout) as answer:
            async for line in answer.content:
                result = json.loads(line).get("result", {})
                if result.get("events") or result.get("canceled"):
                    return
        raise aiohttp.ClientPayloadError("etcd closed the watch")

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Asks one member after the other. Raises Unavailable, or _Refused."""
        why: list[str] = []
        for _ in self._endpoints:
            try:
                async with self._client().post(self._url(path), json=body, ssl=self._tls) as answer:
                    data = json.loads(await answer.read())
                if answer.status == 200 and "error" not in data:
                    return dict(data)
                if data.get("code") == _NOT_FOUND:
                    raise _Refused(str(data.get("message", data.get("error"))), code=_NOT_FOUND)
                why.append(f"{self._endpoints[0]}: {data.get('message') or data.get('error') or answer.status}")
            except (OSError, aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
                why.append(f"{self._endpoints[0]}: {words_of(error)}")
            self._next_member()
        raise Unavailable(f"etcd, which holds the controller's state, does not answer ({'; '.join(why)})",
                          hint="Start it, or correct [store] etcd in controller.conf")

    def _url(self, path: str) -> str:
        return f"{self._endpoints[0]}/v3/{path}"

    def _next_member(self) -> None:
        self._endpoints.append(self._endpoints.pop(0))

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CALL_SECONDS))
        return self._session


def _is_guarded_by(answer: dict[str, Any], name: str) -> bool:
    """The change was made before, and only the answer to it was lost."""
    found = [kv for response in answer.get("responses", []) for kv in response.get("response_range", {}).get("kvs", [])]
    return any(kv["value"] == _coded(name) for kv in found)


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
