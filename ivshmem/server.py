# SPDX-License-Identifier: Apache-2.0
"""Server of QEMU's ivshmem-doorbell device, for one run of one domain.

QEMU connects at its start and gets the region's descriptor and eventfds; what the guest then writes into the device's
doorbell register arrives at an eventfd, which the daemon asks for over a control socket. QEMU never connects again, so
this process must outlive the daemon: it is started by libvirt's hook, is nobody's child, and ends by itself once
QEMU has left and the region's file is gone. It never reads or writes the region.

The protocol is version 0 of QEMU's docs/specs/ivshmem-spec.txt: signed 64-bit little-endian numbers, each with at most
one descriptor. Standard library only: the hook starts it with the system's Python.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import selectors
import socket
import stat
import struct
import sys
import syslog
from collections.abc import Callable, Iterator

PROTOCOL = 0  # of QEMU
CONTROL_VERSION = 1
GUEST, HOST = 0, 1  # peer numbers; QEMU refuses a device with master=on (libvirt: role) that is not number 0
VECTORS = 32  # of each peer; as many channels of a domain have a doorbell
LOOK_SECONDS = 0.2  # how often the region's file is looked for while no QEMU is there
ASKERS = 64  # control connections at once
FOREGROUND = "--foreground"
USAGE = f"""\
Usage: orion-doorbell REGION SOCKET CONTROL GROUP [{FOREGROUND}]
Serves the ivshmem-doorbell device of one domain until it ends; libvirt's hook starts it.
  REGION   the region's file
  SOCKET   where QEMU connects (<server path=...> of the device)
  CONTROL  where oriond asks
  GROUP    QEMU's group, which may connect"""
_REQUEST_BYTES = 4096
_NUMBER = struct.Struct("<q")
_UCRED = struct.Struct("iII")


def open_region(path: str) -> int:
    """A region's file as the hook made it. Raises OSError, or ValueError for a file that is not safe to give away."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    info = os.fstat(fd)
    size = info.st_size
    if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() and info.st_nlink == 1 and size and not size & (size - 1):
        return fd
    os.close(fd)
    raise ValueError(f"{path} is not a region: a file of uid {os.geteuid()}, of one name and a power of two bytes, is needed")


def listen(path: str, kind: int, mode: int, gid: int) -> socket.socket:
    """A listening socket at `path`, whatever was there before. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)  # nobody else connects before owner and mode are set
    try:
        sock.bind(path)
        if gid != os.getegid():
            os.chown(path, -1, gid)
        os.chmod(path, mode)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def eventfds() -> list[int]:
    """One for each vector. QEMU shares the file description, so that it is non-blocking for everybody."""
    return [os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(VECTORS)]


def greeting(region: int, host: list[int], guest: list[int]) -> Iterator[tuple[int, int | None]]:
    """What a new client is sent: version, its number, the memory, the host's vectors, its own vectors."""
    yield PROTOCOL, None
    yield GUEST, None
    yield -1, region
    yield from ((HOST, fd) for fd in host)
    yield from ((GUEST, fd) for fd in guest)


def send(conn: socket.socket, number: int, fd: int | None) -> None:
    """One message. Raises OSError, also for a client that does not read: all of them fit into a socket's buffer."""
    data = _NUMBER.pack(number)
    sent = conn.send(data) if fd is None else socket.send_fds(conn, [data], [fd])
    if sent != len(data):
        raise BlockingIOError("the client does not read")


def credentials(conn: socket.socket) -> tuple[int, int]:
    """pid and uid of who connected."""
    pid, uid, _ = _UCRED.unpack(conn.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid


class Server:
    """One region, one QEMU at a time, any number of askers."""

    def __init__(self, region: str, path: str, control: str, gid: int) -> None:
        """Listens from now on. Raises OSError or ValueError."""
        self._path = region
        self._region = open_region(region)
        info = os.fstat(self._region)
        self._inode = info.st_dev, info.st_ino
        self._host = eventfds()
        self._qemu: socket.socket | None = None
        self._pid = 0
        self._askers: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._watch(listen(control, socket.SOCK_SEQPACKET, 0o600, os.getegid()), self._accept_asker)
        self._watch(listen(path, socket.SOCK_STREAM, 0o660, gid), self._accept_qemu)

    def _watch(self, sock: socket.socket, ready: Callable[[socket.socket], None]) -> None:
        self._selector.register(sock, selectors.EVENT_READ, ready)

    def _drop(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        sock.close()

    def run(self) -> None:
        """Serves until QEMU has left and the region's file is gone or another's."""
        while self._qemu is not None or self._is_current():
            for key, _ in self._selector.select(None if self._qemu is not None else LOOK_SECONDS):
                if key.fileobj.fileno() >= 0:  # type: ignore[union-attr]  # else it was dropped in this round
                    key.data(key.fileobj)

    def _is_current(self) -> bool:
        try:
            there = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (there.st_dev, there.st_ino) == self._inode

    # ---- QEMU ----

    def _accept_qemu(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it went away again
            conn, _ = listener.accept()
            conn.setblocking(False)
            if self._qemu is not None:
                self._heard(self._qemu)  # it may have left just now
            if self._qemu is not None:
                note(f"pid {credentials(conn)[0]} is turned away: pid {self._pid} has this region")
                conn.close()
                return
            self._greet(conn)

    def _greet(self, conn: socket.socket) -> None:
        own = eventfds()
        try:
            for number, fd in greeting(self._region, self._host, own):
                send(conn, number, fd)
        except OSError as error:
            note(f"a client left during its greeting: {error}")
            conn.close()
            return
        finally:
            for fd in own:  # QEMU has them; nobody else interrupts the guest
                os.close(fd)
        self._qemu, self._pid = conn, credentials(conn)[0]
        self._watch(conn, self._heard)
        note(f"QEMU (pid {self._pid}) has the region")

    def _heard(self, conn: socket.socket) -> None:
        """QEMU never says anything: this is its end, or it is none."""
        with contextlib.suppress(BlockingIOError):
            with contextlib.suppress(ConnectionError):
                if conn.recv(1):
                    note(f"pid {self._pid} spoke, which QEMU does not, and is hung up on")
            self._drop(conn)
            self._qemu, self._pid = None, 0

    # ---- the daemon ----

    def _accept_asker(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            conn, _ = listener.accept()
            conn.setblocking(False)
            if credentials(conn)[1] not in (0, os.geteuid()) or len(self._askers) >= ASKERS:
                conn.close()
                return
            self._askers.add(conn)
            self._watch(conn, self._asked)

    def _asked(self, conn: socket.socket) -> None:
        """One request, one answer, and the connection ends."""
        with contextlib.suppress(OSError):
            raw = conn.recv(_REQUEST_BYTES)
            if raw:
                self._answer(conn, raw)
        self._askers.discard(conn)
        self._drop(conn)

    def _answer(self, conn: socket.socket, raw: bytes) -> None:
        """The state; and, where QEMU has it too, the eventfd of the vector that was asked for."""
        state: dict[str, object] = {"ok": True, "version": CONTROL_VERSION, "pid": os.getpid(), "qemu": self._pid,
                                    "vectors": VECTORS, "region": list(self._inode)}
        vector = requested(raw)
        if vector is None:
            conn.send(json.dumps(state).encode())
        elif not 0 <= vector < VECTORS or self._qemu is None:
            reason = "no QEMU is connected" if self._qemu is None else f"vectors are 0 to {VECTORS - 1}"
            conn.send(json.dumps({**state, "ok": False, "error": reason}).encode())
        else:
            socket.send_fds(conn, [json.dumps(state).encode()], [self._host[vector]])


def requested(raw: bytes) -> int | None:
    """The vector of `{"vector": N}`; None where only the state is asked for, -1 where it is no vector."""
    try:
        vector = json.loads(raw).get("vector")
    except (ValueError, AttributeError):
        return -1
    return vector if vector is None or type(vector) is int else -1


def note(text: str) -> None:
    syslog.syslog(syslog.LOG_INFO, text)


def detach() -> None:
    """Goes on as a process of its own; the one that was started ends, which says that we listen."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


def main() -> None:
    """`orion-doorbell`: listens, goes into the background, ends with its domain."""
    arguments = [word for word in sys.argv[1:] if word != FOREGROUND]  # argparse would take 15 ms of the domain's start
    if len(arguments) != 4:
        asked = arguments in (["-h"], ["--help"])
        print(USAGE, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    region, path, control, group = arguments
    syslog.openlog(f"orion-doorbell {os.path.basename(region)}", syslog.LOG_PID, syslog.LOG_DAEMON)
    try:
        server = Server(region, path, control, grp.getgrnam(group).gr_gid)
    except (OSError, ValueError, KeyError, AttributeError) as error:  # the last: no eventfds before Python 3.10
        sys.exit(f"orion-doorbell: {error.args[0] if isinstance(error, KeyError) else error}")
    if FOREGROUND not in sys.argv:
        detach()
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as name:
        name.write("orion-doorbell")
    server.run()
    note("its domain has ended")


if __name__ == "__main__":
    main()
