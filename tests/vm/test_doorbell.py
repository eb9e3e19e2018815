# SPDX-License-Identifier: Apache-2.0
"""A domain whose metadata says doorbell='yes': a program in its guest rings the host, through every end of a server or daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ivshmem import server
from orion_virt import layout, paths
from vm.conftest import CACHE
from vm.harness import Guest, GuestConfig, Share
from vm.stage import Setup, eventually
from vm.test_domain import config_device, live_device, read_header

pytestmark = [pytest.mark.vm, pytest.mark.root]

WHERE = "/opt/orion"
METADATA = "<orion:vgpu xmlns:orion='https://orion-virt/domain/1' region='64' doorbell='{}'/>"
HEARD = 132  # of doorbell_heard in a channel's block
# What the udev rule of the installer does; there is no udevd in this guest.
PERMIT = """
for d in /sys/bus/pci/devices/*; do
    [ "$(cat $d/vendor)$(cat $d/device)" = 0x1af40x1110 ] || continue
    cd $d && ls resource1 && chgrp guest resource0 resource2* && chmod 0660 resource0 resource2*
done
"""
# One call a line of its input, so that its worker sleeps between two.
PROGRAM = '''
import ctypes, sys
cuda = ctypes.CDLL("/opt/orion/libcuda.so.1")
context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
def must(status):
    if status: sys.exit(f"status {status}")
must(cuda.cuInit(0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
print("ready", flush=True)
for number in sys.stdin:
    must(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    print("call", number.strip(), flush=True)
'''


@pytest.fixture(scope="module")
def program(setup: Setup) -> Path:
    directory = setup.host.state / "bell-program"
    directory.mkdir()
    shutil.copy(paths.lib() / "guest" / "libcuda.so.1", directory)
    shutil.copy(paths.lib() / "guest" / "orion-demo", directory)
    shutil.copy(Path(__file__).parents[2] / "guest-agent" / "demo" / "kernels.ptx", directory)
    (directory / "program.py").write_text(PROGRAM)
    return directory


@pytest.fixture
def bell(setup: Setup, program: Path) -> Iterator[Guest]:
    config = GuestConfig("bell", root=Path("/"), memory_mib=768, shares=(Share(program, WHERE),), metadata=METADATA.format("yes"))
    made = Guest(setup.libvirt, config, CACHE)
    made.define()
    eventually(lambda: (found := config_device(setup, "bell")) is not None and bool(found.server), "no doorbell in the definition")
    boot(setup, made)
    yield made
    made.destroy()
    eventually(lambda: setup.regions() == [], "the region's file is left")
    eventually(lambda: not sockets(setup), "sockets are left")


def boot(setup: Setup, guest: Guest) -> None:
    guest.start()
    assert guest.run(PERMIT, user="root").output.split() == ["resource1"]
    eventually(lambda: (h := read_header(setup, guest)) is not None and h.features == layout.FEATURE_DOORBELL | layout.FEATURE_MAILBOX, "not offered")


def sockets(setup: Setup) -> list[str]:
    directory = setup.host.state / "orion" / "run" / "doorbell"
    return sorted(p.name for p in directory.iterdir())


def state(setup: Setup, guest: Guest) -> dict[str, Any]:
    """What the domain's server says of itself."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(setup.host.state / "orion" / "run" / "doorbell" / f"{guest.uuid}-64.ctl"))
        sock.send(b'{"vector": null}')
        return dict(json.loads(sock.recv(4096)))


def kill_server(setup: Setup, guest: Guest) -> None:
    """Its pid is one of the private host's."""
    assert setup.host.run(["kill", "-9", str(state(setup, guest)["pid"])]).returncode == 0


def problems(setup: Setup) -> str:
    return " ".join(setup.oriond.domain("bell")["problems"])


class Running:
    """The program in the guest, and what the host knows of its channel."""

    def __init__(self, setup: Setup, guest: Guest) -> None:
        self._setup, self._guest, self._calls = setup, guest, 0
        guest.run("rm -f in out; mkfifo in; (sleep 600 >in & echo $! >sleeper) ; "
                  f"python3 {WHERE}/program.py <in >out 2>&1 & echo $! >pid")
        eventually(lambda: "ready" in self._out(), f"the program does not come up: {self._out()}", 120)
        self.channel, = setup.oriond.ask("status")["channels"]

    def _out(self) -> str:
        return self._guest.run("cat out").output

    def call(self) -> None:
        self._calls += 1
        said = f"call {self._calls}"
        self._guest.run(f"echo {self._calls} >in")
        eventually(lambda: said in self._out().splitlines(), f"{said} does not come back: {self._out()}")

    def heard(self) -> int:
        """The channel's word; the first extent of this region is the first channel's block."""
        with (self._setup.shm / f"orion-{self._guest.uuid}").open("rb") as region:
            region.seek(layout.EXTENT_BYTES + HEARD)
            return int.from_bytes(region.read(4), "little")

    def bytes_from_guest(self) -> int:
        """What came over the channel's connection so far, handshake included."""
        shown = self._setup.host.run(["ss", "-Htinp", "sport", "=", ":9960"]).stdout
        found = [m[1] for line in shown.replace("\n\t", " ").splitlines() if f"pid={self.channel['worker']}," in line
                 for m in [re.search(r"bytes_received:(\d+)", line)] if m]
        assert len(found) == 1, shown
        return int(found[0])

    def end(self) -> None:
        self._guest.run("kill $(cat sleeper pid); rm -f in")
        eventually(lambda: not self._setup.oriond.ask("status")["channels"], "the channel is left")


def test_the_demo_program_rings(setup: Setup, bell: Guest) -> None:
    live = live_device(setup, "bell")
    assert live is not None and live.server.endswith(f"/doorbell/{bell.uuid}-64.sock")
    assert setup.oriond.domain("bell")["doorbell"] is True and problems(setup) == ""
    assert state(setup, bell)["qemu"] > 0
    done = bell.run(f"LD_LIBRARY_PATH={WHERE} {WHERE}/orion-demo {WHERE}/kernels.ptx 64")
    assert done.status == 0 and "PASSED" in done.output, done.output
    assert "over shared memory with a doorbell" in setup.oriond.output()


def test_ringing_replaces_the_byte(setup: Setup, bell: Guest) -> None:
    fds = setup.oriond.ask("status")["fds"]
    running = Running(setup, bell)
    assert running.channel["doorbell"] is True
    for _ in range(3):
        running.call()
    assert running.heard() == 1
    before = running.bytes_from_guest()
    for _ in range(5):
        running.call()
    assert (running.bytes_from_guest(), running.heard()) == (before, 1)
    running.end()
    eventually(lambda: setup.oriond.ask("status")["fds"] <= fds, "oriond keeps descriptors")


def test_without_permission_the_byte_goes(setup: Setup, bell: Guest) -> None:
    assert bell.run("chmod 0600 /sys/bus/pci/devices/*/resource0", user="root").status == 0
    running = Running(setup, bell)
    assert running.channel["doorbell"] is False
    before = running.bytes_from_guest()
    running.call()
    assert running.heard() == 0 and running.bytes_from_guest() > before
    running.end()
    assert "the doorbell cannot be used (Permission denied)" in bell.run("cat .orion/log/client.log").output


def test_a_killed_server_costs_no_call(setup: Setup, bell: Guest) -> None:
    """The channel that has its vector goes on ringing; later ones send bytes, and `list` says why."""
    first = Running(setup, bell)
    first.call()
    kill_server(setup, bell)
    before = first.bytes_from_guest()
    for _ in range(3):
        first.call()
    assert (first.heard(), first.bytes_from_guest()) == (1, before)
    first.end()
    assert "until the next power cycle" in problems(setup)
    second = Running(setup, bell)
    assert second.channel["doorbell"] is False
    second.call()
    second.end()


def test_a_server_started_anew_is_not_believed(setup: Setup, bell: Guest) -> None:
    """QEMU does not connect again: the new server's vectors are not those that the guest rings."""
    own = live_device(setup, "bell")
    assert own is not None
    kill_server(setup, bell)
    region = f"/dev/shm/orion-{bell.uuid}"
    done = setup.host.run(["python3", "-I", server.__file__, region, own.server, own.server.replace(".sock", ".ctl"),
                           setup.libvirt.group])
    assert done.returncode == 0, done.stderr
    assert "started anew" in problems(setup)
    running = Running(setup, bell)
    assert running.channel["doorbell"] is False
    running.call()
    running.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_survives_oriond(setup: Setup, bell: Guest, number: int) -> None:
    before = state(setup, bell)
    lost = Running(setup, bell)
    setup.oriond.stop(number)
    assert state(setup, bell) == before
    setup.oriond.start()
    eventually(lambda: (h := read_header(setup, bell)) is not None and h.features == layout.FEATURE_DOORBELL | layout.FEATURE_MAILBOX, "not offered again")
    assert state(setup, bell) == before
    lost.end()
    running = Running(setup, bell)
    for _ in range(2):
        running.call()
    assert running.channel["doorbell"] is True and running.heard() == 1
    running.end()


def test_the_server_survives_libvirtd(setup: Setup, bell: Guest) -> None:
    before = state(setup, bell)
    setup.libvirt.kill()
    setup.libvirt.launch()
    eventually(lambda: setup.oriond.ask("domains")["ok"] and setup.oriond.domain("bell").get("state") == "running", "not seen again")
    assert state(setup, bell) == before and problems(setup) == ""
    running = Running(setup, bell)
    running.call()
    assert running.channel["doorbell"] is True and running.heard() == 1
    running.end()


def test_save_is_refused_and_nothing_else_happens(setup: Setup, guests: Callable[..., Guest]) -> None:
    """libvirt 9 passes role='master' on for ivshmem-plain alone, so QEMU takes the device for a peer's."""
    guest = guests("unsaved", metadata=METADATA.format("yes"))
    guest.define()
    eventually(lambda: (found := config_device(setup, "unsaved")) is not None and bool(found.server), "no doorbell")
    guest.start()
    before = state(setup, guest)
    done = setup.libvirt.virsh("save", "unsaved", str(setup.host.state / "vm" / "unsaved.image"), check=False)
    assert done.returncode != 0 and "ivshmem" in done.stderr
    assert guest.run("echo alive").output.split() == ["alive"] and state(setup, guest) == before


def test_the_metadata_takes_it_away_at_the_next_start(setup: Setup, bell: Guest) -> None:
    setup.libvirt.virsh("metadata", "bell", "https://orion-virt/domain/1", "--config", "--key", "orion", "--set", "<vgpu doorbell='no'/>")
    eventually(lambda: (found := config_device(setup, "bell")) is not None and not found.server, "still a doorbell in the definition")
    assert live_device(setup, "bell") is not None and state(setup, bell)["qemu"] > 0
    pid = state(setup, bell)["pid"]
    bell.destroy(undefine=False)
    eventually(lambda: setup.host.run(["kill", "-0", str(pid)]).returncode != 0, "the server outlives its domain")
    bell.start()
    eventually(lambda: (h := read_header(setup, bell)) is not None and h.features == layout.FEATURE_MAILBOX, "no header")


def test_detached_and_attached_while_it_runs(setup: Setup, bell: Guest) -> None:
    """What is plugged into a running domain is the plain device; the doorbell waits for the next start."""
    running = Running(setup, bell)
    running.call()
    pid = state(setup, bell)["pid"]
    done = setup.oriond.command("detach", "bell")
    assert done.returncode == 0, done.stderr
    eventually(lambda: setup.host.run(["kill", "-0", str(pid)]).returncode != 0, "the server outlives its device")
    assert setup.regions() == [] and not setup.oriond.ask("status")["channels"]
    done = setup.oriond.command("attach", "bell")
    assert done.returncode == 0 and "attached, 64 MiB" in done.stdout, done.stdout + done.stderr
    live, config = live_device(setup, "bell"), config_device(setup, "bell")
    assert live is not None and config is not None and (live.server, bool(config.server)) == ("", True)
    eventually(lambda: (h := read_header(setup, bell)) is not None and h.features == layout.FEATURE_MAILBOX, "no header")
    assert "next power cycle" in problems(setup)


def test_removing_the_hook_takes_doorbells_away(setup: Setup, bell: Guest) -> None:
    """Else the domain would not start any more."""
    try:
        done = setup.oriond.command("hook", "remove")
        assert done.returncode == 0, done.stderr
        eventually(lambda: (found := config_device(setup, "bell")) is not None and not found.server, "still a doorbell")
        assert "orion-virt hook install" in problems(setup)
    finally:
        setup.libvirt.install_hook()
        setup.host.run(["sh", "-c", "kill -HUP $(cat /run/libvirtd.pid)"])
    bell.destroy(undefine=False)
    eventually(lambda: setup.regions() == [], "the region's file is left")
    assert setup.libvirt.virsh("start", "bell").returncode == 0


def test_switched_on_while_it_runs(setup: Setup, guests: Callable[..., Guest]) -> None:
    guest = guests("later", machine="q35", metadata=METADATA.format("no"))
    guest.define()
    eventually(lambda: config_device(setup, "later") is not None, "no device")
    guest.start()
    setup.libvirt.virsh("metadata", "later", "https://orion-virt/domain/1", "--config", "--key", "orion", "--set",
                        "<vgpu region='64' doorbell='yes'/>")
    eventually(lambda: (found := config_device(setup, "later")) is not None and bool(found.server), "no doorbell in the definition")
    assert "next power cycle" in " ".join(setup.oriond.domain("later")["problems"])
    guest.destroy(undefine=False)
    guest.start()
    eventually(lambda: (h := read_header(setup, guest)) is not None and h.features == layout.FEATURE_DOORBELL | layout.FEATURE_MAILBOX, "not offered")


def test_a_server_that_cannot_start_is_said_at_start(setup: Setup, bell: Guest) -> None:
    bell.destroy(undefine=False)
    directory = setup.host.state / "orion" / "run" / "doorbell"
    eventually(lambda: not sockets(setup), "sockets are left")
    os.rename(directory, directory.with_suffix(".away"))
    try:
        directory.write_text("in the way")
        done = setup.libvirt.virsh("start", "bell", check=False)
        assert done.returncode != 0 and "ivshmem-plain" in done.stderr and "virsh edit bell" in done.stderr
    finally:
        directory.unlink()
        os.rename(directory.with_suffix(".away"), directory)
