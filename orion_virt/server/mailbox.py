# SPDX-License-Identifier: Apache-2.0
"""Serves the regions' mailboxes: each connection in one becomes a socket, as if a network had brought it.

Nothing tells us that a guest has written, so we look, seldom where nothing has moved for long. A guest's death is a
word that its kernel writes, never a silence: a guest that is suspended or stopped is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orion_virt import layout
from orion_virt.region import mailbox
from orion_virt.region.regions import Region, Regions

FASTEST = 0.001  # seconds between two looks while something moves
PATIENCE = 16  # the next look comes after a PATIENCE-th of the time for which nothing has moved,
PATIENCE_QUIET = 600  # and where nothing has for minutes, after such a part of it
# The longest in both cases. With connections: a guest's death or exit is noticed in this time.
SLOWEST_OPEN = (0.05, 0.2)
SLOWEST = (0.1, 0.25)  # without
SLOWEST_SPARE = (0.5, 0.5)  # nor need of any: guests of that domain have a network address to try first
TOGETHER = 0.005  # looks that are due in this time are not worth another wake-up

# What a guest may make us do: looks, openings and new beginnings are paid from a purse that fills with time.
PURSE, PER_SECOND = 3000.0, 400.0
LOOK, OPENING, BEGINNING = 1.0, 15.0, 50.0
POOR = 0.02  # seconds between two looks of an empty purse

_log = logging.getLogger("orion.mailbox")
Taker = Callable[[socket.socket, str], None]
"""Takes one end of a socket pair, and the UUID of the domain whose mailbox it came through."""


@dataclass
class Connection:
    """One opening of a slot, between `sock` and the region's file."""

    number: int
    guest_boot: int
    sock: socket.socket
    served: int = 0  # inode of the other end, which whoever serves it has
    in_seq: int = 0
    out_seq: int = 0
    guest_ended: bool = False
    deaf: bool = False  # whoever serves it reads no more, but may have said something


def _next(seq: int) -> int:
    return seq + 1 & 255


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


class Box:
    """One region's mailbox in one of its generations. Every method may raise OSError: the file is the guest's too."""

    def __init__(self, region: Region, takers: dict[int, Taker], now: float) -> None:
        self.region, self.identity = region, region.identity
        self._takers = takers
        self._open: dict[int, Connection] = {}
        self._opened = [0] * layout.MAIL_SLOTS
        self._epoch, self._bell = -1, -1  # what no file says
        self._purse, self._looked_at, self._moved_at = PURSE, now, now
        self.due = now
        self._left: set[int] = set()  # slots that an earlier daemon opened and we do not serve

    # ---- life ----

    def begin(self) -> None:
        """Everything of before is void: a new daemon, a new generation, or a header from elsewhere."""
        self.hang_up()
        self._purse -= BEGINNING
        self._opened = [0] * layout.MAIL_SLOTS
        self._epoch, self._bell = int.from_bytes(os.urandom(8), "little") or 1, -1
        mailbox.begin(self.region.fd, self._epoch)

    def hang_up(self) -> None:
        """Closes our ends, without a word in the file."""
        for connection in self._open.values():
            connection.sock.close()
        self._open.clear()

    def resume(self, slot: int, number: int, epoch: int) -> socket.socket | None:
        """The connection of a channel that goes on from an earlier daemon; None when its guest has ended it."""
        if self._epoch == -1:
            self._epoch, self._opened = mailbox.head(self.region.fd)[0], mailbox.opened(self.region.fd)
            self._left = {at for at, opened in enumerate(self._opened) if opened}
        line = mailbox.line(self.region.fd, slot)
        if self._epoch != epoch or line.is_dead or not line.owner or line.opening != number or line.epoch != epoch:
            return None
        ours, theirs = _pair()
        in_seq, out_seq = mailbox.sequences(self.region.fd, slot)
        self._open[slot] = Connection(number, line.guest_boot, ours, os.fstat(theirs.fileno()).st_ino, in_seq, out_seq)
        self._left.discard(slot)
        return theirs

    def place(self, inode: int) -> tuple[int, ...]:
        """Of the connection whose other end has this inode: slot, opening, epoch; empty: there is none."""
        return next(((slot, c.number, self._epoch) for slot, c in self._open.items() if c.served == inode), ())

    def leave(self, places: set[int]) -> None:
        """Ends all but these slots, which the next daemon takes up."""
        for slot in set(self._open) - places:
            self._carry(slot)
        for slot in set(self._open) - places:
            self._end(slot)
        self.hang_up()

    def finish(self) -> None:
        """Carries what is ready, then tells every guest that its connection has ended."""
        for slot in list(self._open):
            self._carry(slot)
        for slot in list(self._open):
            self._end(slot)
        mailbox.end(self.region.fd)

    def look(self, now: float) -> None:
        """Carries what there is, and says when to look again."""
        self._purse = min(PURSE, self._purse + (now - self._looked_at) * PER_SECOND) - LOOK
        self._looked_at = now
        if self._step():
            self._moved_at = now
        wait = self._patience(now - self._moved_at)
        self.due = now + (wait if self._purse > 0 else max(wait, POOR))

    def _patience(self, quiet: float) -> float:
        """Seconds until the next look, when nothing has moved for `quiet` seconds."""
        soon, late = SLOWEST_OPEN if self._open else SLOWEST_SPARE if self.region.server_addrs else SLOWEST
        return max(FASTEST, min(quiet / PATIENCE, soon), min(quiet / PATIENCE_QUIET, late))

    def _step(self) -> bool:
        epoch, bell = mailbox.head(self.region.fd)
        if epoch != self._epoch:
            if self._purse > 0:
                self.begin()
            return False
        while self._left:
            mailbox.finish(self.region.fd, self._left.pop())
        moved = False
        if bell != self._bell:
            self._bell = bell
            moved = self._scan()
        for slot in list(self._open):
            moved |= self._carry(slot)
        return moved

    # ---- slots ----

    def _scan(self) -> bool:
        opened = False
        for slot, line in enumerate(mailbox.lines(self.region.fd)):
            if line.is_dead:
                self._end(slot)
                mailbox.free(self.region.fd, slot)
            elif line.owner and line.opening != self._opened[slot]:
                opened |= self._take_up(slot)
        return opened

    def _take_up(self, slot: int) -> bool:
        if self._purse <= 0:
            self._bell = -1  # again at the next look
            return False
        line = mailbox.line(self.region.fd, slot)  # the copy before may have been made while it was written
        taker = self._takers.get(line.service)
        if not 1 <= line.opening <= 255 or line.opening == self._opened[slot] or line.epoch != self._epoch or taker is None:
            return False
        self._purse -= OPENING
        self._end(slot)
        self._forget_other_boots(line.guest_boot)
        ours, theirs = _pair()
        self._left.discard(slot)
        self._open[slot] = Connection(line.opening, line.guest_boot, ours, os.fstat(theirs.fileno()).st_ino)
        self._opened[slot] = line.opening
        mailbox.open_slot(self.region.fd, slot, line.opening)
        taker(theirs, self.region.uuid)
        return True

    def _forget_other_boots(self, boot: int) -> None:
        """A process of a new boot of the guest proves that those of another are gone: no kernel was left to say so."""
        if not boot:
            return
        for slot, connection in list(self._open.items()):
            if connection.guest_boot not in (0, boot):
                self._end(slot)
                mailbox.free(self.region.fd, slot)

    def _end(self, slot: int) -> None:
        connection = self._open.pop(slot, None)
        if connection is not None:
            connection.sock.close()
            mailbox.finish(self.region.fd, slot)

    def _carry(self, slot: int) -> bool:
        """One packet in each direction; false when nothing moved."""
        connection, line = self._open[slot], mailbox.line(self.region.fd, slot)
        if line.is_dead or not line.owner or line.opening != connection.number or line.epoch != self._epoch:
            self._end(slot)
            self._bell = -1  # look what it is now
            return True
        try:
            came = self._take_in(slot, connection, line)
            return self._put_out(slot, connection, line) or came
        except ConnectionResetError:
            pass  # whoever served it has gone, and left something unread
        except ValueError as error:
            _log.info("domain %s: mailbox slot %d is closed: %s", self.region.uuid, slot, error)
        self._end(slot)
        return True

    def _take_in(self, slot: int, connection: Connection, line: mailbox.Line) -> bool:
        """Raises ValueError for what no client of ours writes."""
        if line.seq == connection.in_seq:
            if line.fin and not connection.guest_ended:
                connection.guest_ended = True
                connection.sock.shutdown(socket.SHUT_WR)
                return True
            return False
        line = mailbox.line(self.region.fd, slot)  # whole now: its seq was written last
        if line.seq != _next(connection.in_seq) or not 1 <= line.n_bytes <= layout.MAIL_DATA or connection.guest_ended:
            raise ValueError("a malformed packet")
        packet = mailbox.data(self.region.fd, slot, line.n_bytes)
        try:
            if not connection.deaf and connection.sock.send(packet) != len(packet):
                raise ValueError("more than it may have on the way")
        except BlockingIOError:
            return False  # whoever serves it does not read now
        except BrokenPipeError:
            connection.deaf = True
        connection.in_seq = line.seq
        mailbox.acknowledge(self.region.fd, slot, line.seq)
        return True

    def _put_out(self, slot: int, connection: Connection, line: mailbox.Line) -> bool:
        if line.ack != connection.out_seq:
            return False
        try:
            packet = connection.sock.recv(layout.MAIL_DATA)
        except BlockingIOError:
            return False
        if not packet:
            self._end(slot)
            return True
        connection.out_seq = _next(connection.out_seq)
        mailbox.send(self.region.fd, slot, connection.out_seq, packet)
        return True


class Mailboxes:
    """All of them, looked at by one task."""

    def __init__(self, regions: Regions, takers: dict[int, Taker]) -> None:
        """`takers` by enum oc_mail_service."""
        self._regions = regions
        self._takers = takers
        self._boxes: dict[str, Box] = {}
        self._broken: dict[str, Region] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._look_forever(), name="mailboxes")

    async def stop(self, left: Mapping[str, set[int]] = {}) -> None:  # noqa: B006
        """Tells every guest; the channels have ended before, but for those in these slots of a domain."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for uuid, box in list(self._boxes.items()):
            if not left.get(uuid):
                self.finish(uuid)
                continue
            with contextlib.suppress(OSError):
                box.leave(left[uuid])
            box.hang_up()

    def resume(self, uuid: str, place: tuple[int, ...]) -> socket.socket | None:
        """Before the start: the connection of a channel that goes on from an earlier daemon, by what `place` said then."""
        region = self._regions.find(uuid)
        if region is None or len(place) != 3 or not 0 <= place[0] < layout.MAIL_SLOTS:
            return None
        box = self._boxes.setdefault(uuid, Box(region, self._takers, asyncio.get_running_loop().time()))
        with contextlib.suppress(OSError):
            return box.resume(*place)
        return None

    def place(self, uuid: str, conn: socket.socket) -> tuple[int, ...]:
        """Where a connection that a taker got came from, for `resume`."""
        box = self._boxes.get(uuid)
        return () if box is None else box.place(os.fstat(conn.fileno()).st_ino)

    def finish(self, uuid: str) -> None:
        """The region goes: its guests are told while it is there."""
        box = self._boxes.pop(uuid, None)
        if box is None:
            return
        if self._regions.find(uuid) is box.region:
            with contextlib.suppress(OSError):
                box.finish()
        box.hang_up()

    async def _look_forever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            self._follow(now)
            for box in [box for box in self._boxes.values() if box.due <= now + TOGETHER]:
                self._look(box, now)
            due = min((box.due for box in self._boxes.values()), default=now + SLOWEST[0])
            await asyncio.sleep(max(due - loop.time(), FASTEST))

    def _look(self, box: Box, now: float) -> None:
        try:
            box.look(now)
        except OSError as error:
            _log.error("domain %s: its mailbox cannot be served any more: %s", box.region.uuid, error.strerror)
            self._give_up(box)
        except Exception:
            # The outermost frame: whatever a guest provoked ends its own connections alone.
            _log.exception("domain %s: its mailbox is not served any more", box.region.uuid)
            self._give_up(box)

    def _give_up(self, box: Box) -> None:
        box.hang_up()
        self._boxes.pop(box.region.uuid, None)
        self._broken[box.region.uuid] = box.region

    def _follow(self, now: float) -> None:
        """The boxes are those of the regions that there are, in their present generations."""
        there = {region.uuid: region for region in self._regions if region.identity is not None}
        for uuid, box in list(self._boxes.items()):
            region = there.get(uuid)
            if region is not box.region or region.identity != box.identity:
                box.hang_up()
                del self._boxes[uuid]
        for uuid, region in there.items():
            if uuid not in self._boxes and self._broken.get(uuid) is not region:
                self._boxes[uuid] = Box(region, self._takers, now)
