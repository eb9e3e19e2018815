# SPDX-License-Identifier: Apache-2.0
"""A guest's question to the controller, put by oriond: what passes, what comes back, and what is said where nothing does."""

from __future__ import annotations

import asyncio
import socket

import pytest
from host import free_port

from orion_virt.server.errand import Errands

DOMAIN = "11111111-2222-3333-4444-555555555555"
QUESTION = b"GET /service?nvidia_vgpu=1&memory=64 HTTP/1.0\r\nHost: orion\r\nOrion-Credential: guessed\r\n\r\n"


def ask(question: bytes, answer: bytes = b"HTTP/1.0 200 OK\r\n\r\nan allocation", listens: bool = True) -> tuple[bytes, bytes]:
    """What comes back, and what the controller was told."""
    told = b""

    async def controller(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal told
        told = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def body() -> bytes:
        server = await asyncio.start_server(controller, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1] if listens else free_port()
        errands = Errands(f"127.0.0.1:{port}")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        errands.take(theirs, DOMAIN)
        loop, said = asyncio.get_running_loop(), b""
        with ours:
            for start in range(0, len(question), 50):  # as packets bring it
                await loop.sock_sendall(ours, question[start : start + 50])
                await asyncio.sleep(0)
            while piece := await loop.sock_recv(ours, 4096):
                said += piece
        await errands.stop()
        server.close()
        await server.wait_closed()
        return said

    return asyncio.run(asyncio.wait_for(body(), 20)), told


def test_an_allocation() -> None:
    said, told = ask(QUESTION)
    assert said == b"HTTP/1.0 200 OK\r\n\r\nan allocation"
    assert told == b"GET /service?nvidia_vgpu=1&memory=64 HTTP/1.0\r\nHost: orion\r\n\r\n"


def test_a_refusal_comes_back_as_it_is() -> None:
    refusal = b"HTTP/1.0 409 Conflict\r\n\r\nonly 2 vGPU are free"
    assert ask(QUESTION, refusal)[0] == refusal


def test_no_controller() -> None:
    said, _ = ask(QUESTION, listens=False)
    assert said.startswith(b"HTTP/1.0 503 ") and b"oriond does not reach the controller at 127.0.0.1:" in said
    assert b"start orion-controller" in said


@pytest.mark.parametrize("question", [b"GET /v1/service?x=1 HTTP/1.0\r\n\r\n", b"POST /service?x=1 HTTP/1.0\r\n\r\n", b"\r\n\r\n"])
def test_nothing_else_passes(question: bytes) -> None:
    said, told = ask(question)
    assert said.startswith(b"HTTP/1.0 403 ") and told == b""


def test_an_endless_answer_is_cut() -> None:
    assert len(ask(QUESTION, b"x" * 100000)[0]) < 3 * 8192
