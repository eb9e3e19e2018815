# SPDX-License-Identifier: Apache-2.0
"""One guest process: its worker, its extents, its allocation, from WELCOME until everything is given back."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orion_virt import layout
from orion_virt.errors import Conflict, NotFound, OrionError, ProtocolError, QuotaExceeded, Unavailable
from orion_virt.server.doorbells import Bell
from orion_virt.server.groups import Seat
from orion_virt.server.hello import Hello
from orion_virt.server.memory import Memory
from orion_virt.server.pages import KEY_BYTES, Pages
from orion_virt.server.rate import Rate
from orion_virt.server.shares import Shares
from orion_virt.server.turns import CardTurns
from orion_virt.server.workers import Worker, words

STOP_SECONDS = 0.8  # a worker that has not ended by itself so long after its client is killed
NOTICE_SECONDS = 0.5  # a guest whose worker has died takes what it registered out of the region in this time
_CONTROL_BYTES = layout.ctypes.sizeof(layout.Control)
_TEXT = layout.Control.text.offset
_DRIVER_MEMORY = {1: "measured", 2: "estimated"}  # OH_USAGE's status

_log = logging.getLogger("orion.channel")


def _kernel(message: layout.Control) -> dict[str, Any] | None:
    """A worker's word on its longest kernel, for people: how many of its blocks are done, and seconds; None: none runs long."""
    if not message.b or message.a > message.b:
        return None
    name = "".join(c if c.isprintable() else "?" for c in message.text.decode("utf-8", "replace"))
    return {"name": name, "blocks_done": message.a, "blocks": message.b, "seconds": max(message.status, 0)}


@dataclass
class Channel:
    """Public fields are read-only for others."""

    id: int
    hello: Hello
    peer: str
    allocation: dict[str, Any]
    worker: Worker
    conn: socket.socket  # ours is watched for hang-up only
    memory: Memory | None
    shares: Shares
    pages: Pages
    turns: CardTurns
    on_gone: Callable[[Channel], None]
    bell: Bell | None = None  # what the guest rings instead of sending a byte
    owner: str = ""  # the domain whose ceilings count; over TCP known by its NIC
    seat: Seat | None = None  # in the group that shares the allocation
    log: str = ""  # its path, of a channel that is resumed
    is_kept: bool = False  # the next daemon finds it
    is_resumed: bool = False  # an earlier daemon began it: its worker may speak of what only that one knew
    ratio: int = 0  # percent of a card's time for each vGPU; 0: the default
    opened_at: float = field(default_factory=time.monotonic)
    closed: int = 0
    reason: str = ""
    usage: dict[int, int] = field(default_factory=dict)
    driver_memory: str = "unknown"  # how the worker knows what the driver takes for itself
    rate: Rate = field(default_factory=Rate)
    gpu_seconds: dict[int, float] = field(default_factory=dict)  # of each card; server/usage.py adds to it
    kernel: dict[str, Any] | None = None  # that runs long, where the driver tells
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _killer: asyncio.TimerHandle | None = None
    _guest_gone: bool = False

    @property
    def domain(self) -> str:
        return self.hello.domain

    @property
    def proven_domain(self) -> str:
        return self.hello.domain if self.hello.shared else ""

    @property
    def is_ending(self) -> bool:
        return bool(self.closed) or self._killer is not None

    def begin(self) -> None:
        """Reads the worker's datagrams from now on."""
        asyncio.get_running_loop().add_reader(self.worker.control.fileno(), self._readable)

    # ---- datagrams of the worker ----

    def _readable(self) -> None:
        fds: list[int] = []
        try:
            raw, fds, _, _ = socket.recv_fds(self.worker.control, _CONTROL_BYTES + 1, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            raw = b""
        if not raw:  # the worker is ending; its pidfd tells the rest
            asyncio.get_running_loop().remove_reader(self.worker.control.fileno())
            self.kill_soon()
            return
        self.heard(raw, fds)

    def heard(self, raw: bytes, fds: list[int]) -> None:
        """Acts on a datagram of the worker's; takes its descriptors over."""
        message = layout.Control.from_buffer_copy(raw) if len(raw) == _CONTROL_BYTES else None
        if message is not None and message.kind == layout.SHARE:
            self._share(message, raw[_TEXT : _TEXT + layout.TOKEN_BYTES], fds)
            return
        for fd in fds:
            os.close(fd)
        if message is None or fds:
            self._distrust(f"a datagram of {len(raw)} bytes with {len(fds)} descriptors")
            return
        self._handle(message, raw[_TEXT : _TEXT + layout.TOKEN_BYTES])

    def _handle(self, message: layout.Control, token: bytes = b"") -> None:
        if message.kind == layout.GRANT:
            self._spawn(self._grant(message.a))
        elif message.kind == layout.RELEASE:
            self._spawn(self._release(message.a, message.b))
        elif message.kind == layout.CLOSED:
            self._closed_by_worker(message.a, message.text.decode("utf-8", "replace"))
        elif message.kind == layout.USAGE and message.a < len(self.allocation["vgpus"]):
            self.usage[message.a] = message.b
            self.driver_memory = _DRIVER_MEMORY.get(message.status, "unknown")
        elif message.kind == layout.PROGRESS:
            self.rate.note(message.a, message.b)
        elif message.kind == layout.KERNEL:
            self.kernel = _kernel(message)
        elif message.kind == layout.OPEN:
            self._open(message.a, token)
        elif message.kind == layout.UNSHARE:
            self._unshare(token)
        elif message.kind == layout.PAGES:
            self._spawn(self._pages(message.a, token[:KEY_BYTES]))
        elif message.kind in (layout.PAGES_FILLED, layout.PAGES_END):
            self._spawn(self._pages_word(message.kind, message.a))
        elif message.kind in (layout.TURN_WANT, layout.TURN_DONE):
            self._word_of_turn(message.kind, message.a)
        else:
            self._distrust(f"a datagram of kind {message.kind}")

    # ---- turns on a card ----

    def _word_of_turn(self, kind: int, device: int) -> None:
        try:
            (self.turns.want if kind == layout.TURN_WANT else self.turns.done)(self.id, device)
        except ProtocolError as error:
            self._distrust(str(error))

    def turn(self, device: int, begin: bool, shared: bool) -> None:
        """As turns.Holder."""
        self._tell(layout.Control(kind=layout.TURN, a=device, b=(2 if shared else 1) if begin else 0))

    # ---- what processes of the domain show each other ----

    def _share(self, message: layout.Control, handle: bytes, fds: list[int]) -> None:
        status, token = 0, bytes(layout.TOKEN_BYTES)
        try:
            token = self.shares.add(self, message.a, handle, fds[0] if fds else -1, message.b)
        except ProtocolError as error:
            self._distrust(str(error))
            return
        except QuotaExceeded as error:
            status = -errno.ENOSPC
            _log.warning("%s", error)
        self._answer(layout.SHARE, status, token)

    def _open(self, kind: int, token: bytes) -> None:
        try:
            share = self.shares.open(self, kind, token)
        except NotFound:
            self._answer(layout.OPEN, -errno.ENOENT)
            return
        self.turns.together(self.id, share.maker)
        self._answer(layout.OPEN, 0, share.handle, share.n_bytes, share.fd)

    def _unshare(self, token: bytes) -> None:
        try:
            self.shares.leave(self, token)
        except ProtocolError as error:
            if self._doubts(error):
                return
        self._answer(layout.UNSHARE, 0)

    async def _pages(self, n_bytes: int, key: bytes) -> None:
        answer = layout.Control(kind=layout.PAGES)
        try:
            if self.memory is None:
                raise ProtocolError("pages to share, of a client without a region")
            piece, fill = await self.pages.take(self.memory.region, self.id, key, n_bytes)
            answer.a, answer.b, answer.status = piece.off, piece.got, int(fill)
            for other in piece.holders - {self.id}:
                self.turns.together(self.id, other)
        except ProtocolError as error:
            self._distrust(str(error))
            return
        except Conflict:
            answer.status = -errno.EEXIST
        except Unavailable:
            answer.status = -errno.EAGAIN
        except OrionError as error:
            answer.status = -errno.ENOMEM
            _log.warning("channel %d: %s", self.id, error)
        self._tell(answer)

    async def _pages_word(self, kind: int, off: int) -> None:
        try:
            if kind == layout.PAGES_FILLED:
                self.pages.filled(self.id, off)
            else:
                await self.pages.leave(self.id, off)
        except ProtocolError as error:
            if self._doubts(error):
                return
        self._answer(kind, 0)

    def own(self, token: bytes) -> None:
        """The memory behind a token is this worker's to book from now on."""
        self._answer(layout.OWN, 0, token)

    def _answer(self, kind: int, status: int, text: bytes = b"", n_bytes: int = 0, fd: int = -1) -> None:
        raw = bytearray(bytes(layout.Control(kind=kind, status=status, b=n_bytes)))
        raw[_TEXT : _TEXT + len(text)] = text
        with contextlib.suppress(OSError):  # as in _tell
            if fd < 0:
                self.worker.control.send(raw)
            else:
                socket.send_fds(self.worker.control, [raw], [fd])

    def _closed_by_worker(self, why: int, text: str) -> None:
        if not self.closed:  # else it only repeats what we told it
            self.closed = why if why and why in layout.CLOSE_WORDS else layout.CLOSED_WORKER
            self.reason = "".join(c if c.isprintable() else "?" for c in text)
        self.kill_soon()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _grant(self, n_bytes: int) -> None:
        answer = layout.Control(kind=layout.GRANT)
        try:
            if self.memory is None:
                answer.status = -errno.ENXIO
            else:
                answer.a, answer.b = await self.memory.grant(n_bytes)
        except OrionError as error:
            answer.status = -errno.ENOMEM
            _log.warning("channel %d: %s", self.id, error)
        self._tell(answer)

    async def _release(self, off: int, n_bytes: int) -> None:
        try:
            if self.memory is not None:
                await self.memory.release(off, n_bytes)
        except ProtocolError as error:
            self._doubts(error)

    def _tell(self, message: layout.Control) -> None:
        with contextlib.suppress(OSError):  # a worker that does not read or is gone loses its answer
            self.worker.control.send(bytes(message))

    def _doubts(self, error: ProtocolError) -> bool:
        """A worker lets go what it has not: an error, but of one that an earlier daemon may have granted it."""
        if not self.is_resumed:
            self._distrust(str(error))
        return not self.is_resumed

    def _distrust(self, what: str) -> None:
        _log.error("channel %d: worker %d sent %s and is killed", self.id, self.worker.pid, what)
        self.closed, self.reason = layout.CLOSED_WORKER, f"the worker sent {what}"
        self.worker.kill()

    # ---- the end ----

    def stop(self, reason: str) -> None:
        """Asks the worker to end, and sees to it."""
        self.closed, self.reason = self.closed or layout.CLOSED_SERVER, self.reason or reason
        self._tell(layout.Control(kind=layout.STOP, a=layout.CLOSED_SERVER, text=reason.encode()[:231]))
        self.kill_soon()

    def abandon(self, reason: str) -> None:
        """The guest is no more: nobody has to be told, so the worker is killed at once."""
        self.closed, self.reason, self._guest_gone = self.closed or layout.CLOSED_SERVER, self.reason or reason, True
        self.worker.kill()

    def client_gone(self) -> None:
        """Its connection has ended. A worker whose client came through the mailbox does not see why: it is told."""
        if self.hello.polled:
            self._tell(layout.Control(kind=layout.STOP, a=layout.CLOSED_BY_GUEST))
        self.kill_soon()

    def connect(self, conn: socket.socket) -> None:
        """Another connection to the same client, in place of one that ended with an earlier daemon."""
        with contextlib.suppress(OSError):
            socket.send_fds(self.worker.control, [bytes(layout.Control(kind=layout.CLIENT))], [conn.fileno()])
        self.conn = conn

    async def let_go(self) -> None:
        """This daemon ends; worker and client go on, and the next daemon takes them up."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # who waits for an answer gets it
        loop.remove_reader(self.worker.control.fileno())
        loop.remove_reader(self.worker.pidfd)
        self.worker.let_go()
        self.conn.close()
        if self.memory is not None:
            self.memory.let_go()
        if self.bell is not None:
            self.bell.close()

    def kill_soon(self) -> None:
        """Kills the worker unless it ends by itself within STOP_SECONDS."""
        if self._killer is None and not self.ended.is_set():
            self._killer = asyncio.get_running_loop().call_later(STOP_SECONDS, self.worker.kill)

    def worker_ended(self) -> None:
        """The process is gone: closes what it had, then gives back extents and allocation."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.worker.pidfd)
        self._drain()
        loop.remove_reader(self.worker.control.fileno())
        if self._killer is not None:
            self._killer.cancel()
        status = self.worker.close()
        self.conn.close()
        if self.bell is not None:
            self.bell.close()
        self.shares.gone(self)
        if not self.closed:
            self.closed = layout.CLOSED_BY_GUEST if status == 0 else layout.CLOSED_WORKER
        if status not in (0, *layout.CLOSE_WORDS) and (status is not None or self.closed == layout.CLOSED_WORKER):
            self.reason = self.reason or words(status)
        self._spawn(self._finish())

    def _drain(self) -> None:
        """What the worker said last: why it ended, and how far it came."""
        while True:
            try:
                raw = self.worker.control.recv(_CONTROL_BYTES + 1)
            except OSError:
                return
            if not raw:
                return
            if len(raw) == _CONTROL_BYTES:
                message = layout.Control.from_buffer_copy(raw)
                if message.kind in (layout.CLOSED, layout.PROGRESS):
                    self._handle(message)

    async def _finish(self) -> None:
        mine = asyncio.current_task()
        await asyncio.gather(*(task for task in self._tasks if task is not mine), return_exceptions=True)
        await self.pages.gone(self.id)
        if self.memory is not None:
            if self.closed in (layout.CLOSED_WORKER, layout.CLOSED_SERVER, layout.CLOSED_LIMIT) and not self._guest_gone:
                await asyncio.sleep(NOTICE_SECONDS)
            await self.memory.close()
        self.on_gone(self)

    def describe(self) -> dict[str, Any]:
        """For people."""
        return {
            "channel": self.id,
            "domain": self.domain or self.owner,
            "transport": "shm" if self.hello.shared else "tcp",
            "doorbell": self.bell is not None,
            "mailbox": self.hello.polled,
            "pid": self.hello.pid,
            "comm": self.hello.comm,
            "build": self.hello.build,
            "peer": self.peer,
            "allocation": self.allocation["uuid"],
            "worker": self.worker.pid,
            "devices": [
                {"gpu": v["card"], "memory_bytes": v["memory_bytes"], "used_bytes": self.usage.get(i, 0)}
                for i, v in enumerate(self.allocation["vgpus"])
            ],
            "driver_memory": self.driver_memory,
            **self.rate.describe(),
            "kernel": self.kernel,
            "seconds": round(time.monotonic() - self.opened_at, 1),
        }
