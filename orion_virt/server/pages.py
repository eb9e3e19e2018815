# SPDX-License-Identifier: Apache-2.0
"""Region memory in place of pages that processes of a domain share by a file of theirs: one piece, several channels."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from orion_virt import layout
from orion_virt.errors import Conflict, OrionError, ProtocolError, Unavailable
from orion_virt.region.regions import Region
from orion_virt.server.memory import Memory

KEY_BYTES = 24  # device, inode and offset of the guest's file
TAIL_BYTES = 64 << 10  # OC_PIECE_TAIL, for the guests' own books


@dataclass
class Piece:
    """Pages [offset, offset + n_bytes) of a file. `filled`: somebody has put the file's bytes into the region memory."""

    domain: str
    file: tuple[int, int]
    offset: int
    n_bytes: int
    memory: Memory | None = None
    off: int = -1
    got: int = 0
    filled: bool = False
    holders: set[int] = field(default_factory=set)


class Pages:
    """For the event loop."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []

    def __len__(self) -> int:
        return len(self._pieces)

    async def take(self, region: Region, channel_id: int, key: bytes, n_bytes: int) -> tuple[Piece, bool]:
        """The piece, and whether the caller has to fill it. Raises Unavailable: somebody else does; Conflict: another
        piece overlaps it; QuotaExceeded; ProtocolError."""
        device, inode, offset = struct.unpack("<QQQ", key)
        if not n_bytes:
            raise ProtocolError("a piece of no bytes to share")
        file = (device, inode)
        for piece in self._pieces:
            if (piece.domain, piece.file) != (region.uuid, file):
                continue
            if (piece.offset, piece.n_bytes) == (offset, n_bytes):
                if not piece.filled:
                    raise Unavailable("somebody else is filling it")
                piece.holders.add(channel_id)
                return piece, False
            if piece.offset < offset + n_bytes and offset < piece.offset + piece.n_bytes:
                raise Conflict("another piece of this file is shared")
        return await self._make(region, channel_id, Piece(region.uuid, file, offset, n_bytes)), True

    async def _make(self, region: Region, channel_id: int, piece: Piece) -> Piece:
        piece.memory = Memory(region)
        self._pieces.append(piece)  # before the grant, which takes a while: others are told to come again
        try:
            piece.off, piece.got = await piece.memory.grant(piece.n_bytes + TAIL_BYTES)
        except OrionError:
            self._pieces.remove(piece)
            await piece.memory.close()
            raise
        piece.holders.add(channel_id)
        return piece

    def resume(self, region: Region, channel_id: int, raw: bytes) -> None:
        """A part that an earlier daemon gave, as the worker tells of it. Raises ProtocolError."""
        told = layout.Control.from_buffer_copy(raw)
        at = layout.Control.text.offset
        device, inode, offset, n_bytes = struct.unpack_from("<QQQQ", raw, at)
        piece = next((p for p in self._pieces if p.domain == region.uuid and p.off == told.a), None)
        if piece is None:
            memory = Memory(region)
            try:
                memory.claim(told.a, told.b)
            except ProtocolError:
                memory.let_go()
                raise
            piece = Piece(region.uuid, (device, inode), offset, n_bytes, memory, told.a, told.b)
            self._pieces.append(piece)
        if (piece.file, piece.offset, piece.n_bytes, piece.got) != ((device, inode), offset, n_bytes, told.b):
            raise ProtocolError(f"its pages at 0x{told.a:x} are others than another worker says")
        piece.holders.add(channel_id)
        piece.filled |= told.status == 0

    def let_go(self) -> None:
        """All stays granted: another daemon takes it up."""
        for piece in self._pieces:
            if piece.memory is not None:
                piece.memory.let_go()
        self._pieces.clear()

    def filled(self, channel_id: int, off: int) -> None:
        """Others may have it now. Raises ProtocolError."""
        self._of(channel_id, off).filled = True

    async def leave(self, channel_id: int, off: int) -> None:
        """Raises ProtocolError."""
        await self._leave(self._of(channel_id, off), channel_id)

    async def gone(self, channel_id: int) -> None:
        """The channel has ended."""
        for piece in [p for p in self._pieces if channel_id in p.holders]:
            await self._leave(piece, channel_id)

    def _of(self, channel_id: int, off: int) -> Piece:
        for piece in self._pieces:
            if piece.off == off and channel_id in piece.holders:
                return piece
        raise ProtocolError(f"word of shared pages at 0x{off:x}, in which it has no part")

    async def _leave(self, piece: Piece, channel_id: int) -> None:
        piece.holders.discard(channel_id)
        if not piece.holders:
            self._pieces.remove(piece)
            assert piece.memory is not None
            await piece.memory.close()
