# SPDX-License-Identifier: Apache-2.0
"""Frames over TCP and handshakes that lie; allocations that are somebody else's."""

from __future__ import annotations

import re
import contextlib
import hashlib
import hmac
import http.client
import socket
import struct
import time
import uuid

import guest as guests
import pytest
import wire
from guest import Guest, shake_hands
from host import Host, wait_for

from orion_virt import credential, layout

DATA, WAKE = 1, 2
BIG = 0xFFFFFFFFFFFFFFFF
NOT_PERMITTED, NO_DEVICE, UNKNOWN = "800", "100", "999"


@contextlib.contextmanager
def tcp(host: Host):
    """(connection, channel, block offset) of a client without a region."""
    conn, verb, fields = shake_hands(host, "tcp")
    with conn:
        assert verb == "WELCOME", fields
        yield conn, int(fields["channel"]), int(fields["block"])


def frame(kind: int, offset: int, data: bytes, n_bytes: int | None = None) -> bytes:
    return struct.pack("<IIQ", kind, len(data) if n_bytes is None else n_bytes, offset) + data


def ping(block: int) -> bytes:
    line = struct.pack("<QHHIIIQ", 1, wire.op_of("orion_ping"), 1, 8, 0, 1, 41) + bytes(32)
    return frame(DATA, block + layout.RING_OFF, line)


def answered(conn: socket.socket, seconds: float = 5) -> bool:
    """True when slot 0 gets the answer to the first command."""
    raw, end = b"", time.monotonic() + seconds
    conn.settimeout(1)
    while struct.pack("<QiIQ", 1, 0, 8, 42) not in raw and time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            piece = conn.recv(1 << 16)
            if not piece:
                return False
            raw += piece
    return struct.pack("<QiIQ", 1, 0, 8, 42) in raw


def hung_up(conn: socket.socket) -> bool:
    conn.settimeout(10)
    with contextlib.suppress(ConnectionError):
        while conn.recv(1 << 16):
            pass
    return True


def test_commands_travel_in_frames(victim: Host) -> None:
    with tcp(victim) as (conn, _, block):
        raw = ping(block)
        for i in range(0, len(raw), 7):
            conn.sendall(raw[i : i + 7])
        assert answered(conn)


HEAD_BYTES = 384  # up to here the words of the block are the host's
FRAMES = [
    (frame(0, 0, b""), "unknown type"), (frame(3, 4096, b"x"), "unknown type"), (frame(WAKE, 0, b"x"), "a wake-up with data"),
    (frame(DATA, 4096, b""), "length of data"), (frame(DATA, 4096, b"", 0xFFFFFFFF), "length of data"),
    (frame(DATA, 0, b"x" * 8), "outside"), (frame(DATA, 64, b"x" * 8), "outside"), (frame(DATA, HEAD_BYTES - 8, b"x" * 16), "outside"),
    (frame(DATA, BIG, b"x" * 8), "outside"), (frame(DATA, BIG - 7, b"x" * 16), "outside"), (frame(DATA, 1 << 40, b"x"), "outside"),
    (frame(DATA, layout.CHANNEL_BYTES, b"x"), "outside"), (frame(DATA, layout.CHANNEL_BYTES - 4, b"x" * 8), "outside"),
    (frame(DATA, layout.STAGING_OFF, b"", 0xFFFFFFFF), "outside"), (frame(DATA, layout.SLOTS_OFF, b"", layout.CHANNEL_BYTES), "length"),
    (b"ORION/1 HELLO\nwhat: ever\n\n", "unknown type"), (b"\1" * 64, "unknown type"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "reason"), FRAMES, ids=range(len(FRAMES)))
def test_frames_that_lie_end_their_channel(victim: Host, raw: bytes, reason: str) -> None:
    with tcp(victim) as (conn, channel, _):
        conn.sendall(raw)
        assert hung_up(conn)
        said = f"channel {channel}: ended, malformed stream"
        assert wait_for(lambda: any(said in x and reason in x for x in victim.output().splitlines())), victim.output()[-2000:]


def test_a_client_that_sends_and_never_reads(victim: Host) -> None:
    """Its answers pile up in its own socket; when it hangs up, all is given back as ever."""
    with tcp(victim) as (conn, _, block):
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn.settimeout(2)
        with contextlib.suppress(TimeoutError):
            for seq in range(1, 4000):
                line = struct.pack("<QHHIIIQ", seq, wire.op_of("orion_ping"), 1, 8, 0, 1, 1) + bytes(24)
                conn.sendall(frame(DATA, block + layout.RING_OFF + (seq - 1) % layout.RING_LINES * 64, line))
            for _ in range(1000):
                conn.sendall(frame(WAKE, 0, b"") * 4096)


# ---- handshakes ----


def test_a_recorded_proof_is_worth_nothing_on_another_connection(victim: Host) -> None:
    header = layout.Header.from_buffer_copy(victim.region.read_bytes()[:4096])
    ip, port = victim.server.rsplit(":", 1)
    fields = {"transport": "shm", "domain": victim.uuid, "generation": header.generation, "base": hex(layout.BASES[0]),
              "pid": 1, "ops": "00", "allocation": uuid.uuid4()}  # fmt: skip
    recorded = ""
    for turn in range(2):
        with socket.create_connection((ip, int(port)), timeout=10) as conn:
            hello = guests._block(conn, "HELLO", fields)  # noqa: SLF001
            nonce = guests._receive(conn)[1]["nonce"]  # noqa: SLF001
            proof = hmac.new(bytes(header.token), bytes.fromhex(nonce) + hello, hashlib.sha256).hexdigest()
            recorded = recorded or proof
            guests._block(conn, "AUTH", {"hmac": recorded})  # noqa: SLF001
            verb, said = guests._receive(conn)  # noqa: SLF001
            assert (verb, said["code"]) == ("REFUSED", NO_DEVICE if turn == 0 else NOT_PERMITTED)


def test_another_domains_region_needs_its_token(victim: Host) -> None:
    other = next(r["uuid"] for r in victim.status()["regions"] if r["uuid"] != victim.uuid)
    conn, verb, fields = shake_hands(victim, domain=other)
    conn.close()
    assert verb == "REFUSED" and fields["code"] in (NOT_PERMITTED, NO_DEVICE)


def test_an_allocation_in_use_is_refused_whoever_asks(victim: Host) -> None:
    taken = [c["allocation"] for c in victim.status()["channels"]]
    assert len(taken) == 2
    for allocation in taken:
        for transport in ("shm", "tcp"):
            conn, verb, fields = shake_hands(victim, transport, allocation=allocation)
            conn.close()
            assert verb == "REFUSED" and re.search("in use already|granted to another client", fields["reason"])


@pytest.mark.parametrize(
    ("path", "method"),
    [("service/confirm/{}", "POST"), ("service/release/{}", "GET"), ("service/release/{}", "POST"), ("allocations", "GET"),
     ("v1/allocations", "GET"), ("heartbeat/127.0.0.1?status=off", "POST"), ("v1/heartbeat/6.6.6.6?status=on", "POST")],
)  # fmt: skip
def test_a_guest_may_not_speak_for_a_server(victim: Host, path: str, method: str) -> None:
    allocation = victim.status()["channels"][0]["allocation"]
    for headers in ({}, {credential.HEADER: "guess"}, {"Authorization": "Bearer x"}):
        connection = http.client.HTTPConnection(victim.controller, timeout=180)
        with contextlib.closing(connection):
            connection.request(method, "/" + path.format(allocation), "{}", headers)
            answer = connection.getresponse()
            assert answer.status == 403 and allocation not in answer.read().decode()


ABSURD = [
    {"generation": "-1"}, {"generation": "9" * 30}, {"base": "0x10000000000000000"}, {"base": "zero"}, {"pid": "9" * 25},
    {"ops": "0" * 8000}, {"ops": "xyz"}, {"allocation": "../../etc/passwd"}, {"domain": "../" * 10}, {"transport": "SHM"},
    {"comm": "\t" * 3}, {"env.LD_PRELOAD": "/tmp/x.so", "generation": 1}, {"build": "%s%n" * 20, "generation": 2},
]  # fmt: skip


@pytest.mark.parametrize("changes", ABSURD, ids=[next(iter(c)) + str(i) for i, c in enumerate(ABSURD)])
def test_absurd_fields(victim: Host, changes: dict[str, object]) -> None:
    try:
        conn, verb, fields = shake_hands(victim, **changes)
    except AssertionError as error:  # no text at all is answered by nothing
        assert "hung up" in str(error)
        return
    conn.close()
    assert verb == "REFUSED" or changes.keys() <= {"ops", "comm"}, fields


def test_a_flood_of_questions_and_of_half_open_connections(victim: Host) -> None:
    ip, port = victim.server.rsplit(":", 1)
    with contextlib.ExitStack() as stack:
        for i in range(300):
            conn = stack.enter_context(socket.create_connection((ip, int(port)), timeout=10))
            with contextlib.suppress(OSError):
                conn.sendall(b"ORION/1 INFO\n\n" if i % 3 else b"ORION/1 HEL")
        with Guest(victim) as guest:
            assert guest.call("orion_ping", value=1) == 0


def test_no_variable_of_the_guest_loads_code(victim: Host) -> None:
    hostile = {f"env.{name}": "/tmp/evil" for name in ("LD_PRELOAD", "CUDA_INJECTION64_PATH", "PYTHONPATH", "PATH", "HOME")}
    with Guest(victim, **hostile, **{"env.CUDA_MODULE_LOADING": "EAGER"}) as guest:
        assert guest.call("orion_ping", value=1) == 0
        with open(f"/proc/{guest.worker()}/environ", "rb") as file:
            seen = file.read()
        assert b"/tmp/evil" not in seen and b"CUDA_MODULE_LOADING=EAGER" in seen
