# SPDX-License-Identifier: Apache-2.0
"""A region's header page: read and written with pread and pwrite, never mapped, since a guest may truncate the file."""

from __future__ import annotations

import os
import time
import uuid as uuids
from dataclasses import dataclass

from orion_virt import layout
from orion_virt.errors import Unavailable

_MAGIC_BYTES = layout.MAGIC.to_bytes(8, "little")


@dataclass(frozen=True)
class Identity:
    """What pairs a connection with a region, and one life of the domain with its channels."""

    token: bytes
    generation: int


def fresh_identity() -> Identity:
    """A new secret and a generation that was never used before."""
    return Identity(os.urandom(16), time.time_ns())


def read(fd: int) -> layout.Header | None:
    """The header, or None where there is no whole one of our version."""
    raw = os.pread(fd, layout.ctypes.sizeof(layout.Header), 0)
    if len(raw) < layout.ctypes.sizeof(layout.Header):
        return None
    header = layout.Header.from_buffer_copy(raw)
    if header.magic != layout.MAGIC or header.version != layout.LAYOUT_VERSION:
        return None
    return header


def identity(header: layout.Header) -> Identity:
    return Identity(bytes(header.token), header.generation)


def defaults(header: layout.Header) -> tuple[int, int]:
    """vGPUs and MiB for processes that do not say what they want; 0: ours."""
    return header.default_vgpus, header.default_memory_mib


def has_mailbox(header: layout.Header) -> bool:
    """False for one that an older oriond wrote."""
    return bool(header.features & layout.FEATURE_MAILBOX)


def write(
    fd: int,
    *,
    domain: str,
    boot_id: bytes,
    who: Identity,
    region_bytes: int,
    server_addrs: list[str],
    controller_addr: str,
    snapshot: bytes,
    features: int = 0,
    defaults: tuple[int, int] = (0, 0),
) -> None:
    """Writes header and snapshot; the magic is zero meanwhile and written last.

    ``defaults``: vGPUs of a process and MiB of a vGPU where its user says nothing; 0: ours.
    """
    header = layout.Header(
        version=layout.LAYOUT_VERSION,
        header_bytes=layout.HEADER_BYTES,
        region_bytes=region_bytes,
        generation=who.generation,
        features=layout.FEATURE_MAILBOX | features,
        snapshot_bytes=len(snapshot),
        heartbeat=int(time.time()),
        default_vgpus=defaults[0],
        default_memory_mib=defaults[1],
    )
    header.domain_uuid[:] = uuids.UUID(domain).bytes
    header.boot_id[:] = boot_id
    header.token[:] = who.token
    for index, addr in enumerate(server_addrs[: layout.MAX_ADDRS]):
        header.server_addr[index].value = _addr(addr)
    header.controller_addr = _addr(controller_addr)
    _pwrite(fd, bytes(8), 0)
    _pwrite(fd, snapshot, layout.SNAPSHOT_OFF)
    _pwrite(fd, bytes(header)[8:], 8)
    _pwrite(fd, _MAGIC_BYTES, 0)


def write_addrs(fd: int, server_addrs: list[str], controller_addr: str) -> None:
    """Only the addresses of a header that is valid and stays so: clients may be reading it.

    One that reads half of the old and half of the new dials an address that does not answer, and then the next.
    """
    width, nr = layout.ADDR_BYTES, layout.MAX_ADDRS
    slots = [_addr(addr).ljust(width, b"\0") for addr in server_addrs[:nr]]
    _pwrite(fd, b"".join(slots).ljust(width * nr, b"\0"), layout.Header.server_addr.offset)
    _pwrite(fd, _addr(controller_addr).ljust(width, b"\0"), layout.Header.controller_addr.offset)


def beat(fd: int) -> None:
    """Writes the time, for people."""
    _pwrite(fd, int(time.time()).to_bytes(8, "little"), layout.Header.heartbeat.offset)


def _addr(text: str) -> bytes:
    raw = text.encode()
    if len(raw) >= layout.ADDR_BYTES:
        raise Unavailable(f"the address {text!r} is too long for a region's header", hint="Use an IP address")
    return raw


def _pwrite(fd: int, data: bytes, off: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, off)
        view, off = view[done:], off + done
