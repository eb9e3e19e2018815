# SPDX-License-Identifier: Apache-2.0
"""Asks the controller for guests that no network joins to it: one question for an allocation, and its answer back."""

from __future__ import annotations

import asyncio
import logging
import re
import socket

from orion_virt import config

SECONDS = 10.0  # for all of it
_QUESTION_MAX, _ANSWER_MAX = 1024, 8192
# Nothing else of the controller's is a guest's business, and nothing of the guest's own headers is passed on.
_QUESTION = re.compile(rb"GET (/service\?[\w=&.-]+) HTTP/1\.[01]\r\n")

_log = logging.getLogger("orion.mailbox")


class Errands:
    """For the event loop."""

    def __init__(self, controller_addr: str) -> None:
        pair = config.split_addr(controller_addr, config.DEFAULT_CONTROLLER_PORT)
        assert pair is not None, "config has checked it"
        self._pair, self._addr = pair, controller_addr
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
            await asyncio.wait_for(self._answer(conn, domain), SECONDS)
        except (OSError, TimeoutError, asyncio.TimeoutError) as error:
            _log.info("domain %s: a question to the controller failed: %s", domain, error or "it took too long")
        finally:
            conn.close()

    async def _answer(self, conn: socket.socket, domain: str) -> None:
        loop = asyncio.get_running_loop()
        raw = b""
        while b"\r\n\r\n" not in raw and len(raw) < _QUESTION_MAX:
            piece = await loop.sock_recv(conn, _QUESTION_MAX)
            if not piece:
                return
            raw += piece
        found = _QUESTION.match(raw)
        if found is None:
            _log.warning("domain %s: something else than a question for an allocation came for the controller", domain)
            await loop.sock_sendall(conn, _refusal(403, "only allocations can be asked for through the mailbox"))
            return
        await loop.sock_sendall(conn, await self._ask(found[1]))

    async def _ask(self, path: bytes) -> bytes:
        try:
            reader, writer = await asyncio.open_connection(*self._pair)
        except OSError as error:
            return _refusal(503, f"oriond does not reach the controller at {self._addr} ({error.strerror}). On the host: "
                            "start orion-controller, or correct [controller] controller_addr in server.conf")
        try:
            writer.write(b"GET " + path + b" HTTP/1.0\r\nHost: orion\r\n\r\n")
            answer = b""
            while len(answer) < _ANSWER_MAX and (piece := await reader.read(_ANSWER_MAX)):
                answer += piece
            return answer
        finally:
            writer.close()


def _refusal(status: int, text: str) -> bytes:
    return f"HTTP/1.0 {status} Refused\r\n\r\n{text}\r\n".encode()
