# SPDX-License-Identifier: Apache-2.0
"""A domain with no NIC: an ordinary user's programs reach the host through the region alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator

import pytest

from orion_virt import layout, paths
from orion_virt.region import header
from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig, Result, Share
from vm.harness.root import guest_root
from vm.stage import Setup, eventually

pytestmark = [pytest.mark.vm, pytest.mark.root]

DEMO = "/usr/lib/orion/demo/orion-demo"
PTX = "/usr/lib/orion/demo/kernels.ptx"
NAME = "lonely"


def must(done: Result) -> str:
    assert done.status == 0, done.output
    return done.output


def feature(setup: Setup, guest: Guest) -> bool:
    try:
        fd = os.open(setup.shm / f"orion-{guest.uuid}", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        found = header.read(fd)
    finally:
        os.close(fd)
    return found is not None and bool(found.features & layout.FEATURE_MAILBOX)


@pytest.fixture(scope="module")
def guest(setup: Setup) -> Iterator[Guest]:
    for name in ("install-client", "guest/libcuda.so.1"):
        assert (paths.lib() / name).exists(), f"{name} is not built: make build"
    directory = setup.host.state / "lonely"
    directory.mkdir()
    shutil.copy(paths.lib() / "install-client", directory)
    config = GuestConfig(NAME, root=guest_root(CACHE), memory_mib=1024, shares=(Share(directory, "/shared"),), network=False)
    made = Guest(setup.libvirt, config, CACHE)
    try:
        setup.libvirt.define(made.xml().replace("<on_reboot>destroy<", "<on_reboot>restart<"))
        eventually(lambda: setup.oriond.domain(NAME).get("device") == "defined", "no device")
        made.start()
        eventually(lambda: feature(setup, made), "no header")
        must(made.run("sh /shared/install-client -q --user guest", user="root"))
        yield made
    finally:
        made.destroy()
    eventually(lambda: setup.regions() == [], "the region's file is left")


def channels(setup: Setup) -> list[dict[str, object]]:
    return list(setup.oriond.ask("status")["channels"])


def none_left(setup: Setup) -> None:
    eventually(lambda: channels(setup) == [], f"a channel is left: {channels(setup)}")


def start_long(setup: Setup, guest: Guest) -> None:
    """The demo's program with minutes of work, in the background."""
    must(guest.run(f"{DEMO} {PTX} 1024 >/tmp/out 2>&1 & echo $! >/tmp/pid"))
    eventually(lambda: len(channels(setup)) == 1, "the program does not come up", 120)


def test_it_has_no_network(setup: Setup, guest: Guest) -> None:
    assert must(guest.run("ls /sys/class/net")).split() == ["lo"]
    found = setup.oriond.domain(NAME)
    assert found["server_addrs"] == [] and found["problems"] == []


def test_the_demo_program(setup: Setup, guest: Guest) -> None:
    said = must(guest.run(f"id -u; {DEMO}"))
    assert said.startswith("1000\n") and "PASSED" in said, said
    allocation = re.search(r"Client exits with allocation ID ([0-9a-f-]{36})", said)
    assert allocation and allocation[1] in setup.oriond.output()
    assert "over shared memory alone" in setup.oriond.output()
    none_left(setup)


def test_a_reset_of_the_guest_leaves_no_channel_for_long(setup: Setup, guest: Guest) -> None:
    """No kernel is left to tell of the process's end; the first process of the next boot does. Early: an emulated machine's
    firmware waits for about as long as the machine had run."""
    start_long(setup, guest)
    before = channels(setup)[0]["channel"]
    setup.libvirt.virsh("reset", NAME)
    guest.close()
    guest.wait_ready()
    must(guest.run("sh /shared/install-client -q --user guest", user="root", timeout=180))
    assert "PASSED" in must(guest.run(DEMO))
    eventually(lambda: before not in [c["channel"] for c in channels(setup)], "the channel of the boot before is left")


def test_what_it_asked_for_and_a_refusal(guest: Guest) -> None:
    assert "Device 0 of 2" in must(guest.run(f"ORION_VGPU=2 ORION_GMEM=100 {DEMO}"))
    done = guest.run(f"ORION_VGPU=2 ORION_GMEM=9000000 {DEMO}")
    assert done.status != 0 and "refuses 2 vGPU (ORION_VGPU) of this ORION_GMEM: " in done.output, done.output
    assert "no reason given" not in done.output


def test_health_and_orion_smi(guest: Guest) -> None:
    assert re.search(r"Access to the device +\[Yes\]", must(guest.run("orion-check install client")))
    assert "Orion Server asks it, through the shared memory device" in must(guest.run("orion-check runtime client"))
    look = """orion-smi --json | grep -q "\\"pid\\": $demo,.*\\"used_bytes\\": [1-9]" && break"""
    watch = f"for i in $(seq 100); do {look}; sleep 0.1; done; orion-smi --json; echo $demo"
    *_, told, pid = must(guest.run(f"{DEMO} {PTX} 1024 >/dev/null 2>&1 & demo=$!; {watch}; kill $demo", timeout=120)).splitlines()
    vgpu = json.loads(told)["vgpus"][0]
    assert vgpu["name"] == "Orion Simulated GPU"
    assert [(p["pid"], p["used_bytes"] > 0) for p in vgpu["processes"]] == [(int(pid), True)]


def test_several_at_once(guest: Guest) -> None:
    said = must(guest.run(f"for i in 1 2 3; do {DEMO} >/tmp/out.$i 2>&1 & done; wait; cat /tmp/out.*"))
    assert said.count("PASSED") == 3, said


def test_a_killed_program(setup: Setup, guest: Guest) -> None:
    """Its kernel tells; nothing has to time out."""
    start_long(setup, guest)
    must(guest.run("kill -9 $(cat /tmp/pid)"))
    none_left(setup)
    assert "PASSED" in must(guest.run(DEMO))


def test_a_stopped_program_and_a_suspended_domain_are_not_dead(setup: Setup, guest: Guest) -> None:
    start_long(setup, guest)
    must(guest.run("kill -STOP $(cat /tmp/pid)"))
    time.sleep(3)
    assert len(channels(setup)) == 1
    must(guest.run("kill -CONT $(cat /tmp/pid)"))
    setup.libvirt.virsh("suspend", NAME)
    time.sleep(5)
    assert len(channels(setup)) == 1
    setup.libvirt.virsh("resume", NAME)
    assert "PASSED" in must(guest.run("while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.2; done; cat /tmp/out", timeout=240))
    none_left(setup)


def test_a_killed_worker(setup: Setup, guest: Guest) -> None:
    start_long(setup, guest)
    setup.host.run(["kill", "-9", str(channels(setup)[0]["worker"])])
    said = must(guest.run("for i in $(seq 50); do kill -0 $(cat /tmp/pid) 2>/dev/null || break; sleep 0.1; done; cat /tmp/out"))
    assert "the vGPU is lost: " in said, said
    none_left(setup)


def test_a_killed_daemon(setup: Setup, guest: Guest) -> None:
    """The program goes on, over the place in the mailbox that it had."""
    start_long(setup, guest)
    setup.oriond.stop(signal.SIGKILL)
    try:
        assert guest.run("sleep 1; kill -0 $(cat /tmp/pid)").status == 0, guest.run("cat /tmp/out").output
    finally:
        setup.oriond.start()
    eventually(lambda: feature(setup, guest) and setup.oriond.domain(NAME).get("device") == "live", "not taken up again")
    assert "PASSED" in must(guest.run(DEMO))
    assert guest.run("kill -0 $(cat /tmp/pid)").status == 0, guest.run("cat /tmp/out").output
    guest.run("kill -9 $(cat /tmp/pid)")
    none_left(setup)


def test_a_detached_device(setup: Setup, guest: Guest) -> None:
    """The thread that looks at the mailbox has stopped before the device's memory goes: no SIGBUS. The last test here."""
    must(guest.run(f"({DEMO} {PTX} 1024; echo status $?) >/tmp/out 2>&1 &"))
    eventually(lambda: len(channels(setup)) == 1, "the program does not come up", 120)
    done = setup.oriond.command("detach", NAME)
    assert done.returncode == 0, done.stderr
    said = must(guest.run("for i in $(seq 100); do grep -q ^status /tmp/out && break; sleep 0.1; done; cat /tmp/out"))
    assert "the vGPU is lost: " in said and "status 1" in said, said
    none_left(setup)
