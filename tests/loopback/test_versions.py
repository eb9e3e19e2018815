# SPDX-License-Identifier: Apache-2.0
"""Guests that are older than their host, and newer: operation numbers, handshake and layout stay what they were.

libcuda-448bd51.so.xz is the guest library of that commit, stripped. A change that breaks it breaks installed guests.
"""

from __future__ import annotations

import contextlib
import lzma
import select
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import host as hosts
import pytest
from test_cudart import runtime

from orion_virt.server import ops
from orion_virt.spec.calls import memory

HERE = Path(__file__).parent
OLD = HERE / "libcuda-448bd51.so.xz"
WHAT = ["use", "streams", "reset", "threads"]
TRANSPORTS = ["shm", "tcp"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Host]:
    with hosts.running(tmp_path_factory.mktemp("versions")) as running:
        yield running


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> str:
    """LD_LIBRARY_PATH of a guest with the old library."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "libcuda.so.1").write_bytes(lzma.decompress(OLD.read_bytes()))
    return str(folder)


class Between:
    """Stands between clients and the server; puts other operations into WELCOME, and keeps what HELLO said."""

    def __init__(self, host: hosts.Host) -> None:
        self._server = ("127.0.0.1", host.port)
        self.known: bytes | None = None  # what the server is to know, None: what it says
        self.hello = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._carry, args=(self._listener.accept()[0],), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        """Blocks of the handshake come in one piece each; what follows WELCOME begins with other bytes."""
        with client, socket.create_connection(self._server) as server, contextlib.suppress(OSError):
            ways = {client: (server, self._note), server: (client, self._mask)}
            while True:
                for end in select.select(list(ways), [], [])[0]:
                    piece = end.recv(65536)
                    if not piece:
                        return
                    to, change = ways[end]
                    to.sendall(change(piece) if piece.startswith(b"ORION/1 ") else piece)

    def _note(self, piece: bytes) -> bytes:
        for line in piece.split(b"\n"):
            if line.startswith(b"ops: "):
                self.hello = bytes.fromhex(line[5:].decode())
        return piece

    def _mask(self, piece: bytes) -> bytes:
        if not piece.startswith(b"ORION/1 WELCOME\n") or self.known is None:
            return piece
        lines = [b"ops: " + self.known.hex().encode() if line.startswith(b"ops: ") else line for line in piece.split(b"\n")]
        return b"\n".join(lines)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def between(host: hosts.Host) -> Iterator[Between]:
    made = Between(host)
    yield made
    made.close()


def run(host: hosts.Host, what: str, transport: str = "shm", **variables: str):
    """The genuine runtime; the environment is that of a guest."""
    command = [sys.executable, HERE / "cudart.py", what, runtime("nvidia-cuda-runtime")]
    return host.run(command, env=host.tcp_env if transport == "tcp" else host.env, **variables)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("what", WHAT)
def test_older_guest(host: hosts.Host, old: str, what: str, transport: str) -> None:
    before = len(host.output())
    done = run(host, what, transport, LD_LIBRARY_PATH=old)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Build-cuda-448bd51" in done.stderr
    assert ("over shared memory" if transport == "shm" else "over TCP") in host.output()[before:]


def test_older_guest_computes(host: hosts.Host, old: str) -> None:
    """Modules, launches and their results."""
    demo = hosts.LIB / "guest" / "orion-demo"
    done = host.run([demo, HERE.parents[1] / "guest-agent" / "demo" / "kernels.ptx"], LD_LIBRARY_PATH=old)
    assert done.returncode == 0 and "PASSED" in done.stdout, done.stdout + done.stderr
    assert "Build-cuda-448bd51" in done.stderr


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("what", WHAT)
def test_older_host(host: hosts.Host, old: str, between: Between, what: str, transport: str) -> None:
    """Today's guest where the host has just the operations that the old guest has."""
    assert run(host, "use", LD_LIBRARY_PATH=old, ORION_SERVER=between.address).returncode == 0
    assert between.hello and between.hello != bytes.fromhex(ops.bitmap())
    between.known = between.hello
    done = run(host, what, transport, ORION_SERVER=between.address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Build-cuda-448bd51" not in done.stderr


def test_an_operation_that_the_host_lacks(host: hosts.Host, between: Between) -> None:
    """NOT_SUPPORTED, with its name in the client's log; the others go on."""
    lacking = next(call for call in memory.CALLS if call.name == "cuMemAlloc_v2")
    known = bytearray(bytes.fromhex(ops.bitmap()))
    assert known[lacking.op // 8] & 1 << lacking.op % 8
    known[lacking.op // 8] &= ~(1 << lacking.op % 8)
    between.known = bytes(known)
    done = host.run([sys.executable, HERE / "client.py", "once"], ORION_SERVER=between.address)
    assert done.stdout == "cuMemAlloc_v2 801\n", done.stdout + done.stderr
    log = Path(host.env["HOME"]) / ".orion" / "log" / "client.log"
    assert "cuMemAlloc_v2 is not supported" in log.read_text()
    assert run(host, "streams", ORION_SERVER=between.address).returncode == 0
