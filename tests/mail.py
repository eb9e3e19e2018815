# SPDX-License-Identifier: Apache-2.0
"""A guest's hand in a region's mailbox: slots written field by field, so that each can be a lie."""

from __future__ import annotations

import os
import socket
import struct
import time

from orion_virt import layout
from orion_virt.region import mailbox

SLOT = layout.MailSlot
ALIVE = 4711  # some thread's id


def at(slot: int) -> int:
    return layout.MAILBOX_OFF + layout.Mailbox.slot.offset + slot * layout.ctypes.sizeof(SLOT)


class Hand:
    """One slot of the mailbox in the file `fd`, as its owner writes it."""

    def __init__(self, fd: int, slot: int = 0) -> None:
        self.fd, self.slot = fd, slot
        self.number = self.in_seq = self.out_seq = 0

    def put(self, field: str, value: int | bytes) -> None:
        raw = value if isinstance(value, bytes) else struct.pack("<Q", value)[: getattr(SLOT, field).size]
        os.pwrite(self.fd, raw, at(self.slot) + getattr(SLOT, field).offset)

    def get(self, field: str) -> int:
        return int.from_bytes(os.pread(self.fd, getattr(SLOT, field).size, at(self.slot) + getattr(SLOT, field).offset), "little")

    def data(self) -> bytes:
        return os.pread(self.fd, self.get("host_bytes"), at(self.slot) + SLOT.to_guest.offset)

    def ring(self) -> None:
        where = layout.MAILBOX_OFF + layout.Mailbox.bell.offset
        bell = struct.unpack("<I", os.pread(self.fd, 4, where))[0]
        os.pwrite(self.fd, struct.pack("<I", bell + 1 & 0xFFFFFFFF), where)

    def open(self, service: int = layout.MAIL_SERVER, boot: int = 1, **lies: int) -> None:
        """Claims and announces; `lies` replace fields."""
        self.number = self.get("opening") % 255 + 1
        self.in_seq = self.out_seq = 0
        fields = {"owner": ALIVE, "seq": 0, "ack": 0, "fin": 0, "service": service, "guest_boot": boot,
                  "epoch": mailbox.head(self.fd)[0], "opening": self.number} | lies  # fmt: skip
        for field, value in fields.items():
            self.put(field, value)
        self.ring()

    def write(self, packet: bytes) -> None:
        self.out_seq = self.out_seq + 1 & 255
        self.put("to_host", packet)
        self.put("bytes", len(packet))
        self.put("seq", self.out_seq)

    def read(self) -> bytes | None:
        """The host's next packet, acknowledged; None: there is none yet."""
        if self.get("host_seq") == self.in_seq:
            return None
        self.in_seq = self.get("host_seq")
        packet = self.data()
        self.put("ack", self.in_seq)
        return packet

    @property
    def is_open(self) -> bool:
        return self.number == self.get("opened")

    @property
    def is_over(self) -> bool:
        return self.is_open and bool(self.get("host_fin"))


class Line(socket.socket):
    """A connection through the mailbox of a running host, as a socket: what tests write goes packet by packet."""

    def __init__(self, fd: int, slot: int, service: int = layout.MAIL_SERVER) -> None:
        super().__init__()
        self.hand = Hand(fd, slot)
        wait(lambda: mailbox.head(fd)[0], "oriond does not serve the mailbox")
        self.hand.open(service)
        wait(lambda: self.hand.is_open, "oriond does not take the connection up")

    def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
        for start in range(0, len(data), layout.MAIL_DATA):
            self.hand.write(data[start : start + layout.MAIL_DATA])
            wait(lambda: self.hand.get("host_ack") == self.hand.out_seq or self.hand.is_over, "oriond takes no packet")

    def recv(self, n_bytes: int, flags: int = 0) -> bytes:
        wait(lambda: self.hand.get("host_seq") != self.hand.in_seq or self.hand.is_over, "oriond says nothing")
        return self.hand.read() or b""

    def close(self) -> None:
        super().close()
        self.hand.put("owner", 0)
        self.hand.ring()


def wait(what, why: str, seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.001)
