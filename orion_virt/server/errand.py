# SPDX-License-Identifier: Apache-2.0
"""Asks the controller for guests that no network joins to it: one question for an allocation, and its answer back."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from urllib.parse import parse_qsl, urlencode

from orion_virt import config, credential
from orion_virt.errors import words_of
from orion_virt.server.accounts import trusting

SECONDS = 10.0  # for all of it, and as long as the guest lets itself be made to wait
_WAIT_MAX_SECONDS = 86400
_QUESTION_MAX, _ANSWER_MAX = 1024, 8192
# Nothing else of the controller's is a guest's business, and nothing of the guest's own headers is passed on.
_QUESTION = re.compile(rb"GET /service\?([\w=&.-]+) HTTP/1\.[01]\r\n")

_log = logging.getLogger("orion.mailbox")


class Errands:
    """For the event loop."""

    def __init__(self, controller_addr: str, secret: str, tls_ca: str = "") -> None:
        """``secret``: the server credential, with which we may say whose question it is. Raises ConfigError."""
        pair = config.split_addr(controller_addr, config.DEFAULT_CONTROLLER_PORT)
        assert pair is not None, "config has checked it"
        self._pair, self._addr = pair, controller_addr
        self._secret, self._tls = secret, trusting(tls_ca) if tls_ca else None
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, conn: socket.socket, domain: str) -> None:
        """Answers the question that comes through `conn`, which is ours now."""
        task = asyncio.create_task(self._serve(conn, domain))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, conn: socket.socket, domain: str) -> None:
        try:
            query = await asyncio.wait_for(self._question(conn, domain), SECONDS)
            if query is not None:
                await self._answer(conn, query)
        except (OSError, TimeoutError, asyncio.TimeoutError) as error:
            _log.info("domain %s: a question to the controller failed: %s", domain, error or "it took too long")
        finally:
            conn.close()

    async def _question(self, conn: socket.socket, domain: str) -> dict[str, str] | None:
        """What is asked, in the name of the domain whatever it says itself; None where nothing may be."""
        loop = asyncio.get_running_loop()
        raw = b""
        while b"\r\n\r\n" not in raw and len(raw) < _QUESTION_MAX:
            piece = await loop.sock_recv(conn, _QUESTION_MAX)
            if not piece:
                return None
            raw += piece
        found = _QUESTION.match(raw)
        if found is None:
            _log.warning("domain %s: something else than a question for an allocation came for the controller", domain)
            await loop.sock_sendall(conn, _refusal(403, "only allocations can be asked for through the mailbox"))
            return None
        return dict(parse_qsl(found[1].decode())) | {"domain": domain}

    async def _answer(self, conn: socket.socket, query: dict[str, str]) -> None:
        """A guest that goes away gives its place in the queue up: the controller sees our connection end."""
        said = query.get("wait", "")
        wait = min(int(said), _WAIT_MAX_SECONDS) if re.fullmatch("[0-9]{1,9}", said) else 0
        asking = asyncio.create_task(self._ask(query))
        gone = asyncio.create_task(_hang_up(conn))
        try:
            await asyncio.wait({asking, gone}, timeout=SECONDS + wait, return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(conn, asking.result()), SECONDS)
            elif not gone.done():
                raise TimeoutError
        finally:
            asking.cancel()
            gone.cancel()
            await asyncio.gather(asking, gone, return_exceptions=True)

    async def _ask(self, query: dict[str, str]) -> bytes:
        try:
            reader, writer = await asyncio.open_connection(*self._pair, ssl=self._tls)
        except OSError as error:
            return _refusal(503, f"oriond does not reach the controller at {self._addr} ({words_of(error)}). On the host: "
                            "start orion-controller, or correct [controller] controller_addr in server.conf")
        try:
            writer.write(f"GET /service?{urlencode(query)} HTTP/1.0\r\nHost: orion\r\n"
                         f"{credential.HEADER}: {self._secret}\r\n\r\n".encode())
            answer = b""
            while len(answer) < _ANSWER_MAX and (piece := await reader.read(_ANSWER_MAX)):
                answer += piece
            return answer
        finally:
            writer.close()


async def _hang_up(conn: socket.socket) -> None:
    """Returns when the guest has closed its end."""
    while await asyncio.get_running_loop().sock_recv(conn, _QUESTION_MAX):
        pass


def _refusal(status: int, text: str) -> bytes:
    return f"HTTP/1.0 {status} Refused\r\n\r\n{text}\r\n".encode()
