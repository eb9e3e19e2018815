# SPDX-License-Identifier: Apache-2.0
"""A real domain from its definition to its end: device, region, header, and nothing left."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orion_virt import layout
from orion_virt.domain import definition, shmem
from orion_virt.region import header
from orion_virt.units import MIB
from vm.stage import Setup, eventually
from vm.harness import Guest

pytestmark = [pytest.mark.vm, pytest.mark.root]

FIND_DEVICE = """
for d in /sys/bus/pci/devices/*; do
    [ "$(cat $d/vendor)$(cat $d/device)" = 0x1af40x1110 ] && echo $d
done
true
"""


def config_device(setup: Setup, name: str) -> shmem.Shmem | None:
    return shmem.find_own(definition.parse(setup.libvirt.virsh("dumpxml", "--inactive", name).stdout))


def live_device(setup: Setup, name: str) -> shmem.Shmem | None:
    return shmem.find_own(definition.parse(setup.libvirt.virsh("dumpxml", name).stdout))


def read_header(setup: Setup, guest: Guest) -> layout.Header | None:
    try:
        fd = os.open(setup.shm / f"orion-{guest.uuid}", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return header.read(fd)
    finally:
        os.close(fd)


def guest_sees_magic(guest: Guest) -> bool:
    found = guest.run(FIND_DEVICE, user="root").output.split()
    assert len(found) == 1, f"the guest's ivshmem devices: {found}"
    shown = guest.run(f"devmem $(sed -n 3p {found[0]}/resource | cut -d' ' -f1) 64", user="root").output
    return shown.strip() == f"0x{layout.MAGIC:016X}"


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_from_definition_to_end(setup: Setup, guests: Callable[..., Guest], machine: str) -> None:
    guest = guests("whole", machine=machine)
    guest.define()
    eventually(lambda: config_device(setup, "whole") is not None, "oriond has not put the device into the definition")
    guest.start()
    info = (setup.shm / f"orion-{guest.uuid}").stat()
    assert (info.st_size, stat.S_IMODE(info.st_mode), info.st_uid) == (128 * MIB, 0o660, 0)
    eventually(lambda: read_header(setup, guest) is not None, "no header")
    found = read_header(setup, guest)
    assert found is not None
    assert found.server_addr[0].value.decode() == f"{setup.libvirt.gateway}:9960"
    assert found.controller_addr.decode().startswith(setup.libvirt.gateway)
    assert any(bytes(found.token)) and found.generation
    assert guest_sees_magic(guest)
    dial = f"for port in 9960 9123; do nc -w 2 {setup.libvirt.gateway} $port </dev/null || exit 1; done"
    dialled = guest.run(dial)
    assert dialled.status == 0, f"the guest does not reach oriond or the controller: {dialled.output}"
    shown = setup.oriond.domain("whole")
    assert (shown["device"], shown["state"], shown["problems"]) == ("live", "running", [])
    assert shown["addresses"] and shown["addresses"][0].startswith("10.213.77.")
    setup.libvirt.virsh("destroy", "whole")
    eventually(lambda: setup.regions() == [], "the region's file is left")
    eventually(lambda: setup.oriond.domain("whole")["state"] == "shut off", "still running")
    guest.close()
    guest.start()
    again = read_header(setup, guest)
    eventually(lambda: read_header(setup, guest) is not None, "no header at the second start")
    again = read_header(setup, guest)
    assert again is not None and bytes(again.token) != bytes(found.token) and again.generation != found.generation


def test_gone_when_the_guest_powers_off(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = guests("off")
    guest.define()
    eventually(lambda: config_device(setup, "off") is not None, "no device")
    guest.start()
    assert setup.regions() == [f"orion-{guest.uuid}"]
    guest.run("(sleep 1; /run/harness/busybox poweroff -f) >/dev/null 2>&1 &", user="root")
    eventually(lambda: setup.regions() == [], "the region's file is left", 120)


def test_region_keeps_through_a_restart_of_oriond(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = guests("kept")
    guest.define()
    eventually(lambda: config_device(setup, "kept") is not None, "no device")
    guest.start()
    eventually(lambda: read_header(setup, guest) is not None, "no header")
    before = read_header(setup, guest)
    for number in (signal.SIGTERM, signal.SIGKILL):
        setup.oriond.stop(number)
        setup.oriond.start()
        eventually(lambda: bool(setup.oriond.domain("kept").get("server_addrs")), "not taken up again")
        after = read_header(setup, guest)
        assert before is not None and after is not None
        assert bytes(after.token) == bytes(before.token) and after.generation == before.generation
        assert bytes(after.boot_id) != bytes(before.boot_id)
    assert guest_sees_magic(guest)


def test_save_and_restore_give_a_new_generation(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = guests("saved", network=True)
    guest.define()
    eventually(lambda: config_device(setup, "saved") is not None, "no device")
    guest.start()
    eventually(lambda: read_header(setup, guest) is not None, "no header")
    before = read_header(setup, guest)
    image = str(setup.host.state / "vm" / "saved.image")
    setup.libvirt.virsh("save", "saved", image)
    eventually(lambda: setup.regions() == [], "the region's file is left")
    guest.close()
    setup.libvirt.virsh("restore", image)
    Path(image).unlink()
    eventually(lambda: (h := read_header(setup, guest)) is not None and before is not None
               and bytes(h.token) != bytes(before.token) and h.generation != before.generation,
               "the restored region has the old secret")


def test_our_save_is_a_managed_save(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = guests("kept-image")
    guest.define()
    eventually(lambda: config_device(setup, "kept-image") is not None, "no device")
    guest.start()
    eventually(lambda: read_header(setup, guest) is not None, "no header")
    before = read_header(setup, guest)
    assert before is not None
    done = setup.oriond.command("save", "kept-image")
    assert done.returncode == 0 and "kept-image is saved" in done.stdout, done.stdout + done.stderr
    eventually(lambda: setup.regions() == [], "the region's file is left")
    again = setup.oriond.command("save", "kept-image")
    assert again.returncode == 4 and "is not running" in again.stderr
    guest.close()
    setup.libvirt.virsh("start", "kept-image")
    eventually(lambda: (h := read_header(setup, guest)) is not None and h.generation != before.generation,
               "the restored region has the old secret")
    guest.reconnect()
    assert guest_sees_magic(guest)


def test_oriond_down_at_start(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = guests("alone")
    guest.define()
    eventually(lambda: config_device(setup, "alone") is not None, "no device")
    setup.oriond.stop()
    try:
        guest.start()
        assert read_header(setup, guest) is None
        assert guest.run(FIND_DEVICE, user="root").output.strip()
    finally:
        setup.oriond.start()
    eventually(lambda: read_header(setup, guest) is not None, "oriond does not take up a domain started without it")
    assert guest_sees_magic(guest)
