# SPDX-License-Identifier: Apache-2.0
"""Region files without a running domain: made ahead where there is no hook, and swept up where nobody uses them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orion_virt.config import ServerConfig
from orion_virt.domain import shmem
from orion_virt.domain.connection import View
from orion_virt.errors import OrionError, QuotaExceeded
from orion_virt.hook import label
from orion_virt.region.regions import Regions
from orion_virt.server import libvirt_hook, waiting
from orion_virt.server.remembered import Remembered
from orion_virt.units import MIB
from test_domain_equip import UUID, xml

OTHER = "99999999-2222-3333-4444-555555555555"
THIRD = "88888888-2222-3333-4444-555555555555"


class Kit:
    def __init__(self, directory: Path) -> None:
        self.base = directory / "shm"
        self.base.mkdir(exist_ok=True)
        config = ServerConfig(shm_path_base=str(self.base), shm_group_name="root", shm_budget_bytes=64 * MIB)
        self.regions = Regions(config, b"b" * 16, b"", directory / "regions.json")
        self.memory = Remembered.load(directory / "domains.json")
        self.waiting = waiting.Waiting(str(self.base), self.regions, self.memory)

    def files(self) -> list[str]:
        return sorted(os.listdir(self.base))

    def path(self, uuid: str) -> Path:
        return self.base / f"orion-{uuid}"


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kit:
    monkeypatch.setattr(libvirt_hook, "is_installed", lambda: False)
    return Kit(tmp_path)


def view(mib: int = 8, device: bool = True) -> View:
    return View(UUID, "vm1", -1, None, xml(shmem.device_xml(UUID, mib * MIB) if device else ""))


def test_a_region_waits_for_the_start(kit: Kit, tmp_path: Path) -> None:
    kit.waiting.prepare(view())
    inode = kit.path(UUID).stat().st_ino
    kit.waiting.prepare(view())
    assert kit.path(UUID).stat().st_ino == inode and kit.path(UUID).stat().st_size == 8 * MIB
    assert Remembered.load(tmp_path / "domains.json").prepared == {UUID}
    kit.waiting.sweep(kit.waiting.found(), set(), {UUID})
    assert kit.files() == [f"orion-{UUID}"]


def test_it_has_a_label_where_selinux_is_on(kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, bytes]] = []
    (tmp_path / "enforce").touch()
    monkeypatch.setattr(label, "ENFORCE", str(tmp_path / "enforce"))
    monkeypatch.setattr(os, "setxattr", lambda file, name, value: found.append((name, value)))
    kit.waiting.prepare(view())
    assert found == [("security.selinux", b"system_u:object_r:svirt_tmpfs_t:s0\0")]


def test_another_size_in_the_definition(kit: Kit) -> None:
    kit.waiting.prepare(view())
    kit.waiting.prepare(view(16))
    assert kit.path(UUID).stat().st_size == 16 * MIB and kit.regions.used_bytes == 16 * MIB


def test_what_qemu_made_is_replaced_not_used(kit: Kit) -> None:
    kit.path(UUID).write_bytes(b"of QEMU")
    held = kit.path(UUID).open("rb")
    kit.waiting.prepare(view())
    assert kit.path(UUID).stat().st_size == 8 * MIB and held.read() == b"of QEMU"
    held.close()


def test_a_directory_in_the_way_is_named(kit: Kit) -> None:
    kit.path(UUID).mkdir()
    with pytest.raises(OrionError, match="is in the way") as error:
        kit.waiting.prepare(view())
    assert f"rm -r {kit.path(UUID)}" in error.value.hint


def test_over_the_budget_is_said(kit: Kit) -> None:
    with pytest.raises(QuotaExceeded):
        kit.waiting.prepare(view(128))
    assert kit.files() == [] and kit.memory.prepared == set()


def test_nothing_waits_where_the_hook_makes_it_or_no_device_is_defined(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    kit.waiting.prepare(view())
    kit.waiting.prepare(view(device=False))
    assert kit.files() == [] and kit.memory.prepared == set()
    kit.waiting.prepare(view())
    monkeypatch.setattr(libvirt_hook, "is_installed", lambda: True)
    kit.waiting.prepare(view())
    assert kit.files() == [] and list(kit.regions) == []


def test_orphans_go_and_what_is_used_stays(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """`region create` made OTHER, UUID runs, THIRD is nobody's."""
    kit.regions.create(OTHER, 2 * MIB)
    kit.path(UUID).touch()
    kit.path(THIRD).touch()
    (kit.base / "orion-of-somebody").touch()
    kit.waiting.sweep(kit.waiting.found(), {UUID}, {UUID})
    assert kit.files() == sorted([f"orion-{OTHER}", f"orion-{UUID}", "orion-of-somebody"])
    monkeypatch.setattr(waiting, "user_of", lambda path: "4711")
    kit.path(THIRD).touch()
    kit.waiting.sweep(kit.waiting.found(), {UUID}, {UUID})
    assert kit.path(THIRD).exists()


def test_a_domain_that_starts_while_we_look_keeps_its_file(kit: Kit) -> None:
    """The hook has made a new one of the same name since the files were listed."""
    kit.path(THIRD).touch()
    found = kit.waiting.found()
    (kit.base / "new").touch()
    (kit.base / "new").rename(kit.path(THIRD))
    kit.waiting.sweep(found, set(), {THIRD})
    assert kit.path(THIRD).exists()
    kit.waiting.sweep(kit.waiting.found(), set(), {THIRD})
    assert not kit.path(THIRD).exists()


def test_an_orphan_that_cannot_go_keeps_nobody_else(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:
    kit.path(OTHER).mkdir()
    kit.path(THIRD).touch()
    kit.waiting.sweep(kit.waiting.found(), set(), set())
    assert kit.files() == [f"orion-{OTHER}"] and f"rm -r {kit.path(OTHER)}" in caplog.text


def test_a_region_of_a_domain_that_ended_without_us(kit: Kit) -> None:
    kit.regions.create(UUID, 2 * MIB)
    kit.memory.lives[UUID] = [1, 2]
    kit.waiting.sweep(kit.waiting.found(), set(), {UUID})
    assert kit.files() == [] and list(kit.regions) == [] and kit.memory.lives == {}


def test_who_uses_a_file(tmp_path: Path) -> None:
    import mmap
    import subprocess
    import sys

    name = f"orion-{OTHER}"
    (tmp_path / name).write_bytes(bytes(mmap.PAGESIZE))
    with (tmp_path / name).open("r+b") as ours:
        assert waiting.user_of(tmp_path / name) == "", "we ourselves do not count"
        program = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); print(flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", program, ours.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout and child.stdout.readline()
            assert waiting.user_of(tmp_path / name) == str(child.pid)
            child.communicate()
