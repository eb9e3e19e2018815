# SPDX-License-Identifier: Apache-2.0
"""Listens for guests and shakes hands. Nothing that a guest sends may cost more than its own connection."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import uuid as uuids
from dataclasses import replace
from typing import TypeVar

from orion_virt.config import join_addr
from orion_virt.errors import Forbidden, OrionError, ProtocolError, Unavailable
from orion_virt.region.regions import Region
from orion_virt.server import blocks, hello, ops
from orion_virt.server.channels import Channels
from orion_virt.server.usage import Usage

HANDSHAKE_SECONDS = 5.0  # for what the guest has to send
OPEN_SECONDS = 15.0  # for what we have to do
PER_PEER = 128  # handshakes at once
TOTAL = 512
_BACKLOG = 128

_log = logging.getLogger("orion.guests")
_Said = TypeVar("_Said", hello.Hello, hello.Asker)


class Guests:
    """For the event loop."""

    def __init__(self, port: int, channels: Channels, usage: Usage, snapshot: bytes, boot_id: bytes) -> None:
        self._port = port
        self._channels = channels
        self._usage = usage
        self._snapshot_hex = snapshot.hex()
        self._boot = str(uuids.UUID(bytes=boot_id))
        self._ops = ops.bitmap()
        self._listeners: dict[str, tuple[socket.socket, asyncio.Task[None]]] = {}
        self._handshakes: dict[asyncio.Task[None], str] = {}  # with the peer's address, oldest first

    # ---- listening ----

    def listen(self, ip: str) -> bool:
        """Accepts at this address; False when it does so already. Raises Unavailable."""
        if ip in self._listeners:
            return False
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((ip, self._port))
            sock.listen(_BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            raise self._cannot(ip, error) from error
        self._listeners[ip] = (sock, asyncio.create_task(self._accept_forever(sock), name=f"accept {ip}"))
        _log.info("listening on %s", join_addr(ip, self._port))
        return True

    def silence(self, ip: str) -> None:
        """Accepts no more at this address. Connections that were accepted go on, handshakes too."""
        sock, task = self._listeners.pop(ip)
        asyncio.get_running_loop().remove_reader(sock.fileno())  # before its number can be another file's
        task.cancel()
        sock.close()

    def _cannot(self, ip: str, error: OSError) -> Unavailable:
        hints = {
            errno.EADDRINUSE: "Is another oriond running? Choose another [server] listen_port",
            errno.EADDRNOTAVAIL: "This host does not have the address (now): start its network, or correct who names it "
            "([server] bind_addr, gateway= in a domain's metadata)",
        }
        return Unavailable(
            f"cannot listen on {join_addr(ip, self._port)}: {os.strerror(error.errno or 0)}",
            hint=hints.get(error.errno or 0, "Check [server] bind_addr and listen_port"),
        )

    def addresses(self) -> list[str]:
        """IP addresses, loopback last: nobody but this host reaches it."""
        return sorted(self._listeners, key=lambda ip: (ip.startswith("127.") or ip == "::1"))

    async def stop(self) -> None:
        for sock, task in self._listeners.values():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            sock.close()
        self._listeners.clear()
        handshakes = list(self._handshakes)
        for task in handshakes:
            task.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)

    async def _accept_forever(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                conn, address = await loop.sock_accept(sock)
            except OSError as error:  # out of descriptors: the queue of the kernel waits
                _log.error("cannot accept a connection: %s", error.strerror)
                await asyncio.sleep(1)
                continue
            conn.setblocking(False)
            self._begin(conn, str(address[0]))

    def take(self, conn: socket.socket, domain: str) -> None:
        """A connection that came through the mailbox of `domain`; it is ours now."""
        self._begin(conn, f"domain {domain}", domain)

    def _begin(self, conn: socket.socket, peer: str, domain: str = "") -> None:
        self._make_room(peer)
        task = asyncio.create_task(self._serve(conn, peer, domain))
        self._handshakes[task] = peer
        task.add_done_callback(lambda done: self._handshakes.pop(done, None))

    def _make_room(self, peer: str) -> None:
        """Cuts off the oldest handshake: one that is slow by intent never keeps an honest one out."""
        mine = [task for task, who in self._handshakes.items() if who == peer]
        if len(mine) >= PER_PEER:
            self._cut_off(mine[0])
        elif len(self._handshakes) >= TOTAL:
            self._cut_off(next(iter(self._handshakes)))

    def _cut_off(self, task: asyncio.Task[None]) -> None:
        self._handshakes.pop(task, None)
        task.cancel()

    # ---- one connection ----

    async def _serve(self, conn: socket.socket, peer: str, domain: str) -> None:
        handed_over = False
        try:
            handed_over = await self._shake_hands(conn, peer, domain)
        except (ProtocolError, TimeoutError, asyncio.TimeoutError) as error:
            self._channels.tally.refused(ProtocolError)
            _log.info("handshake of %s failed: %s", peer, error or "it took too long")
        except OSError as error:
            _log.debug("connection of %s broke: %s", peer, error)
        except Exception:
            # The outermost frame: whatever a guest provoked ends its connection alone.
            _log.exception("handshake of %s failed unexpectedly", peer)
        finally:
            if not handed_over:
                conn.close()

    async def _shake_hands(self, conn: socket.socket, peer: str, domain: str) -> bool:
        with contextlib.suppress(OSError):
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            first = await asyncio.wait_for(blocks.receive(conn), HANDSHAKE_SECONDS)
            if first is None:
                return False
            if first.verb == "INFO":
                await asyncio.wait_for(blocks.send(conn, "INFO", {"snapshot": self._snapshot_hex}), HANDSHAKE_SECONDS)
                return False
            if first.verb == "USAGE":
                await self._tell_usage(conn, peer, _of_mailbox(hello.parse_usage(first), domain))
                return False
            if first.verb != "HELLO":
                raise ProtocolError("the first block is none of INFO, HELLO, USAGE")
            said = _of_mailbox(replace(hello.parse(first), polled=bool(domain)), domain)
            region = await asyncio.wait_for(self._identify(conn, said), HANDSHAKE_SECONDS)
            return await asyncio.wait_for(self._welcome(conn, peer, said, region), OPEN_SECONDS)
        except OrionError as error:
            self._channels.tally.refused(type(error))
            _log.info("refused a client of %s: %s", peer, error)
            await asyncio.wait_for(self._refuse(conn, error), HANDSHAKE_SECONDS)
            return False

    async def _refuse(self, conn: socket.socket, error: OrionError) -> None:
        fields: dict[str, object] = {"code": error.code, "reason": error.message, "hint": error.hint}
        with contextlib.suppress(OSError):
            await blocks.send(conn, "REFUSED", fields)

    async def _tell_usage(self, conn: socket.socket, peer: str, asker: hello.Asker) -> None:
        await asyncio.wait_for(self._identify(conn, asker), HANDSHAKE_SECONDS)
        fields = await asyncio.wait_for(self._usage.answer(asker, peer), HANDSHAKE_SECONDS)
        await asyncio.wait_for(blocks.send(conn, "USAGE", fields), HANDSHAKE_SECONDS)

    async def _identify(self, conn: socket.socket, said: hello.Hello | hello.Asker) -> Region | None:
        """Challenge and answer: who has no access to the region's memory does not get past this."""
        region = self._channels.region_of(said)
        nonce = os.urandom(16)
        await blocks.send(conn, "CHALLENGE", {"nonce": nonce.hex()})
        answer = await blocks.receive(conn)
        if answer is None or answer.verb != "AUTH":
            raise ProtocolError("AUTH was expected")
        if region is not None:
            region = self._channels.region_of(said)  # it may have changed while we waited
            assert region is not None and region.identity is not None
            if not hello.is_proven(answer.get("hmac"), region.identity.token, nonce, said):
                raise Forbidden("the proof does not match the region", hint="Start the program again")
            self._channels.proven(region)
        return region

    async def _welcome(self, conn: socket.socket, peer: str, said: hello.Hello, region: Region | None) -> bool:
        channel = await self._channels.open(said, region, conn, peer)
        fields: dict[str, object] = {
            "channel": channel.id,
            "block": channel.memory.block if channel.memory else 0,
            "ops": self._ops,
            "boot": self._boot,
            "devices": len(channel.allocation["vgpus"]),
        }
        for index, vgpu in enumerate(channel.allocation["vgpus"]):
            fields[f"device.{index}"] = f"{vgpu['card']},{vgpu['memory_bytes']}"
        if channel.bell is not None:
            fields["doorbell"] = channel.bell.value
        try:
            await blocks.send(conn, "WELCOME", fields)
            self._channels.hand_over(channel)
        except (OSError, OrionError, asyncio.CancelledError):
            channel.stop("the client left before its worker had started")
            channel.worker.kill()
        return True  # the channel owns the connection now


def _of_mailbox(said: _Said, domain: str) -> _Said:
    """A domain's mailbox carries that domain's own processes, over its own region."""
    if domain and not (said.shared and said.domain == domain):
        raise Forbidden("this is the mailbox of another domain", hint="Start the program again")
    return said
