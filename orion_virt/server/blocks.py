# SPDX-License-Identifier: Apache-2.0
"""The handshake's blocks of text: a first line, `key: value` lines, an empty line. Input is hostile."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

from orion_virt.errors import ProtocolError

MAX_BYTES = 16 << 10
_FIRST = "ORION/1 "
_MAX_FIELDS = 256


@dataclass(frozen=True)
class Block:
    """`raw` is the whole text with its empty line: what an HMAC covers."""

    verb: str
    fields: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""

    def get(self, key: str) -> str:
        """Raises ProtocolError when the key is absent."""
        try:
            return self.fields[key]
        except KeyError:
            raise ProtocolError(f"{self.verb} lacks {key!r}") from None

    def number(self, key: str, base: int = 10) -> int:
        """A whole number below 2^64."""
        text = self.get(key)
        try:
            value = int(text, base)
        except ValueError:
            value = -1
        if len(text) > 24 or not 0 <= value < 1 << 64:
            raise ProtocolError(f"{key} is not a number of 64 bits")
        return value


def parse(raw: bytes) -> Block:
    """Raises ProtocolError for anything but a well-formed block."""
    if not raw.endswith(b"\n\n") or not raw.isascii():
        raise ProtocolError("the block is not text that ends with an empty line")
    first, *lines = raw[:-2].decode("ascii").split("\n")
    if not first.startswith(_FIRST):
        raise ProtocolError("this is not the orion protocol, version 1")
    if len(lines) > _MAX_FIELDS:
        raise ProtocolError("the block has too many lines")
    fields: dict[str, str] = {}
    for line in lines:
        key, colon, value = line.partition(":")
        if not colon or not key or key in fields or not line.isprintable():
            raise ProtocolError("a line of the block is not `key: value`, or a key comes twice")
        fields[key] = value.strip(" ")
    return Block(first[len(_FIRST) :], fields, raw)


def build(verb: str, fields: dict[str, object]) -> bytes:
    """The text of a block; values must hold no line feed."""
    lines = [f"{_FIRST}{verb}"]
    for key, value in fields.items():
        text = str(value).replace("\n", " ").replace("\r", " ").encode("ascii", "replace").decode()
        lines.append(f"{key}: {text}")
    return ("\n".join(lines) + "\n\n").encode()


async def receive(conn: socket.socket) -> Block | None:
    """Reads exactly one block; None at an immediate end of file. The caller sets the time limit."""
    loop = asyncio.get_running_loop()
    raw = b""
    while not raw.endswith(b"\n\n"):
        piece = await loop.sock_recv(conn, MAX_BYTES + 1 - len(raw))
        if not piece:
            if raw:
                raise ProtocolError("the connection ended inside a block")
            return None
        raw += piece
        if len(raw) > MAX_BYTES:
            raise ProtocolError(f"the block is longer than {MAX_BYTES} bytes")
        if b"\n\n" in raw[:-2]:
            raise ProtocolError("bytes follow the block before its answer")
    return parse(raw)


async def send(conn: socket.socket, verb: str, fields: dict[str, object]) -> None:
    await asyncio.get_running_loop().sock_sendall(conn, build(verb, fields))
