# SPDX-License-Identifier: Apache-2.0
"""The end of a QEMU is seen by its pidfd, and nobody else's is taken for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orion_virt.server import process

UUID = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a QEMU's arguments, and libvirt's pid file."""
    monkeypatch.setattr(process, "PID_FILES", tmp_path)
    program = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program, "-uuid", UUID], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        assert made.stdout and made.stdout.readline()  # until then its command line may not be there yet
        (tmp_path / "vm1.pid").write_text(f"{made.pid}\n")
        yield made
        made.kill()


def test_its_end_is_told_once(qemu: subprocess.Popen[bytes]) -> None:
    told: list[tuple[str, str, list[int]]] = []

    async def watch() -> None:
        done = asyncio.Event()
        watch = process.Watch(lambda *what: (told.append(what), done.set()))  # type: ignore[func-returns-value]
        watch.follow(UUID, "vm1", [3, 4])
        watch.follow(UUID, "vm1", [3, 4])
        watch.follow(UUID, "vm1", [3, 5])  # the guest was reset: another life in the same process
        qemu.kill()
        await asyncio.wait_for(done.wait(), 10)
        watch.close()

    asyncio.run(watch())
    assert told == [(UUID, "vm1", [3, 5])]


def test_who_is_forgotten_is_not_told(qemu: subprocess.Popen[bytes]) -> None:
    async def watch() -> None:
        watch = process.Watch(lambda *what: pytest.fail("told"))
        watch.follow(UUID, "vm1", [3, 4])
        watch.forget(UUID)
        qemu.kill()
        await asyncio.to_thread(qemu.wait)
        await asyncio.sleep(0)

    asyncio.run(watch())


def test_another_process_of_that_number_is_not_taken(qemu: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert process.open_pidfd(UUID.replace("1", "2"), "vm1") is None
    (tmp_path / "vm1.pid").write_text("no number")
    assert process.open_pidfd(UUID, "vm1") is None
    assert process.open_pidfd(UUID, "vm2") is None
