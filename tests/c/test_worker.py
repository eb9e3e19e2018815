# SPDX-License-Identifier: Apache-2.0
"""The worker's Python shell around an executor with the tests' operations: start, one call, every end."""

from __future__ import annotations

import array
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from c_build import CC, CORE, HERE, ROOT, compile_c, includes

from orion_virt import layout

BLOCK, REGION = layout.EXTENT_BYTES, 8 * layout.EXTENT_BYTES
PING = 4

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler (cc or gcc) on this machine")


@pytest.fixture(scope="module")
def built(generated: Path) -> tuple[Path, Path]:
    """An executor library with the tests' operations, and a driver library."""
    executor = generated / "orion_virt/executor"
    sources = [executor / f"{name}.c" for name in CORE] + [executor / "gen/driver.c", HERE / "fake_ops.c"]
    library, driver = generated / "libexecutor.so", generated / "libfake.so"
    compile_c(["-shared", "-fPIC", "-fvisibility=hidden", *includes(generated), *sources, "-ldl", "-o", library])
    compile_c(["-shared", "-fPIC", HERE / "fake_driver.c", "-o", driver])
    return library, driver


@dataclass
class Worker:
    process: subprocess.Popen[str]
    control: socket.socket
    conn: socket.socket
    memory: mmap.mmap
    fd: int
    log: Path
    progress: tuple[int, int] = (0, 0)

    def start(self, **changes: object) -> None:
        message = {
            "channel": 9, "domain": "d", "transport": "shm", "base": layout.BASES[0], "block": BLOCK,
            "region_bytes": REGION, "devices": [{"ordinal": 0, "memory": 1 << 30}], "log": str(self.log),
            "uid": os.geteuid(), "gid": os.getegid(), "env": {},
        } | changes  # fmt: skip
        ours, theirs = socket.socketpair()
        self.conn = ours
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        rights = array.array("i", [theirs.fileno(), self.fd, log])
        self.control.sendmsg([json.dumps(message).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        theirs.close()
        os.close(log)

    def ping(self, value: int) -> int:
        at = BLOCK + layout.RING_OFF
        self.memory[at + 8 : at + 32] = struct.pack("<HHIIIQ", PING, 1, 8, 0, 1, value)
        self.memory[at : at + 8] = struct.pack("<Q", 1)
        self.conn.send(b"\1")
        slot = BLOCK + layout.SLOTS_OFF
        until = time.monotonic() + 10
        while struct.unpack_from("<Q", self.memory, slot)[0] != 1:
            assert time.monotonic() < until, self.log.read_text() if self.log.exists() else "no answer"
            time.sleep(0.005)
        return int(struct.unpack_from("<Q", self.memory, slot + 16)[0])

    def closed(self) -> tuple[int, str]:
        """Why it says that its channel ended; before that it may say how many commands ran, and what it uses."""
        message = layout.Control.from_buffer_copy(self.control.recv(1024))
        while message.kind in (layout.PROGRESS, layout.USAGE):
            self.progress = (message.a, message.b) if message.kind == layout.PROGRESS else self.progress
            message = layout.Control.from_buffer_copy(self.control.recv(1024))
        assert message.kind == layout.CLOSED
        return message.a, message.text.decode()


@pytest.fixture
def worker(built: tuple[Path, Path], tmp_path: Path) -> Iterator[Worker]:
    fd = os.open(tmp_path / "region", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, REGION)
    memory = mmap.mmap(fd, REGION)
    memory[BLOCK : BLOCK + 64] = layout.channel_head(9, layout.CHANNEL_BYTES)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    argv = [sys.executable, "-m", "orion_virt.server.worker", "--control-fd", str(theirs.fileno())]
    argv += ["--executor", str(built[0]), "--driver", str(built[1])]
    process = subprocess.Popen(argv, cwd=ROOT, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
    theirs.close()
    made = Worker(process, ours, ours, memory, fd, tmp_path / "log")
    yield made
    process.kill()
    process.communicate(timeout=180)
    made.conn.close()
    ours.close()
    memory.close()
    os.close(fd)


def test_serves_a_channel_until_its_client_ends(worker: Worker) -> None:
    worker.start()
    assert worker.ping(41) == 42
    status = Path(f"/proc/{worker.process.pid}/comm").read_text()
    assert status.strip() == "oriond"
    worker.conn.close()
    assert worker.closed() == (layout.CLOSED_BY_GUEST, "the client's connection ended")
    assert worker.progress == (1, 0)  # its last counts, however short the channel was
    assert worker.process.wait(30) == 0
    assert "channel open" in worker.log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into and change the worker's user")
def test_drops_its_user_and_moves_its_addresses(worker: Worker) -> None:
    worker.log.touch()
    worker.start(uid=65534, gid=65534)
    assert worker.ping(1) == 2
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status and "Groups:\t \n" in status
    maps = Path(f"/proc/{worker.process.pid}/maps").read_text().splitlines()
    library = next(int(line.split("-")[0], 16) for line in maps if "libexecutor" in line)
    assert library < 0x300000000000
    assert any(line.startswith(f"{layout.BASES[0] + BLOCK:x}-") for line in maps)


def test_daemon_stops_it(worker: Worker) -> None:
    worker.start()
    assert worker.ping(1) == 2
    worker.control.send(bytes(layout.Control(kind=layout.STOP, a=layout.CLOSED_SERVER, text=b"detached")))
    assert worker.closed() == (layout.CLOSED_SERVER, "the daemon ended the channel: detached")
    assert worker.process.wait(30) == layout.CLOSED_SERVER


def test_ends_with_the_daemon(worker: Worker) -> None:
    worker.control.close()
    assert worker.process.wait(30) == layout.CLOSED_SERVER


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"devices": []}, "0 devices in the start message"),
        ({"base": "here"}, "the start message is not complete"),
        ({"base": 4096}, "the region cannot be mapped at 0x1000"),
        ({"block": 4 * layout.EXTENT_BYTES}, "is not laid out as this version does it"),
        ({"block": REGION}, "cannot be mapped"),
        ({"transport": "tcp"}, "3 descriptors came with the start message, 2 belong to it"),
    ],
)
def test_bad_start_message(worker: Worker, changes: dict[str, object], text: str) -> None:
    worker.start(**changes)
    why, said = worker.closed()
    assert why == layout.CLOSED_WORKER and text in said
    assert worker.process.wait(30) == layout.CLOSED_WORKER


def test_bad_driver(built: tuple[Path, Path], tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, "-m", "orion_virt.server.worker", "--control-fd", str(theirs.fileno())]
    argv += ["--executor", str(built[0]), "--driver", str(tmp_path / "missing.so")]
    with ours, theirs:
        done = subprocess.run(argv, cwd=ROOT, pass_fds=[theirs.fileno()], capture_output=True, text=True, timeout=20)
    assert done.returncode == layout.CLOSED_WORKER
    assert "cannot load the driver library" in done.stderr and "Traceback" not in done.stderr
