# SPDX-License-Identifier: Apache-2.0
"""`make demo`, run on a private host that plays the system: its domain, networks, hooks, files and ports stay as they are."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig
from vm.harness.cache import REPO
from vm.stage import Setup, eventually

pytestmark = [pytest.mark.vm, pytest.mark.root]

SCRIPT = REPO / "guest-agent" / "demo" / "run.py"


def states() -> set[str]:
    """Private hosts on this machine."""
    return {p.name for p in Path("/tmp").glob("orion-vm-*")}


def system(setup: Setup, guest: Guest) -> dict[str, object]:
    """All that the demo must not touch."""
    virsh = setup.libvirt.virsh
    region = setup.shm / setup.regions()[0]
    etc = setup.host.state / "etc-libvirt"
    return {
        "guest": guest.run("cat /proc/sys/kernel/random/boot_id").output,
        "domains": virsh("list", "--all").stdout, "xml": virsh("dumpxml", guest.config.name).stdout,
        "networks": virsh("net-list", "--all").stdout, "network": virsh("net-dumpxml", "orion").stdout,
        "hooks": sorted((str(p), p.read_bytes()) for p in (etc / "hooks").rglob("*") if p.is_file()),
        "shm": setup.regions(), "region": (region.stat().st_ino, region.stat().st_size),
        "links": setup.host.run(["ls", "/sys/class/net"]).stdout,
        "ports": sorted(re.findall(r"LISTEN \S+ +\S+ +(\S+)", setup.host.run(["ss", "-Hltn"]).stdout)),
        "mounts": Path(f"/proc/{setup.host.pid}/mounts").read_text(),
        "states": states(),
    }


@pytest.fixture(scope="module")
def neighbour(setup: Setup) -> Iterator[Guest]:
    """A domain of the system with a region of its own."""
    made = Guest(setup.libvirt, GuestConfig("neighbour", memory_mib=256), CACHE)
    try:
        made.define()
        eventually(lambda: setup.oriond.domain("neighbour").get("device") == "defined", "no device")
        made.start()
        eventually(lambda: bool(setup.oriond.domain("neighbour").get("server_addrs")), "no header")
        yield made
    finally:
        made.destroy()


@pytest.fixture
def demo(setup: Setup) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts the demo on the private host, as from a terminal of its own."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        argv = ["env", "--default-signal=INT", sys.executable, str(SCRIPT)]  # it is ignored where we run in the background
        started.append(setup.host.popen(argv, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                        start_new_session=True, stdin=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdout
        process.stdout.close()


def test_demo(setup: Setup, neighbour: Guest, demo: Callable[[], subprocess.Popen[str]]) -> None:
    before = system(setup, neighbour)
    process = demo()
    assert process.stdout
    said = process.stdout.read()
    assert process.wait(10) == 0, said
    assert [int(n) for n in re.findall(r"^\[(\d)/7\] ", said, re.M)] == list(range(1, 8)), said
    for line in ("using software emulation: ", "using the simulated GPU: ", "uid=1000(guest)", "Device 0 of 1: Orion Simulated GPU",
                 "Matrix product 128x128", "PASSED"):
        assert line in said, said
    allocations = re.findall(r"Client exits with allocation ID (\S+)|log has the same allocation (\S+)", said)
    assert allocations[0][0] == allocations[1][1]
    assert allocations[0][0] not in setup.oriond.output()  # the demo's own controller, not the system's
    assert system(setup, neighbour) == before


@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 5), (signal.SIGTERM, 4), (signal.SIGKILL, 4)])
def test_interrupted(setup: Setup, neighbour: Guest, demo: Callable[[], subprocess.Popen[str]], number: int, step: int) -> None:
    before = system(setup, neighbour)
    process = demo()
    assert process.stdout
    for line in process.stdout:
        if line.startswith(f"[{step}/"):
            break
    else:
        pytest.fail("the demo ended early")
    os.killpg(process.pid, number)
    said = process.stdout.read()
    if number != signal.SIGKILL:
        assert said.strip().endswith("demo: interrupted, everything is removed"), said
        assert "Traceback" not in said
    eventually(lambda: states() == before["states"], f"a state directory is left: {states()}")
    assert system(setup, neighbour) == before
