# SPDX-License-Identifier: Apache-2.0
"""What processes of one domain show each other: tokens for the workers' handles and descriptors, and who books memory."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from typing import Protocol

from orion_virt import layout
from orion_virt.errors import NotFound, ProtocolError, QuotaExceeded
from orion_virt.layout import TOKEN_BYTES

ALLOCATION, POOL, LAST_KIND = 3, 4, 5  # enum oc_share
MAX_TOKENS = 65536  # of one channel
MAX_DESCRIPTORS = 2048  # of one channel: each is one of the daemon's
MAX_DESCRIPTORS_IN_ALL = 16384


class Holder(Protocol):
    """A channel, as far as this module knows one."""

    id: int

    @property
    def proven_domain(self) -> str:
        """The domain whose region the client proved to have; "" where it proved none."""

    def own(self, token: bytes) -> None:
        """Tells the worker that the memory behind a token is its to book from now on."""


@dataclass
class Share:
    """One object: the driver's handle or descriptor, as its worker gave it, for other workers of the domain only."""

    token: bytes
    domain: str
    kind: int
    handle: bytes
    fd: int
    n_bytes: int
    maker: int
    payer: int
    holders: dict[int, Holder] = field(default_factory=dict)


class Shares:
    """Lives as long as the daemon; a share lives as long as any channel has a part in it."""

    def __init__(self) -> None:
        self._shares: dict[bytes, Share] = {}
        self._made: dict[int, set[bytes]] = {}
        self._nr_descriptors = 0

    def __len__(self) -> int:
        return len(self._shares)

    def add(self, channel: Holder, kind: int, handle: bytes, fd: int, n_bytes: int) -> bytes:
        """Takes over `fd` (-1: none), also on an error; returns the token. Raises ProtocolError, QuotaExceeded."""
        try:
            self._check(channel, kind, fd)
        except Exception:
            if fd >= 0:
                os.close(fd)
            raise
        token = secrets.token_bytes(TOKEN_BYTES)
        self._shares[token] = Share(
            token, channel.proven_domain, kind, handle, fd, n_bytes, channel.id, channel.id, {channel.id: channel}
        )
        self._nr_descriptors += fd >= 0
        self._made.setdefault(channel.id, set()).add(token)
        return token

    def _check(self, channel: Holder, kind: int, fd: int) -> None:
        if not 1 <= kind <= LAST_KIND or (fd >= 0) != (kind in (ALLOCATION, POOL)):
            raise ProtocolError(f"an object of kind {kind} to share, {'with' if fd >= 0 else 'without'} a descriptor")
        if not channel.proven_domain:
            raise ProtocolError("an object to share, of a client that belongs to no domain")
        made = self._made.get(channel.id, ())
        descriptors = sum(1 for token in made if self._shares[token].fd >= 0) if fd >= 0 else 0
        full = fd >= 0 and self._nr_descriptors >= MAX_DESCRIPTORS_IN_ALL
        if full or len(made) >= MAX_TOKENS or descriptors >= MAX_DESCRIPTORS:
            raise QuotaExceeded(
                f"channel {channel.id} shares {len(made)} objects already, {descriptors} by descriptor",
                hint="The program must free what it no longer shares",
            )

    def resume(self, channel: Holder, raw: bytes, fd: int) -> None:
        """A part that an earlier daemon knew of, as the worker tells; takes over `fd`, also on an error. Raises ProtocolError."""
        told = layout.Control.from_buffer_copy(raw)
        at = layout.Control.text.offset
        token, handle = raw[at : at + TOKEN_BYTES], raw[at + TOKEN_BYTES : at + 2 * TOKEN_BYTES]
        share = self._shares.get(token)
        try:
            if share is None:
                self._check(channel, told.a, fd)
            elif (share.domain, share.kind) != (channel.proven_domain, told.a):
                raise ProtocolError("it shares what is another domain's")
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        if share is None:
            share = self._shares[token] = Share(token, channel.proven_domain, told.a, handle, fd, told.b, 0, 0, {})
            self._nr_descriptors += fd >= 0
        elif fd >= 0:
            os.close(fd)
        share.holders[channel.id] = channel
        if told.status & layout.PART_MADE:
            share.maker = channel.id
            self._made.setdefault(channel.id, set()).add(token)
        if told.status:
            share.payer = channel.id

    def settle(self) -> None:
        """All parts are resumed: memory whose payer has ended meanwhile gets another."""
        for share in list(self._shares.values()):
            if share.payer not in share.holders:
                self._pay(share)

    def let_go(self) -> None:
        """Workers keep what they share; another daemon hears of it."""
        for share in self._shares.values():
            if share.fd >= 0:
                os.close(share.fd)
        self._shares.clear()

    def open(self, channel: Holder, kind: int, token: bytes) -> Share:
        """From now on the channel has a part in it. Raises NotFound: another domain's, of another kind, or gone."""
        share = self._shares.get(token)
        if share is None or share.kind != kind or share.domain != channel.proven_domain:
            raise NotFound("no process of this domain shares that")
        share.holders[channel.id] = channel
        return share

    def leave(self, channel: Holder, token: bytes) -> None:
        """The channel has no more part in it. Raises ProtocolError when it had none."""
        share = self._shares.get(token)
        if share is None or channel.id not in share.holders:
            raise ProtocolError("word that a share is let go, in which it has no part")
        self._leave(share, channel.id)

    def gone(self, channel: Holder) -> None:
        """The channel has ended."""
        for share in [s for s in self._shares.values() if channel.id in s.holders]:
            self._leave(share, channel.id)
        self._made.pop(channel.id, None)

    def _leave(self, share: Share, channel_id: int) -> None:
        del share.holders[channel_id]
        if not share.holders:
            self._drop(share)
        elif share.payer == channel_id:
            self._pay(share)

    def _pay(self, share: Share) -> None:
        payer = next(iter(share.holders.values()))
        share.payer = payer.id
        if share.n_bytes:
            payer.own(share.token)

    def _drop(self, share: Share) -> None:
        del self._shares[share.token]
        self._made.get(share.maker, set()).discard(share.token)
        if share.fd >= 0:
            self._nr_descriptors -= 1
            os.close(share.fd)
