# SPDX-License-Identifier: Apache-2.0
"""Vectors of a domain's doorbell among its channels: each one's own, given back, never leaked."""

from __future__ import annotations

import asyncio
import os
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from host import wait_for

from ivshmem import server
from orion_virt.region.extents import Extents
from orion_virt.region.regions import Region
from orion_virt.server.doorbells import Bell, Doorbells

SIZE = 1 << 22


@pytest.fixture
def region(tmp_path: Path) -> Iterator[Region]:
    """A region whose server has its QEMU, which is us."""
    path, where, control = tmp_path / "region", str(tmp_path / "d.sock"), str(tmp_path / "d.ctl")
    path.write_bytes(bytes(SIZE))
    serving = server.Server(str(path), where, control, os.getegid())
    thread = threading.Thread(target=serving.run)
    thread.start()
    qemu = socket.socket(socket.AF_UNIX)
    qemu.connect(where)
    for _ in range(3 + 2 * server.VECTORS):
        for fd in socket.recv_fds(qemu, 8, 1)[1]:
            os.close(fd)
    assert wait_for(lambda: serving._qemu), "the greeting does not end"  # until then the server has what it sent too
    fd = os.open(path, os.O_RDWR)
    yield Region("d", path, fd, SIZE, Extents(SIZE), doorbell=control)
    os.close(fd)
    path.unlink(missing_ok=True)
    qemu.close()
    thread.join(5)
    assert not thread.is_alive()
    close(serving)


def close(serving: server.Server) -> None:
    """What the process's end does."""
    selector: selectors.BaseSelector = serving._selector
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    selector.close()
    for fd in (serving._region, *serving._host):
        os.close(fd)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_each_channel_has_its_own_until_there_are_none(region: Region) -> None:
    async def run() -> None:
        bells = Doorbells()
        found = await asyncio.gather(*(bells.take(region) for _ in range(server.VECTORS + 2)))
        got = [bell for bell in found if bell is not None]
        assert sorted(bell.value & 0xFFFF for bell in got) == list(range(server.VECTORS)) and found.count(None) == 2
        assert {bell.value >> 16 for bell in got} == {server.HOST}
        got[7].close()
        again = await bells.take(region)
        assert again is not None and again.value == got[7].value
        for bell in (*got[:7], *got[8:], again):
            bell.close()

    before = descriptors()
    asyncio.run(run())
    assert wait_for(lambda: descriptors() == before), (before, descriptors())  # the server closes after it has answered


def test_domains_do_not_share_vectors(region: Region) -> None:
    async def run() -> None:
        bells = Doorbells()
        other = Region("e", region.path, region.fd, SIZE, Extents(SIZE), doorbell=region.doorbell)
        first, second = await bells.take(region), await bells.take(other)
        assert isinstance(first, Bell) and isinstance(second, Bell) and first.value == second.value
        first.close()
        second.close()

    asyncio.run(run())


def test_a_handshake_that_is_cut_off_leaks_nothing(region: Region) -> None:
    async def run() -> None:
        bells = Doorbells()
        for _ in range(20):
            task = asyncio.create_task(bells.take(region))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        while bells._busy:
            await asyncio.sleep(0.01)

    before = descriptors()
    asyncio.run(run())
    assert wait_for(lambda: descriptors() == before), (before, descriptors())  # the server closes after it has answered


def test_a_region_without_a_doorbell_or_with_a_dead_server(region: Region, tmp_path: Path) -> None:
    async def run(doorbell: str) -> None:
        region.doorbell = doorbell
        bells = Doorbells()
        assert await bells.take(region) is None and not bells._busy

    for doorbell in ("", str(tmp_path / "nobody.ctl")):
        asyncio.run(run(doorbell))
