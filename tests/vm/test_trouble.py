# SPDX-License-Identifier: Apache-2.0
"""What must go wrong well: unknown domains, clones, planted files, a full /dev/shm, libvirt down."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import pytest

from orion_virt.domain import definition, shmem
from orion_virt.units import MIB
from vm.stage import Setup, eventually
from vm.harness import Guest
from vm.test_domain import config_device, live_device

pytestmark = [pytest.mark.vm, pytest.mark.root]


def defined(setup: Setup, guest: Guest) -> Guest:
    guest.define()
    eventually(lambda: config_device(setup, guest.config.name) is not None, "no device in the definition")
    return guest


def refused(setup: Setup, *arguments: str) -> tuple[int, str]:
    """Exit status and message of an `orion-virt` command that must fail without a traceback."""
    done = setup.oriond.command(*arguments)
    assert done.returncode != 0 and done.stdout == "" and "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_unknown_domain(setup: Setup) -> None:
    for command in ("attach", "detach", "show"):
        status, text = refused(setup, command, "no-such-vm")
        assert status == 3 and "no-such-vm" in text and "virsh list" in text


def test_already_attached(setup: Setup, guests: Callable[..., Guest]) -> None:
    defined(setup, guests("twice"))
    done = setup.oriond.command("attach", "twice")
    assert done.returncode == 0 and "already attached" in done.stdout
    xml = definition.parse(setup.libvirt.virsh("dumpxml", "--inactive", "twice").stdout)
    assert len(shmem.find_all(xml)) == 1


def test_attach_with_size_then_detach_for_good(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = defined(setup, guests("sized"))
    done = setup.oriond.command("attach", "sized", "--size", "33")
    assert done.returncode == 0 and "64 MiB" in done.stdout
    found = config_device(setup, "sized")
    assert found is not None and found.size_bytes == 64 * MIB
    status, text = refused(setup, "detach", "sized")
    assert status == 4 and "--persistent" in text
    assert setup.oriond.command("detach", "--persistent", "sized").returncode == 0
    assert config_device(setup, "sized") is None
    setup.oriond.stop()
    setup.oriond.start()
    eventually(lambda: not setup.oriond.domain("sized").get("wanted", True), "not remembered")
    assert config_device(setup, "sized") is None
    assert setup.oriond.command("attach", guest.uuid).returncode == 0
    found = config_device(setup, "sized")
    assert found is not None and found.size_bytes == 64 * MIB


def test_an_outside_tool_that_removes_the_device_wins_at_last(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = defined(setup, guests("tug"))
    guest.define()  # without the device
    eventually(lambda: config_device(setup, "tug") is not None, "not given back once")
    guest.define()
    eventually(lambda: any("keeps removing" in p for p in setup.oriond.domain("tug")["problems"]), "a tug of war")
    assert config_device(setup, "tug") is None


def test_excluded_by_metadata(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = guests("no", metadata="<o:vgpu xmlns:o='https://orion-virt/domain/1' enabled='no' memory='lots'/>")
    guest.define()
    eventually(lambda: setup.oriond.domain("no") != {}, "not seen")
    assert config_device(setup, "no") is None
    assert any("memory='lots'" in p for p in setup.oriond.domain("no")["problems"])
    status, text = refused(setup, "attach", "no")
    assert status == 4 and "enabled='no'" in text


def test_a_clone_gets_a_region_of_its_own(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = defined(setup, guests("original"))
    clone = guests("clone", devices=f"<shmem name='orion-{guest.uuid}' role='master'><model type='ivshmem-plain'/>"
                                    "<size unit='M'>128</size></shmem>")
    defined(setup, clone)
    names = [s.name for s in shmem.find_all(definition.parse(setup.libvirt.virsh("dumpxml", "clone").stdout))]
    assert names == [f"orion-{clone.uuid}"]
    assert config_device(setup, "original") is not None


def test_a_clone_is_refused_while_oriond_is_down(setup: Setup, guests: Callable[..., Guest]) -> None:
    setup.oriond.stop()
    try:
        clone = guests("copy", devices=f"<shmem name='orion-{uuid.uuid4()}' role='master'><model type='ivshmem-plain'/>"
                                       "<size unit='M'>128</size></shmem>")
        clone.define()
        done = setup.libvirt.virsh("start", "copy", check=False)
        assert done.returncode != 0 and "of another domain" in done.stderr and "virsh edit copy" in done.stderr
        assert setup.regions() == []
    finally:
        setup.oriond.start()


def test_required(setup: Setup, guests: Callable[..., Guest]) -> None:
    """Refused while oriond is down, with the remedy; the same domain starts when it is up, and without the word at any time."""
    wanted = "<o:vgpu xmlns:o='https://orion-virt/domain/1' required='{}' region='8'/>"
    must = defined(setup, guests("must", metadata=wanted.format("yes")))
    may = defined(setup, guests("may", metadata=wanted.format("no")))
    setup.oriond.stop()
    try:
        done = setup.libvirt.virsh("start", "must", check=False)
        assert done.returncode != 0 and "systemctl start oriond" in done.stderr and "required='no'" in done.stderr
        assert setup.regions() == []
        setup.libvirt.virsh("start", "may")
    finally:
        setup.oriond.start()
    setup.libvirt.virsh("start", "must")
    for guest in (must, may):
        eventually(lambda guest=guest: bool(setup.oriond.domain(guest.config.name).get("server_addrs")), "no header")


def test_planted_symlink(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = defined(setup, guests("planted"))
    victim = setup.host.state / "victim"
    victim.write_bytes(b"precious")
    (setup.shm / f"orion-{guest.uuid}").symlink_to(victim)
    setup.libvirt.virsh("start", "planted")
    assert victim.read_bytes() == b"precious"
    assert not (setup.shm / f"orion-{guest.uuid}").is_symlink()
    eventually(lambda: bool(setup.oriond.domain("planted").get("server_addrs")), "no header")


def test_planted_directory(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = defined(setup, guests("dir"))
    path = setup.shm / f"orion-{guest.uuid}"
    path.mkdir()
    try:
        done = setup.libvirt.virsh("start", "dir", check=False)
        assert done.returncode != 0 and "rm -r /dev/shm/orion-" in done.stderr
    finally:
        path.rmdir()


def test_full_shm(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = defined(setup, guests("full"))
    setup.host.run(["fallocate", "-l", "1022M", "/dev/shm/ballast"], check=True)
    try:
        done = setup.libvirt.virsh("start", "full", check=False)
        assert done.returncode != 0 and "/dev/shm is full" in done.stderr and "remount,size=" in done.stderr
    finally:
        (setup.shm / "ballast").unlink()
    assert setup.regions() == []
    guest.start()


@pytest.mark.parametrize(("machine", "expected"), [("pc", "attached, 128 MiB"), ("q35", "needs a power cycle")])
def test_a_running_domain_without_the_device(setup: Setup, guests: Callable[..., Guest], machine: str,
                                             expected: str) -> None:
    setup.oriond.stop()
    try:
        guest = guests("late", machine=machine)
        guest.define()
        guest.start()
    finally:
        setup.oriond.start()
    eventually(lambda: config_device(setup, "late") is not None, "not in the definition")
    eventually(lambda: setup.oriond.domain("late")["device"] == "live"
               or any("power cycle" in p for p in setup.oriond.domain("late")["problems"]), "neither plugged nor said")
    assert (live_device(setup, "late") is not None) is (machine == "pc")
    text = setup.oriond.command("attach", "late").stdout
    assert re.search("already attached\n.*already attached" if machine == "pc" else expected, text), text
    if machine == "pc":
        assert "detached" in setup.oriond.command("detach", "late").stdout
        assert live_device(setup, "late") is None and setup.regions() == []
        assert expected in setup.oriond.command("attach", "late").stdout


def test_libvirt_down(setup: Setup, guests: Callable[..., Guest]) -> None:
    defined(setup, guests("before"))
    setup.libvirt.kill()
    try:
        eventually(lambda: not setup.oriond.ask("domains")["ok"], "oriond has not noticed")
        status, text = refused(setup, "list")
        assert status == 6 and "libvirt" in text
        assert setup.oriond.ask("ping")["ok"]
    finally:
        setup.libvirt.launch()
    eventually(lambda: setup.oriond.ask("domains")["ok"], "oriond does not come back")
    guest = guests("after")
    defined(setup, guest)


def test_oriond_down(setup: Setup) -> None:
    setup.oriond.stop()
    try:
        status, text = refused(setup, "list")
        assert status == 6 and "systemctl start oriond" in text
    finally:
        setup.oriond.start()
