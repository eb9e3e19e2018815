# SPDX-License-Identifier: Apache-2.0
"""The doorbell's server and QEMU itself, without a guest: the test plays its CPU over QEMU's qtest protocol."""

from __future__ import annotations

import grp
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ivshmem import server
from orion_virt.region import doorbell

QEMU = shutil.which("qemu-system-x86_64")
GROUP = grp.getgrgid(os.getegid()).gr_name
SIZE = 4 << 20
SLOT = 4
BAR0, BAR1, BAR2 = 0xE0000000, 0xE0001000, 0xE0400000  # as firmware would place them
IV_POSITION, DOORBELL = 8, 12

pytestmark = pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not installed")


class Machine:
    """A stopped QEMU with our device in slot 4 of an i440fx, its CPU's accesses made over qtest."""

    def __init__(self, directory: Path, path: Path) -> None:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / "qtest"))
        listener.listen()
        listener.settimeout(20)
        argv = [str(QEMU), "-M", "pc", "-S", "-accel", "tcg", "-nodefaults", "-display", "none", "-qtest", f"unix:{directory}/qtest",
                "-qtest-log", "/dev/null", "-chardev", f"socket,id=s,path={path}",
                "-device", f"ivshmem-doorbell,chardev=s,vectors={server.VECTORS},ioeventfd=on,master=on,addr={SLOT}"]
        self.process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
        try:
            self._sock, _ = listener.accept()
        finally:
            listener.close()
        self._sock.settimeout(20)
        self._lines = self._sock.makefile()

    def say(self, line: str) -> str:
        """The value after OK."""
        self._sock.sendall(f"{line}\n".encode())
        answer = self._lines.readline().split()
        assert answer[:1] == ["OK"], answer
        return answer[-1]

    def config(self, register: int, value: int) -> None:
        self.say(f"outl 0xcf8 {0x80000000 | SLOT << 11 | register:#x}")
        self.say(f"outl 0xcfc {value:#x}")

    def place(self) -> None:
        """What firmware does: addresses for the BARs, then memory accesses on."""
        for register, value in ((0x10, BAR0), (0x14, BAR1), (0x18, BAR2), (0x1C, 0), (0x04, 2)):
            self.config(register, value)

    def end(self) -> str:
        self.process.kill()
        said = self.process.communicate(timeout=10)[1]
        self._lines.close()
        self._sock.close()
        return said


class Kit:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.region, self.socket, self.control = directory / "region", directory / "d.sock", directory / "d.ctl"
        self.region.write_bytes(b"ORION!!!" + bytes(SIZE - 8))
        self.server: subprocess.Popen[bytes] | None = None
        self.machine: Machine | None = None

    def serve(self) -> None:
        argv = [sys.executable, "-I", server.__file__, str(self.region), str(self.socket), str(self.control), GROUP, server.FOREGROUND]
        self.server = subprocess.Popen(argv)
        until = time.monotonic() + 10
        while "started anew" not in doorbell.check(str(self.control)):
            assert self.server.poll() is None and time.monotonic() < until
            time.sleep(0.01)

    def boot(self) -> Machine:
        self.machine = Machine(self.directory, self.socket)
        self.machine.place()
        return self.machine

    def vector(self, number: int) -> int:
        fd = doorbell.take(str(self.control), number)
        assert fd is not None
        return fd


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    made = Kit(tmp_path)
    yield made
    if made.machine is not None:
        made.machine.end()
    if made.server is not None:
        made.server.kill()
        made.server.wait(30)


def rung(fd: int, seconds: float = 5) -> bool:
    return bool(select.select([fd], [], [], seconds)[0]) and os.eventfd_read(fd) > 0


def ring(machine: Machine, peer: int, vector: int) -> None:
    machine.say(f"writel {BAR0 + DOORBELL:#x} {peer << 16 | vector:#x}")


def test_qemu_takes_memory_and_vectors(kit: Kit) -> None:
    kit.serve()
    machine = kit.boot()
    assert machine.say(f"read {BAR2:#x} 8") == f"0x{b'ORION!!!'.hex()}"
    machine.say(f"writel {BAR2 + 4096:#x} 0x12345678")
    assert kit.region.read_bytes()[4096:4100] == b"\x78\x56\x34\x12"
    assert int(machine.say(f"readl {BAR0 + IV_POSITION:#x}"), 0) == server.GUEST
    fds = [kit.vector(number) for number in range(server.VECTORS)]
    for number in (0, 7, server.VECTORS - 1):
        ring(machine, server.HOST, number)
        assert rung(fds[number])
        assert not any(rung(fd, 0) for fd in fds)
    ring(machine, server.GUEST, 0)  # itself, which is nobody's business here
    ring(machine, 9, 0)
    ring(machine, server.HOST, server.VECTORS)
    assert not any(rung(fd, 0.1) for fd in fds)
    for fd in fds:
        os.close(fd)


def test_the_server_sees_qemu_end(kit: Kit) -> None:
    kit.serve()
    machine = kit.boot()
    assert doorbell.check(str(kit.control)) == ""
    kit.region.unlink()
    machine.end()
    kit.machine = None
    assert kit.server is not None and kit.server.wait(10) == 0


def test_a_killed_server_takes_nothing_from_who_has_a_vector(kit: Kit) -> None:
    """QEMU keeps memory and eventfds; whoever comes later learns that they are out of reach, also from a new server."""
    kit.serve()
    machine = kit.boot()
    held = kit.vector(2)
    assert kit.server is not None
    kit.server.kill()
    kit.server.wait(30)
    assert "does not answer" in doorbell.check(str(kit.control))
    ring(machine, server.HOST, 2)
    assert rung(held)
    kit.serve()
    assert doorbell.take(str(kit.control), 2) is None
    ring(machine, server.HOST, 2)
    assert rung(held)
    assert machine.say(f"read {BAR2:#x} 8") == f"0x{b'ORION!!!'.hex()}"
    os.close(held)


def test_without_a_server_qemu_does_not_start(kit: Kit) -> None:
    """Why the hook starts it first, and refuses where it cannot."""
    argv = [str(QEMU), "-M", "pc", "-S", "-accel", "tcg", "-nodefaults", "-display", "none", "-chardev", f"socket,id=s,path={kit.socket}",
            "-device", "ivshmem-doorbell,chardev=s,vectors=1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0 and "Failed to connect" in done.stderr
