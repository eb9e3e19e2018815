# SPDX-License-Identifier: Apache-2.0
"""The doorbell's server: the bytes that QEMU gets, peers that misbehave, many of them, and its end."""

from __future__ import annotations

import grp
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from host import let_others_reach

from ivshmem import server
from orion_virt.domain import shmem
from orion_virt.region import doorbell

SCRIPT = Path(server.__file__)
GROUP = grp.getgrgid(os.getegid()).gr_name
SIZE = 1 << 20


@dataclass
class Running:
    """A server of its own process, with a region of 1 MiB."""

    region: Path
    socket: Path
    control: Path
    process: subprocess.Popen[str]

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.socket))
        sock.settimeout(5)
        return sock

    def ask(self, raw: bytes) -> tuple[dict[str, object], list[int]]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(5)
            sock.connect(str(self.control))
            sock.send(raw)
            answer, fds, _, _ = socket.recv_fds(sock, 4096, 4)
            return json.loads(answer), fds


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    region, path, control = tmp_path / "region", tmp_path / "d.sock", tmp_path / "d.ctl"
    region.write_bytes(bytes(SIZE))
    argv = [sys.executable, "-I", str(SCRIPT), str(region), str(path), str(control), GROUP, server.FOREGROUND]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 10
    while not path.exists() or path.stat().st_mode & 0o777 != 0o660:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    yield Running(region, path, control, process)
    process.kill()
    process.communicate(timeout=180)


def message(sock: socket.socket) -> tuple[int, list[int]]:
    data, fds, _, _ = socket.recv_fds(sock, 8, 1)
    return (struct.unpack("<q", data)[0] if data else -99), list(fds)


def greet(sock: socket.socket) -> tuple[list[int], list[int]]:
    """What QEMU gets: all numbers, and all descriptors in order."""
    numbers, fds = [], []
    for _ in range(3 + 2 * server.VECTORS):
        number, got = message(sock)
        numbers.append(number)
        fds += got
    return numbers, fds


def readable(fd: int, seconds: float = 0) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


def test_constants_agree_with_the_rest() -> None:
    """The server imports nothing of orion_virt, and is of another version when it has run for long."""
    assert (server.VECTORS, server.CONTROL_VERSION, server.HOST) == (shmem.VECTORS, doorbell.VERSION, doorbell.HOST)


def test_greeting_is_protocol_0(running: Running) -> None:
    with running.connect() as qemu:
        numbers, fds = greet(qemu)
        assert numbers == [0, 0, -1, *[1] * server.VECTORS, *[0] * server.VECTORS]
        assert len(fds) == 1 + 2 * server.VECTORS
        assert os.path.samestat(os.fstat(fds[0]), running.region.stat())
        os.eventfd_write(fds[1 + 5], 1)  # the guest rings vector 5 of peer 1
        answer, got = running.ask(b'{"vector": 5}')
        assert answer["ok"] and answer["qemu"] == os.getpid() and answer["version"] == server.CONTROL_VERSION
        other, others = running.ask(b'{"vector": 6}')
        assert readable(got[0]) and not readable(others[0])
        assert os.eventfd_read(got[0]) == 1 and not readable(fds[1 + 5])  # one counter, of all three processes
        for fd in (*fds, *got, *others):
            os.close(fd)


def test_without_qemu_no_vector_is_given(running: Running) -> None:
    answer, fds = running.ask(b'{"vector": 0}')
    assert not answer["ok"] and "no QEMU" in str(answer["error"]) and fds == []
    assert running.ask(b'{"vector": null}')[0]["qemu"] == 0
    assert "started anew" in doorbell.check(str(running.control))
    assert doorbell.take(str(running.control), 0) is None


@pytest.mark.parametrize("request_", [b"{", b"[]", b"7", b'{"vector": -1}', b'{"vector": 32}', b'{"vector": "x"}',
                                      b'{"vector": true}', b'{"vector": 1.5}', b"\xff" * 4096])
def test_bad_requests(running: Running, request_: bytes) -> None:
    with running.connect() as qemu:
        _, fds = greet(qemu)
        answer, got = running.ask(request_)
        assert not answer["ok"] and "0 to 31" in str(answer["error"]) and got == []
        assert doorbell.check(str(running.control)) == ""
        for fd in fds:
            os.close(fd)


def test_a_second_client_is_turned_away_until_the_first_has_left(running: Running) -> None:
    with running.connect() as first:
        for fd in greet(first)[1]:
            os.close(fd)
        for _ in range(50):
            with running.connect() as other:
                assert other.recv(8) == b""
        assert running.ask(b'{"vector": null}')[0]["qemu"] == os.getpid()
    with running.connect() as again:  # as after a detach and an attach of the device
        numbers, fds = greet(again)
        assert numbers[:3] == [0, 0, -1]
        for fd in fds:
            os.close(fd)


def test_vectors_stay_over_a_new_attach(running: Running) -> None:
    with running.connect() as first:
        for fd in greet(first)[1]:
            os.close(fd)
        _, held = running.ask(b'{"vector": 3}')
    with running.connect() as again:
        _, fds = greet(again)
        os.eventfd_write(fds[1 + 3], 1)
        assert readable(held[0])
        for fd in (*fds, *held):
            os.close(fd)


def test_a_client_that_speaks_is_none(running: Running) -> None:
    with running.connect() as liar:
        for fd in greet(liar)[1]:
            os.close(fd)
        liar.sendall(b"hello")
        try:
            assert liar.recv(8) == b""
        except ConnectionResetError:
            pass  # what it said was not read to its end
    with running.connect() as qemu:
        for fd in greet(qemu)[1]:
            os.close(fd)


def test_a_client_that_leaves_at_once_costs_nothing(running: Running) -> None:
    fds = f"/proc/{running.process.pid}/fd"
    running.ask(b"{}")
    before = len(os.listdir(fds))
    for _ in range(100):
        running.connect().close()
    with running.connect() as qemu:
        for fd in greet(qemu)[1]:
            os.close(fd)
    until = time.monotonic() + 5
    while len(os.listdir(fds)) > before:
        assert time.monotonic() < until, os.listdir(fds)
        time.sleep(0.01)


def test_many_askers_at_once(running: Running) -> None:
    """Those that never ask keep nobody out but their own kind."""
    silent = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(server.ASKERS - 1)]
    for sock in silent:
        sock.connect(str(running.control))
    assert running.ask(b'{"vector": null}')[0]["ok"]
    for sock in silent:
        sock.close()
    assert running.ask(b'{"vector": null}')[0]["ok"]


def test_only_root_and_its_own_user_may_ask(running: Running) -> None:
    assert running.control.stat().st_mode & 0o777 == 0o600
    if os.geteuid() != 0:
        pytest.skip("another user is needed, which only root can become")
    running.control.chmod(0o666)
    let_others_reach(running.control)
    code = ("import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "s.settimeout(5); s.connect(sys.argv[1])\n"
            "try: print(s.send(b'{}') and s.recv(4096))\n"
            "except ConnectionError: print(b'')")
    done = subprocess.run([sys.executable, "-c", code, running.control], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "b''"


def test_ends_when_qemu_has_left_and_the_file_is_gone(running: Running) -> None:
    with running.connect() as qemu:
        for fd in greet(qemu)[1]:
            os.close(fd)
        running.region.unlink()
        time.sleep(3 * server.LOOK_SECONDS)
        assert running.process.poll() is None
        assert doorbell.check(str(running.control)) == ""
    assert running.process.wait(10) == 0


def test_ends_when_the_next_start_has_another_file(running: Running) -> None:
    fresh = running.region.with_name("fresh")
    fresh.write_bytes(bytes(SIZE))
    fresh.rename(running.region)
    assert running.process.wait(10) == 0
    assert "does not answer" in doorbell.check(str(running.control))


@pytest.mark.parametrize("kind", ["missing", "link", "hardlink", "fifo", "odd", "empty"])
def test_a_file_that_is_no_region(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "region", tmp_path / "other"
    other.write_bytes(bytes(4096))
    if kind == "link":
        path.symlink_to(other)
    elif kind == "hardlink":
        path.hardlink_to(other)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes(bytes(4097 if kind == "odd" else 0))
    with pytest.raises((OSError, ValueError)):
        server.open_region(str(path))


def test_in_the_background_it_is_nobodys_child(tmp_path: Path) -> None:
    region, path = tmp_path / "region", tmp_path / "d.sock"
    region.write_bytes(bytes(SIZE))
    argv = [sys.executable, "-I", str(SCRIPT), str(region), str(path), str(tmp_path / "d.ctl"), GROUP]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = int(str(json.loads(_ask(tmp_path / "d.ctl"))["pid"]))
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        assert f"PPid:\t{os.getpid()}\n" not in status and "Name:\torion-doorbell\n" in status
        assert os.getsid(pid) == pid
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    finally:
        os.kill(pid, signal.SIGKILL)


def _ask(control: Path) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(control))
        sock.send(b'{"vector": null}')
        return sock.recv(4096)


@pytest.mark.parametrize(("change", "text"), [
    ({3: "no-such-group"}, "no-such-group"), ({0: "/nowhere/region"}, "/nowhere/region"), ({1: "/nowhere/d.sock"}, "No such file")])
def test_what_is_wrong_is_said_in_a_line(tmp_path: Path, change: dict[int, str], text: str) -> None:
    region = tmp_path / "region"
    region.write_bytes(bytes(SIZE))
    arguments = [str(region), str(tmp_path / "s"), str(tmp_path / "c"), GROUP]
    argv = [change.get(at, word) for at, word in enumerate(arguments)]
    done = subprocess.run([sys.executable, "-I", str(SCRIPT), *argv], capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 1 and text in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["--help"], 0), (["a"], 2), (["a", "b", "c", "d", "e"], 2)])
def test_usage(arguments: list[str], status: int) -> None:
    done = subprocess.run([sys.executable, "-I", str(SCRIPT), *arguments], capture_output=True, text=True, timeout=10, check=False)
    said = done.stderr if status else done.stdout
    assert done.returncode == status and said.startswith("Usage: orion-doorbell REGION SOCKET CONTROL GROUP")
