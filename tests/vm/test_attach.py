# SPDX-License-Identifier: Apache-2.0
"""Attaching, case by case: what is plugged in, what needs a power cycle, what comes at the next start, and what is proven."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from orion_virt.domain import definition, shmem
from orion_virt.units import MIB
from vm import life
from vm.harness import Guest
from vm.stage import Setup, eventually
from vm.test_domain import config_device, live_device

pytestmark = [pytest.mark.vm, pytest.mark.root]

BRIDGE = "<controller type='pci' model='pcie-to-pci-bridge'/>"
NOT_YET = "proven:     not yet"


def orion(setup: Setup, *arguments: str, status: int = 0) -> str:
    """An `orion-virt` command's output."""
    done = setup.oriond.command(*arguments)
    assert done.returncode == status and "Traceback" not in done.stderr, done.stdout + done.stderr
    return done.stdout + done.stderr


def inactive(setup: Setup, name: str) -> list[str]:
    """The definition, line by line; libvirt sorts devices anew where one was added and removed."""
    return sorted(setup.libvirt.virsh("dumpxml", "--inactive", name).stdout.splitlines())


def live_mib(setup: Setup, name: str) -> int:
    found = live_device(setup, name)
    return found.size_bytes // MIB if found else 0


@pytest.fixture(scope="module")
def q35(setup: Setup) -> Iterator[Guest]:
    """Detached for good, so that the tests say when it gets the device."""
    made = life.carried(setup.libvirt, setup.host.state, "q35", machine="q35")
    try:
        made.define()
        eventually(lambda: config_device(setup, "q35") is not None, "no device in the definition")
        orion(setup, "detach", "--persistent", "q35")
        plain = setup.libvirt.virsh("dumpxml", "--inactive", "q35").stdout
        setup.libvirt.define(plain.replace("</devices>", f"{BRIDGE}</devices>"))
        yield made
    finally:
        made.destroy()
    eventually(lambda: setup.regions() == [], "the region's file is left")


def test_q35_with_a_bridge_takes_a_small_region_now(setup: Setup, q35: Guest) -> None:
    """Programs compute in it, one at a time."""
    q35.start()
    said = orion(setup, "attach", "q35")
    assert "definition: attached" in said and "attached, 2 MiB now and 128 MiB from the next start on" in said and NOT_YET in said
    assert live_mib(setup, "q35") == 2 and config_device(setup, "q35") == shmem.Shmem(f"orion-{q35.uuid}", 128 * MIB, "ua-orion0")
    life.ready(setup, q35)
    life.compute(q35)
    again = orion(setup, "attach", "q35")
    assert "already attached" in again and "has 2 MiB until it shuts down" in again


def test_q35_has_the_full_size_at_its_next_start(setup: Setup, q35: Guest) -> None:
    setup.libvirt.virsh("destroy", "q35")
    q35.close()
    q35.start()
    life.ready(setup, q35)
    assert live_mib(setup, "q35") == 128
    life.compute(q35)


def test_q35_takes_again_what_its_firmware_made_room_for(setup: Setup, q35: Guest) -> None:
    """Hot detach ends the program that computes; the same size comes back and works."""
    life.begin(q35)
    assert "running:    detached" in orion(setup, "detach", "q35")
    life.ends(q35)
    assert setup.regions() == [] and live_mib(setup, "q35") == 0
    assert "was not attached" in orion(setup, "detach", "q35")
    said = orion(setup, "attach", "q35")
    assert "attached, 128 MiB\n" in said and NOT_YET in said
    life.ready(setup, q35)
    life.compute(q35)
    assert "proven:     by a handshake" in orion(setup, "attach", "q35")


def test_started_paused_for_one_run(setup: Setup, q35: Guest) -> None:
    """A definition that is left alone, and yet any size: the firmware has not looked for devices when it is plugged in."""
    setup.libvirt.virsh("destroy", "q35")
    q35.close()
    orion(setup, "detach", "--persistent", "q35")
    before = inactive(setup, "q35")
    said = orion(setup, "attach", "--start", "--once", "--size", "64", "q35")
    assert "unchanged: for this run only" in said and "started with 64 MiB" in said
    q35.wait_ready()
    life.ready(setup, q35)
    life.compute(q35)
    assert inactive(setup, "q35") == before and setup.oriond.domain("q35")["proven"] is True
    assert "is running already" in orion(setup, "attach", "--start", "q35", status=4)
    setup.libvirt.virsh("destroy", "q35")


def test_q35_without_a_bridge(setup: Setup) -> None:
    """Nowhere to plug it in: said, and the definition becomes what it was when the device goes again."""
    setup.oriond.stop()
    try:
        bare = life.carried(setup.libvirt, setup.host.state, "bare", machine="q35", files=())
        bare.define()
        before = inactive(setup, "bare")
        setup.libvirt.virsh("start", "bare")  # what it boots does not matter here
    finally:
        setup.oriond.start()
    try:
        eventually(lambda: any("needs a power cycle" in p for p in setup.oriond.domain("bare").get("problems", [])), "not said")
        assert config_device(setup, "bare") is not None and live_mib(setup, "bare") == 0 and setup.regions() == []
        assert re.search(r"already attached\n.*needs a power cycle", orion(setup, "attach", "bare"))
        assert "needs a power cycle" in orion(setup, "attach", "--once", "bare")
        assert inactive(setup, "bare") != before
        orion(setup, "detach", "--persistent", "bare")
        assert inactive(setup, "bare") == before
    finally:
        bare.destroy()


def test_transient_domains(setup: Setup) -> None:
    """One that oriond starts from its XML, on a q35 without a bridge, and one that is there already; both in one command."""
    ours = life.carried(setup.libvirt, setup.host.state, "ours", machine="q35")
    theirs = life.carried(setup.libvirt, setup.host.state, "theirs")
    path = setup.host.state / "vm" / "transient.xml"
    try:
        path.write_text(ours.xml())
        said = orion(setup, "attach", "--start", str(path))
        assert "definition: transient domain" in said and "started with 128 MiB" in said
        path.write_text(theirs.xml())
        setup.libvirt.virsh("create", str(path))
        for guest in (ours, theirs):
            guest.wait_ready()
            life.ready(setup, guest)
            life.compute(guest)
        assert orion(setup, "attach", "ours", "theirs").count("by a handshake") == 2
        partly = orion(setup, "attach", "ours", "nobody", "theirs", status=3)
        assert partly.count("already attached") == 2 and "nobody" in partly
        assert orion(setup, "detach", "theirs", "ours").count("running:    detached") == 2
        assert setup.regions() == []
    finally:
        ours.destroy()
        theirs.destroy()


@pytest.mark.parametrize(("text", "status", "words"), [
    ("<domain", 8, "not readable"), ("<network/>", 8, "no <domain>"),
    ("<domain type='qemu'><name>x</name><devices/></domain>", 4, "an os <type>")])
def test_a_file_that_is_no_domain(setup: Setup, text: str, status: int, words: str) -> None:
    path = setup.host.state / "vm" / "bad.xml"
    path.write_text(text)
    assert words in orion(setup, "attach", "--start", str(path), status=status)
    assert "can only be started" in orion(setup, "attach", str(path), status=2)
    assert setup.regions() == []


def test_the_definition_of_a_domain_that_never_ran_is_restored(setup: Setup) -> None:
    guest = life.carried(setup.libvirt, setup.host.state, "shut", machine="q35", files=())
    setup.oriond.stop()
    guest.define()
    before = inactive(setup, "shut")
    setup.oriond.start()
    try:
        eventually(lambda: config_device(setup, "shut") is not None, "no device")
        models = [e.get("model") for e in definition.parse(setup.libvirt.virsh("dumpxml", "shut").stdout).iterfind("devices/controller")]
        assert "pcie-to-pci-bridge" in models
        orion(setup, "detach", "--persistent", "shut")
        assert inactive(setup, "shut") == before
    finally:
        guest.destroy()
