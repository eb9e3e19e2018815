# SPDX-License-Identifier: Apache-2.0
"""Meets a worker that an earlier daemon began, and hears what it has; or ends it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from orion_virt import layout
from orion_virt.errors import ProtocolError, Unavailable
from orion_virt.server.keeping import Keeping, Kept, started
from orion_virt.server.workers import Worker

MEET_SECONDS = 5.0
END_SECONDS = 0.8  # for a worker that is told to end, before it is killed
_AGAIN_SECONDS = 0.05
_CONTROL_BYTES = layout.ctypes.sizeof(layout.Control)
_HAVE = range(layout.HAVE_CLIENT, layout.HAVE_SHARE + 1)


class Gone(Exception):
    """The worker has ended while no daemon was there, by itself or with its client."""


@dataclass
class Heard:
    """What a worker has. Descriptors are ours until they are taken out; `later`: what it said besides, to be handled once
    its channel is there."""

    worker: Worker
    client: int = -1
    group: int = -1
    extents: list[tuple[int, int]] = field(default_factory=list)
    pages: list[bytes] = field(default_factory=list)
    shares: list[tuple[bytes, int]] = field(default_factory=list)
    later: list[tuple[bytes, list[int]]] = field(default_factory=list)

    def close(self) -> None:
        """What was not taken over."""
        left = [self.client, self.group, *(fd for _, fd in self.shares), *(fd for _, fds in self.later for fd in fds)]
        for fd in left:
            if fd >= 0:
                os.close(fd)
        self.client = self.group = -1
        self.shares, self.later = [], []

    def note(self, raw: bytes, fds: list[int]) -> bool:
        """False at the end. Raises ProtocolError."""
        kind = int.from_bytes(raw[:4], "little")
        if kind not in _HAVE and kind != layout.RESUME:
            self.later.append((raw, fds))
            return True
        takes = {layout.HAVE_CLIENT: self.client < 0, layout.HAVE_GROUP: self.group < 0, layout.HAVE_SHARE: True}
        if len(raw) != _CONTROL_BYTES or len(fds) > takes.get(kind, False):
            self.later.append((raw, fds))  # closed with it
            raise ProtocolError(f"a datagram of kind {kind} and {len(raw)} bytes with {len(fds)} descriptors")
        self._take(kind, raw, fds[0] if fds else -1)
        return kind != layout.RESUME

    def _take(self, kind: int, raw: bytes, fd: int) -> None:
        message = layout.Control.from_buffer_copy(raw)
        if kind == layout.HAVE_CLIENT:
            self.client = fd
        elif kind == layout.HAVE_GROUP:
            self.group = fd
        elif kind == layout.HAVE_SHARE:
            self.shares.append((raw, fd))
        elif kind == layout.HAVE_EXTENT:
            self.extents.append((message.a, message.b))
        elif kind == layout.HAVE_PAGES:
            self.pages.append(raw)


def find(kept: Kept) -> int:
    """A pidfd of the worker. Raises Gone."""
    try:
        pidfd = os.pidfd_open(kept.pid) if kept.pid > 0 else -1
    except OSError:
        raise Gone from None
    if pidfd >= 0 and started(kept.pid) == kept.started and _is_worker(kept.pid) and not _has_ended(pidfd, 0):
        return pidfd
    if pidfd >= 0:
        os.close(pidfd)
    raise Gone


def _is_worker(pid: int) -> bool:
    """Nobody else is ended, whatever a record says."""
    try:
        return b"orion_virt.server.worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


async def meet(keeping: Keeping, kept: Kept, pidfd: int) -> Heard:
    """Raises Unavailable or ProtocolError with the reason why it cannot be served; it has ended then. Raises Gone."""
    return await asyncio.to_thread(_meet, keeping, kept, pidfd)


async def end(heard: Heard, why: str) -> None:
    """Tells the worker to end, and sees to it."""
    await asyncio.to_thread(_end, heard, why)


def _meet(keeping: Keeping, kept: Kept, pidfd: int) -> Heard:
    heard = Heard(Worker(kept.pid, pidfd, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)))
    deadline = time.monotonic() + MEET_SECONDS
    try:
        while not _listen(keeping, kept, heard, deadline):
            time.sleep(_AGAIN_SECONDS)  # it has not seen yet that the daemon before us has ended
        if kept.record is None:
            raise ProtocolError(kept.why)
    except OSError as error:
        gone = _has_ended(pidfd, END_SECONDS)  # its files are closed a moment before it is
        _end(heard, "oriond could not take it up")
        if gone:
            raise Gone from None
        why = "it does not answer" if isinstance(error, TimeoutError) else str(error.strerror)
        raise Unavailable(why) from None
    except ProtocolError:
        _end(heard, "oriond is of a version that cannot serve this program")
        raise
    heard.worker.control.setblocking(False)
    return heard


def _listen(keeping: Keeping, kept: Kept, heard: Heard, deadline: float) -> bool:
    """False when the worker hung up at once. Raises OSError, ProtocolError."""
    heard.worker.control.close()
    heard.worker.control = control = keeping.connect(kept.name)
    if kept.record is None:
        return True  # it is only told to end
    control.settimeout(MEET_SECONDS)
    nr = 0
    with contextlib.suppress(BrokenPipeError):
        control.send(bytes(layout.Control(kind=layout.RESUME, a=layout.PROTOCOL)))
    while True:
        control.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            raw, fds, _, _ = socket.recv_fds(control, _CONTROL_BYTES + 1, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            raw, fds = b"", []
        if not raw and nr:
            raise OSError(errno.ECONNRESET, "it hung up while it was asked")
        if not raw:
            if time.monotonic() >= deadline:
                raise TimeoutError
            return False
        nr += 1
        if not heard.note(raw, fds):
            return True


def _end(heard: Heard, why: str) -> None:
    with contextlib.suppress(OSError):
        heard.worker.control.settimeout(END_SECONDS)
        heard.worker.control.send(bytes(layout.Control(kind=layout.STOP, a=layout.CLOSED_SERVER, text=why.encode()[:231])))
        _has_ended(heard.worker.pidfd, END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(heard.worker.pidfd, signal.SIGKILL)
    _has_ended(heard.worker.pidfd, MEET_SECONDS)
    heard.worker.close()
    heard.close()


def _has_ended(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
