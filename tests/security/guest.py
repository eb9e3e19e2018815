# SPDX-License-Identifier: Apache-2.0
"""A guest process that knows its region's token and writes the ring by hand: every field of a command can be a lie."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import mmap
import os
import socket
import struct
import time
from dataclasses import dataclass, field
from types import TracebackType

import wire
from host import Host

from orion_virt import layout

REPLY = 1
CONTEXT, DEVICE_BYTES = wire.handle("CONTEXT", 1), 64 << 20


@dataclass
class Ring:
    """The producer's side of one channel block, in `memory` at `block`. No lock: one thread writes."""

    memory: mmap.mmap
    block: int
    conn: socket.socket
    tail: int = 0
    results: dict[int, int] = field(default_factory=dict)

    def _line(self, index: int) -> int:
        return self.block + layout.RING_OFF + index % layout.RING_LINES * layout.LINE

    def _u64(self, at: int) -> int:
        return int(struct.unpack_from("<Q", self.memory, at)[0])

    def head(self) -> int:
        return self._u64(self.block + 64)

    def closed(self) -> int:
        """enum oc_close, as the host wrote it."""
        return int(struct.unpack_from("<I", self.memory, self.block + 328)[0])

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self.conn.send(b"\1", socket.MSG_DONTWAIT)

    def post(self, op: int, payload: bytes = b"", thread: int = 0, flags: int = 0, **lies: int) -> int:
        """Publishes one command and returns its sequence; `lies` replace seq, lines or bytes."""
        lines = 1 if len(payload) <= 40 else 1 + (len(payload) - 40 + 63) // 64
        at = self.tail % layout.RING_LINES
        if at + lines > layout.RING_LINES:
            if not self._room(layout.RING_LINES - at):
                return 0
            self._write(0, layout.RING_LINES - at, b"", 0, 0)
        if not self._room(lines):
            return 0
        return self._write(op, lines, payload, thread, flags, lies)

    def _room(self, lines: int) -> bool:
        """Waits for it; False: the channel ended."""
        while self.tail + lines + 1 - self.head() > layout.RING_LINES:
            if self.is_over():
                return False
            self.wake()
            time.sleep(0.001)
        return True

    def _write(self, op: int, lines: int, payload: bytes, thread: int, flags: int, lies: dict[str, int] | None = None) -> int:
        at, seq, lies = self._line(self.tail), self.tail + 1, lies or {}
        head = struct.pack("<HHIII", op & 0xFFFF, lies.get("lines", lines), lies.get("bytes", len(payload)), thread, flags)
        self.memory[self._line(self.tail + lines) : self._line(self.tail + lines) + 8] = bytes(8)
        self.memory[at + 8 : at + 24] = head
        self.memory[at + 24 : at + 24 + len(payload)] = payload
        self.memory[at : at + 8] = struct.pack("<Q", lies.get("seq", seq))
        self.tail += lines
        if struct.unpack_from("<I", self.memory, self.block + 128)[0]:
            self.wake()
        return seq

    def is_over(self) -> bool:
        """True once the host has closed the connection."""
        try:
            return self.conn.recv(1 << 16, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def answer(self, seq: int, thread: int = 0, seconds: float = 15) -> tuple[int, bytes] | None:
        """Result and reply of a command; None: the channel ended instead."""
        slot = self.block + layout.SLOTS_OFF + thread * layout.SLOT_BYTES
        end, spins = time.monotonic() + seconds, 0
        while self._u64(slot) != seq:
            spins += 1
            if spins % 50 == 0:
                self.wake()
                if self.is_over() and self._u64(slot) != seq:
                    return None
                assert time.monotonic() < end, f"no answer to command {seq} within {seconds} s"
                time.sleep(0.001)
        result, n_bytes = struct.unpack_from("<iI", self.memory, slot + 8)
        return result, bytes(self.memory[slot + 16 : slot + 16 + n_bytes])

    def call(self, name: str, thread: int = 0, /, **values: object) -> int | None:
        """A round trip; the CUresult, None when the channel ended."""
        got = self.answer(self.post(wire.op_of(name), wire.pack(name, **values), thread, REPLY), thread)
        return None if got is None else got[0]

    def ask(self, name: str, thread: int = 0, /, **values: object) -> dict[str, int]:
        """A round trip that must succeed; the answer's fields."""
        got = self.answer(self.post(wire.op_of(name), wire.pack(name, **values), thread, REPLY), thread)
        assert got is not None and got[0] == 0, (name, got)
        return wire.unpack(name, got[1])

    def send(self, name: str, thread: int = 0, /, **values: object) -> int:
        """One way."""
        return self.post(wire.op_of(name), wire.pack(name, **values), thread)

    def start_context(self, thread: int = 0) -> None:
        """The primary context of device 0, current on `thread`."""
        if thread == 0:
            self.ask("orion_ctx_activate", context=CONTEXT, device=0, flags=0, kind=0)
        self.send("orion_set_current", thread, context=CONTEXT)

    def alloc(self, n_bytes: int = 1 << 20) -> int:
        return self.ask("cuMemAlloc_v2", bytesize=n_bytes)["dptr"]


def allocate(host: Host, memory_mib: int = DEVICE_BYTES >> 20) -> str:
    connection = http.client.HTTPConnection(host.controller, timeout=180)
    with contextlib.closing(connection):
        connection.request("GET", f"/service?nvidia_vgpu=1&memory={memory_mib}")
        answer = connection.getresponse()
        text = answer.read().decode()
    assert answer.status == 200, text
    return text.split(",")[0]


def _block(conn: socket.socket, verb: str, fields: dict[str, object]) -> bytes:
    raw = f"ORION/1 {verb}\n{''.join(f'{k}: {v}{chr(10)}' for k, v in fields.items())}\n".encode()
    conn.sendall(raw)
    return raw


def _receive(conn: socket.socket) -> tuple[str, dict[str, str]]:
    raw = b""
    while not raw.endswith(b"\n\n"):
        piece = conn.recv(1 << 16)
        assert piece, f"the server hung up after {raw!r}"
        raw += piece
    first, *lines = raw[:-2].decode().split("\n")
    return first.removeprefix("ORION/1 "), dict(line.split(": ", 1) for line in lines)


def shake_hands(host: Host, transport: str = "shm", **changes: object) -> tuple[socket.socket, str, dict[str, str]]:
    """The connection, and what the server said last: WELCOME or REFUSED with its fields."""
    ip, port = host.server.rsplit(":", 1)
    conn = changes.pop("conn", None) or socket.create_connection((ip, int(port)), timeout=20)
    assert isinstance(conn, socket.socket)
    raw = host.region.read_bytes()[:4096] if transport == "shm" else bytes(4096)
    header = layout.Header.from_buffer_copy(raw)
    fields: dict[str, object] = {
        "transport": transport, "domain": host.uuid if transport == "shm" else "-", "generation": header.generation,
        "base": hex(layout.BASES[0]), "pid": os.getpid(), "comm": "hostile", "build": "test", "ops": "00",
    }  # fmt: skip
    fields |= {"allocation": changes.pop("allocation", None) or allocate(host)} | changes
    hello = _block(conn, "HELLO", fields)
    verb, answer = _receive(conn)
    if verb != "CHALLENGE":
        return conn, verb, answer
    proof = hmac.new(bytes(header.token), bytes.fromhex(answer["nonce"]) + hello, hashlib.sha256).hexdigest()
    _block(conn, "AUTH", {"hmac": proof if transport == "shm" else "-"})
    return conn, *_receive(conn)


class Guest(Ring):
    """A channel of a running host, over shared memory."""

    def __init__(self, host: Host, **changes: object) -> None:
        self.host = host
        conn, verb, fields = shake_hands(host, **changes)
        assert verb == "WELCOME", fields
        conn.settimeout(None)  # with one, MSG_DONTWAIT would wait all the same
        self.fd = os.open(host.region, os.O_RDWR)
        self.channel = int(fields["channel"])
        super().__init__(mmap.mmap(self.fd, os.fstat(self.fd).st_size), int(fields["block"]), conn)

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.conn.close()
        self.memory.close()
        os.close(self.fd)

    def log(self) -> str:
        """What the worker of this channel wrote."""
        logs = sorted((self.host.dir / "log").rglob(f"*-{self.channel}-*.log"))
        return logs[-1].read_text(errors="replace") if logs else ""

    def worker(self) -> int:
        found = [c["worker"] for c in self.host.status()["channels"] if c["channel"] == self.channel]
        assert len(found) == 1, found
        return int(found[0])
