# SPDX-License-Identifier: Apache-2.0
"""The regions this daemon knows: their files, headers, extents, and the budget they share."""

from __future__ import annotations

import json
import logging
import os
import uuid as uuids
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orion_virt import layout
from orion_virt.config import ServerConfig
from orion_virt.errors import Conflict, NotFound, OrionError, QuotaExceeded, Unavailable
from orion_virt.region import file, header
from orion_virt.region.extents import Extents
from orion_virt.units import MIB

_log = logging.getLogger("orion.region")


@dataclass
class Region:
    """One domain's shared memory. `fd` stays open as long as we know it."""

    uuid: str
    path: Path
    fd: int
    size_bytes: int
    extents: Extents
    identity: header.Identity | None = None  # None: the header is not written yet
    server_addrs: tuple[str, ...] = ()
    controller_addr: str = ""
    defaults: tuple[int, int] = (0, 0)  # see header.write; in effect when the header is written
    doorbell: str = ""  # where the doorbell's server answers us; "": the device has none that rings
    proven: int = 0  # the generation in which the guest showed that it reads this memory

    @property
    def features(self) -> int:
        """What the header tells the guest."""
        return layout.FEATURE_DOORBELL if self.doorbell else 0

    @property
    def is_proven(self) -> bool:
        """Whether a program of this run of the guest has shaken hands: a device alone may have got no address there."""
        return self.identity is not None and self.identity.generation == self.proven

    def is_current(self) -> bool:
        """False when the file was replaced or removed behind our back."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        ours = os.fstat(self.fd)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def reserve(self, off: int, n_bytes: int) -> None:
        """Real memory for granted extents; blocks, may run in a thread."""
        file.reserve(self.fd, off, n_bytes)

    def wipe(self, off: int, n_bytes: int) -> None:
        """Zeroes; blocks, may run in a thread."""
        file.wipe(self.fd, off, n_bytes)

    def write(self, off: int, data: bytes) -> None:
        os.pwrite(self.fd, data, off)


class Regions:
    """Used from the event loop's thread alone; `Region.reserve` and `wipe` may run elsewhere."""

    def __init__(self, config: ServerConfig, boot_id: bytes, snapshot: bytes, memory: Path | None = None) -> None:
        """`memory`: the file that remembers our regions over a restart."""
        self._base = Path(config.shm_path_base)
        self._group = config.shm_group_name
        self._boot_id = boot_id
        self._snapshot = snapshot
        self._memory = memory
        self._budget = config.shm_budget_bytes
        self._regions: dict[str, Region] = {}

    def reconfigure(self, config: ServerConfig) -> None:
        """Takes another budget; regions that are there stay, also beyond it."""
        self._budget = config.shm_budget_bytes

    # ---- life of a region ----

    def create(self, uuid: str, size_bytes: int) -> Region:
        """A new file of `size_bytes` (power of two, at least 2 MiB). Raises Conflict when one is there."""
        uuid = _canonical(uuid)
        if size_bytes < layout.EXTENT_BYTES or size_bytes & (size_bytes - 1):
            raise Conflict(f"{size_bytes} bytes is no size for a region", hint="Take a power of two of at least 2 MiB")
        if uuid in self._regions:
            raise Conflict(f"the region of {uuid} exists already", hint="Detach the domain first")
        self.check_budget(size_bytes)
        fd = file.create(self._base, uuid, size_bytes, self._group)
        return self._add(uuid, fd, size_bytes)

    def adopt(self, uuid: str, beyond_budget: bool = False) -> Region:
        """Takes up a file that exists (made by the hook, or before a restart); idempotent while it is the same file.

        ``beyond_budget``: it is in use. Raises NotFound, Conflict (unsafe file) or QuotaExceeded.
        """
        uuid = _canonical(uuid)
        known = self._regions.get(uuid)
        if known is not None and known.is_current():
            return known
        if known is not None:
            self.forget(uuid)
        fd, size = file.open_existing(self._base, uuid)
        try:
            if not beyond_budget:
                self.check_budget(size)
        except QuotaExceeded:
            os.close(fd)
            raise
        return self._add(uuid, fd, size)

    def _add(self, uuid: str, fd: int, size_bytes: int) -> Region:
        region = Region(uuid, self._base / file.name(uuid), fd, size_bytes, Extents(size_bytes))
        found = header.read(fd)
        if found is not None and bytes(found.domain_uuid) == uuids.UUID(uuid).bytes:
            region.identity = header.identity(found)
        self._regions[uuid] = region
        self._remember()
        return region

    def prepare_header(self, uuid: str, server_addrs: list[str], controller_addr: str, doorbell: str = "") -> None:
        """Writes the header with these addresses and its feature bits; token and generation are kept where there are any."""
        region = self.get(uuid)
        region.server_addrs, region.controller_addr = tuple(server_addrs), controller_addr
        region.doorbell = doorbell
        if region.identity is None:
            region.identity = header.fresh_identity()
        self._write_header(region)

    def change_addresses(self, uuid: str, server_addrs: list[str], controller_addr: str) -> None:
        """The same for a header that is valid and whose clients shall not notice. Raises Unavailable."""
        region = self.get(uuid)
        region.server_addrs, region.controller_addr = tuple(server_addrs), controller_addr
        try:
            header.write_addrs(region.fd, server_addrs, controller_addr)
        except OSError as error:
            raise Unavailable(f"{region.path} cannot be written: {error.strerror}", hint="Check /dev/shm") from error

    def new_generation(self, uuid: str) -> int:
        """New token and generation: whoever shook hands before is a stranger now. The caller ends channels."""
        region = self.get(uuid)
        region.identity = header.fresh_identity()
        self._write_header(region)
        return region.identity.generation

    def _write_header(self, region: Region) -> None:
        assert region.identity is not None
        try:
            region.reserve(0, layout.HEADER_BYTES)
            header.write(
                region.fd,
                domain=region.uuid,
                boot_id=self._boot_id,
                who=region.identity,
                region_bytes=region.size_bytes,
                server_addrs=list(region.server_addrs),
                controller_addr=region.controller_addr,
                snapshot=self._snapshot,
                features=region.features,
                defaults=region.defaults,
            )
        except OSError as error:
            raise Unavailable(f"{region.path} cannot be written: {error.strerror}", hint="Check /dev/shm") from error

    def remove(self, uuid: str) -> None:
        """Unlinks the file and forgets the region; the caller has ended its channels."""
        region = self.get(uuid)
        if region.is_current():
            region.path.unlink()
        self.forget(uuid)

    def forget(self, uuid: str) -> None:
        """Closes what we hold of a region whose file is not ours to remove."""
        region = self._regions.pop(_canonical(uuid), None)
        if region is not None:
            os.close(region.fd)
            self._remember()

    def close(self) -> None:
        """Lets go of every descriptor; files and memory of them stay."""
        for region in self._regions.values():
            os.close(region.fd)
        self._regions.clear()

    def prove(self, uuid: str) -> None:
        """A program of the guest has shaken hands over the region."""
        region = self.get(uuid)
        if region.identity is not None and not region.is_proven:
            region.proven = region.identity.generation
            self._remember()
            _log.info("domain %s sees its region: proven by a program's handshake", region.uuid)

    # ---- questions ----

    def get(self, uuid: str) -> Region:
        region = self._regions.get(_canonical(uuid))
        if region is None:
            raise NotFound(f"domain {uuid} has no region here", hint="See `orion-virt list`")
        return region

    def find(self, uuid: str) -> Region | None:
        return self._regions.get(_canonical(uuid))

    def __iter__(self) -> Iterator[Region]:
        return iter(list(self._regions.values()))

    @property
    def used_bytes(self) -> int:
        return sum(region.size_bytes for region in self._regions.values())

    @property
    def budget_bytes(self) -> int:
        if self._budget is not None:
            return self._budget
        room = os.statvfs(self._base)
        return room.f_blocks * room.f_frsize // 2

    def check_budget(self, size_bytes: int) -> None:
        """Raises QuotaExceeded when one more region of this size would overcommit the tmpfs."""
        if self.used_bytes + size_bytes > self.budget_bytes:
            raise QuotaExceeded(
                f"a region of {size_bytes // MIB} MiB would exceed the budget: {self.used_bytes // MIB} of "
                f"{self.budget_bytes // MIB} MiB are in use",
                hint="Raise [server-shm] shm_budget or lower shm_buffer_size",
            )

    def inspect(self, uuid: str) -> dict[str, Any]:
        """What a person wants to know of a region; never its token."""
        region = self.get(uuid)
        return {
            "uuid": region.uuid,
            "path": str(region.path),
            "size_mib": region.size_bytes // MIB,
            "generation": region.identity.generation if region.identity else None,
            "extents": region.extents.nr,
            "extents_used": region.extents.nr_used,
            "server_addrs": list(region.server_addrs),
            "controller_addr": region.controller_addr,
            "current": region.is_current(),
        }

    def beat(self) -> None:
        """Writes the heartbeat of every region."""
        for region in self:
            if region.identity is not None:
                header.beat(region.fd)

    # ---- memory over a restart ----

    def restore(self) -> None:
        """Adopts what an earlier daemon of this state directory knew and is still there."""
        for uuid, proven in self._recall().items():
            try:
                region = self.adopt(uuid, beyond_budget=True)  # it was within the budget when it was made
                region.proven = proven
                found = header.read(region.fd)
                if found is not None:
                    addrs = [found.server_addr[i].value.decode("ascii", "replace") for i in range(layout.MAX_ADDRS)]
                    controller = found.controller_addr.decode("ascii", "replace")
                    region.defaults = header.defaults(found)
                    self.prepare_header(uuid, [addr for addr in addrs if addr], controller)
            except NotFound:
                continue
            except OrionError as error:
                _log.warning("region of domain %s is not taken up again: %s", uuid, error)
        self._remember()

    def _recall(self) -> dict[str, int]:
        """UUIDs, each with the generation in which its guest was proven to see it."""
        if self._memory is None:
            return {}
        try:
            found = json.loads(self._memory.read_text())
            if isinstance(found, list):  # of an earlier version
                found = dict.fromkeys(found, 0)
            return {str(uuids.UUID(item)): int(proven) for item, proven in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _log.warning("%s is not readable, regions of before are forgotten: %s", self._memory, error)
            return {}

    def _remember(self) -> None:
        if self._memory is None:
            return
        fresh = self._memory.with_suffix(".new")
        try:
            fresh.write_text(json.dumps({uuid: region.proven for uuid, region in sorted(self._regions.items())}))
            fresh.replace(self._memory)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self._memory, error)


def _canonical(uuid: str) -> str:
    return file.name(uuid)[len("orion-") :]
