# SPDX-License-Identifier: Apache-2.0
"""A region's mailbox in its file: read and written with pread and pwrite, never mapped. What guests wrote is hostile."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from orion_virt import layout

_EPOCH = struct.Struct("<Q")
_WORD = struct.Struct("<I")
_GUEST = struct.Struct("<IIIIIII4xQQ")  # the guest's line of a slot, up to guest_boot
_HOST_WORDS = 5
_HEAD_BYTES = layout.Mailbox.bell.offset + 4
_SLOT_BYTES = layout.ctypes.sizeof(layout.MailSlot)
_BYTES = layout.ctypes.sizeof(layout.Mailbox)
_SLOT = layout.MailSlot


class Line(NamedTuple):
    """The guest's line of a slot; see struct oc_mail_slot."""

    owner: int
    opening: int
    seq: int
    n_bytes: int
    ack: int
    fin: int
    service: int
    epoch: int
    guest_boot: int

    @property
    def is_dead(self) -> bool:
        """The owner's kernel says that it has ended."""
        return bool(self.owner & layout.OWNER_DIED)


def _full(fd: int, n_bytes: int, off: int) -> bytes:
    raw = os.pread(fd, n_bytes, off)
    if len(raw) != n_bytes:
        raise OSError(0, "the file was truncated")
    return raw


def _at(slot: int) -> int:
    return layout.MAILBOX_OFF + layout.Mailbox.slot.offset + slot * _SLOT_BYTES


def _put(fd: int, off: int, raw: bytes) -> None:
    if os.pwrite(fd, raw, off) != len(raw):
        raise OSError(0, "the file takes no more")


def begin(fd: int, epoch: int) -> None:
    """Makes every connection void and is ready for new ones."""
    _put(fd, layout.MAILBOX_OFF, _EPOCH.pack(0))
    for slot, line in enumerate(lines(fd)):
        _put(fd, _at(slot) + _SLOT.opened.offset, bytes(4 * _HOST_WORDS))
        if line.is_dead:
            free(fd, slot)
    _put(fd, layout.MAILBOX_OFF, _EPOCH.pack(epoch))


def end(fd: int) -> None:
    """Says that the mailbox is not served now."""
    _put(fd, layout.MAILBOX_OFF, _EPOCH.pack(0))


def head(fd: int) -> tuple[int, int]:
    """Epoch and bell as they are in the file. Raises OSError, as all here do."""
    raw = _full(fd, _HEAD_BYTES, layout.MAILBOX_OFF)
    return _EPOCH.unpack_from(raw)[0], _WORD.unpack_from(raw, layout.Mailbox.bell.offset)[0]


def line(fd: int, slot: int) -> Line:
    return Line._make(_GUEST.unpack(_full(fd, _GUEST.size, _at(slot))))


def lines(fd: int) -> list[Line]:
    """Of all slots."""
    raw = _full(fd, _BYTES, layout.MAILBOX_OFF)
    first = layout.Mailbox.slot.offset
    return [Line._make(_GUEST.unpack_from(raw, first + slot * _SLOT_BYTES)) for slot in range(layout.MAIL_SLOTS)]


def free(fd: int, slot: int) -> None:
    """A dead owner's slot is anybody's again."""
    _put(fd, _at(slot) + _SLOT.owner.offset, _WORD.pack(0))


def open_slot(fd: int, slot: int, number: int) -> None:
    """The connection of that number begins."""
    at = _at(slot) + _SLOT.opened.offset
    _put(fd, at + 4, bytes(4 * (_HOST_WORDS - 1)))
    _put(fd, at, _WORD.pack(number))


def opened(fd: int) -> list[int]:
    """The number of the last opening of each slot that was taken up."""
    raw, first = _full(fd, _BYTES, layout.MAILBOX_OFF), layout.Mailbox.slot.offset + _SLOT.opened.offset
    return [_WORD.unpack_from(raw, first + slot * _SLOT_BYTES)[0] for slot in range(layout.MAIL_SLOTS)]


def sequences(fd: int, slot: int) -> tuple[int, int]:
    """Numbers of the last packets that were taken from the guest, and sent to it."""
    ours = [_WORD.unpack(_full(fd, 4, _at(slot) + word.offset))[0] & 255 for word in (_SLOT.host_ack, _SLOT.host_seq)]
    return ours[0], ours[1]


def data(fd: int, slot: int, n_bytes: int) -> bytes:
    """The guest's packet, after its `seq` was seen."""
    return _full(fd, n_bytes, _at(slot) + _SLOT.to_host.offset)


def acknowledge(fd: int, slot: int, seq: int) -> None:
    _put(fd, _at(slot) + _SLOT.host_ack.offset, _WORD.pack(seq))


def send(fd: int, slot: int, seq: int, packet: bytes) -> None:
    """A packet to the guest; the one before has been acknowledged."""
    _put(fd, _at(slot) + _SLOT.to_guest.offset, packet)
    _put(fd, _at(slot) + _SLOT.host_bytes.offset, _WORD.pack(len(packet)))
    _put(fd, _at(slot) + _SLOT.host_seq.offset, _WORD.pack(seq))


def finish(fd: int, slot: int) -> None:
    _put(fd, _at(slot) + _SLOT.host_fin.offset, _WORD.pack(1))
