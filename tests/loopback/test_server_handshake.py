# SPDX-License-Identifier: Apache-2.0
"""The handshake as a guest speaks it, well behaved and hostile, over both transports."""

import contextlib
import hashlib
import hmac
import http.client
import os
import socket
import struct
import time
import uuid

import host
import pytest

OFF_TOKEN, OFF_GENERATION = 56, 72
BASE = "0x200000000000"
CODES = {"NO_DEVICE": "100", "NOT_PERMITTED": "800", "UNKNOWN": "999"}


class Guest:
    """A client of our own writing: text blocks on one connection."""

    def __init__(self, server):
        ip, port = server.rsplit(":", 1)
        self.sock = socket.create_connection((ip, int(port)), timeout=10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, verb, **fields):
        lines = "".join(f"{key.replace('__', '.')}: {value}\n" for key, value in fields.items())
        raw = f"ORION/1 {verb}\n{lines}\n".encode()
        self.sock.sendall(raw)
        return raw

    def receive(self):
        """(verb, fields), or None at end of file."""
        raw = b""
        while not raw.endswith(b"\n\n"):
            piece = self.sock.recv(1 << 16)
            if not piece:
                assert not raw, raw
                return None
            raw += piece
        first, *lines = raw[:-2].decode().split("\n")
        return first.removeprefix("ORION/1 "), dict(line.split(": ", 1) for line in lines)


def allocate(env, query="nvidia_vgpu=1&memory=100"):
    connection = http.client.HTTPConnection(env.controller, timeout=180)
    connection.request("GET", f"/service?{query}")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    return text.split(",")[0]


def peek(env, off, n_bytes):
    with open(env.region, "rb") as file:
        file.seek(off)
        return file.read(n_bytes)


def header(env):
    raw = peek(env, 0, 4096)
    return raw[OFF_TOKEN : OFF_TOKEN + 16], struct.unpack_from("<Q", raw, OFF_GENERATION)[0]


def greet(env, guest, **changes):
    """HELLO and AUTH over shared memory; returns the server's last answer."""
    token, generation = header(env)
    proof_token = changes.pop("token", token)
    fields = {
        "transport": "shm",
        "domain": env.uuid,
        "generation": generation,
        "base": BASE,
        "pid": os.getpid(),
        "comm": "pytest",
        "build": "test",
        "ops": "00",
        "allocation": changes.pop("allocation", None) or allocate(env),
    } | changes
    hello = guest.send("HELLO", **fields)
    answer = guest.receive()
    if answer is None or answer[0] != "CHALLENGE":
        return answer
    nonce = bytes.fromhex(answer[1]["nonce"])
    guest.send("AUTH", hmac=hmac.new(proof_token, nonce + hello, hashlib.sha256).hexdigest())
    return guest.receive()


def free_vgpus(env):
    connection = http.client.HTTPConnection(env.controller, timeout=180)
    connection.request("GET", "/devices?res=nvidia_cuda&used=true")
    text = connection.getresponse().read().decode()
    connection.close()
    return int(text.rsplit("=", 1)[1])


def test_info_tells_the_cards(oriond_env):
    with Guest(oriond_env.server) as guest:
        guest.send("INFO")
        verb, fields = guest.receive()
        assert guest.receive() is None
    raw = bytes.fromhex(fields["snapshot"])
    nr_gpus, _, simulated, vgpu_count = struct.unpack_from("<4I", raw)
    assert verb == "INFO" and nr_gpus >= 1 and simulated == 1 and vgpu_count == 4
    assert b"Orion Simulated GPU" in raw[16 : 16 + 96]
    assert peek(oriond_env, 4096, len(raw)) == raw


def test_welcome_and_everything_comes_back(oriond_env):
    free = free_vgpus(oriond_env)
    with Guest(oriond_env.server) as guest:
        verb, fields = greet(oriond_env, guest, allocation=allocate(oriond_env, "nvidia_vgpu=2&memory=100"))
        assert (verb, fields["devices"], fields["device.1"]) == ("WELCOME", "2", f"0,{100 << 20}")
        block = int(fields["block"])
        raw = peek(oriond_env, block, 64)
        magic, channel = struct.unpack_from("<QI", raw)
        assert magic == 0x31304E4F49524F55 and channel == int(fields["channel"])
        status = oriond_env.status()
        assert status["workers"] == 1 and status["regions"][0]["extents_used"] >= 1
        assert free_vgpus(oriond_env) == free - 2
    assert host.wait_for(oriond_env.idle)
    assert free_vgpus(oriond_env) == free
    assert "client exits with allocation ID" in oriond_env.output()


def test_tcp_needs_an_allocation_only(oriond_env):
    with Guest(oriond_env.server) as guest:
        hello = {"transport": "tcp", "domain": "-", "pid": 1, "ops": "00"}
        guest.send("HELLO", **hello, allocation=allocate(oriond_env))
        assert guest.receive()[0] == "CHALLENGE"
        guest.send("AUTH", hmac="-")
        assert guest.receive()[0] == "WELCOME"
    with Guest(oriond_env.server) as guest:
        guest.send("HELLO", **hello, allocation=uuid.uuid4())
        guest.receive()
        guest.send("AUTH", hmac="-")
        verb, fields = guest.receive()
        assert verb == "REFUSED" and fields["code"] == CODES["NO_DEVICE"] and "does not exist" in fields["reason"]


def test_an_allocation_serves_one_process(oriond_env):
    allocation = allocate(oriond_env)
    with Guest(oriond_env.server) as first, Guest(oriond_env.server) as second:
        assert greet(oriond_env, first, allocation=allocation)[0] == "WELCOME"
        verb, fields = greet(oriond_env, second, allocation=allocation)
        assert verb == "REFUSED" and "in use already" in fields["reason"]


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"token": b"x" * 16}, "NOT_PERMITTED", "proof does not match"),
        ({"generation": 5}, "NO_DEVICE", "new generation"),
        ({"domain": str(uuid.uuid4())}, "NO_DEVICE", "no region at this server"),
        ({"domain": "x"}, "UNKNOWN", "UUID is malformed"),
        ({"base": "0x7f0000000000"}, "UNKNOWN", "none of the agreed addresses"),
        ({"transport": "pigeon"}, "UNKNOWN", "neither shm nor tcp"),
        ({"pid": "-1"}, "UNKNOWN", "pid is not a number"),
        ({"ops": "zz"}, "UNKNOWN", "ops is not hex"),
    ],
)
def test_refusals(oriond_env, changes, code, reason):
    with Guest(oriond_env.server) as guest:
        verb, fields = greet(oriond_env, guest, **changes)
        assert verb == "REFUSED" and fields["code"] == CODES[code] and reason in fields["reason"]
        assert guest.receive() is None


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\n\n",
        b"\xff\xfe\n\n",
        b"ORION/1 HELLO\nno colon\n\n",
        b"ORION/1 HELLO\na: 1\na: 2\n\n",
        b"ORION/1 HELLO\n\nbytes too early",
        b"ORION/2 INFO\n\n",
        b"ORION/1 DANCE\n\n",
        b"x" * 20000,
        b"ORION/1 HELLO\n" + b"k: v\n" * 300 + b"\n",
    ],
)
def test_garbage_ends_its_connection_alone(oriond_env, raw):
    with Guest(oriond_env.server) as guest:
        guest.sock.sendall(raw)
        try:
            while guest.sock.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
    with Guest(oriond_env.server) as guest:
        assert greet(oriond_env, guest)[0] == "WELCOME"
    assert "Traceback" not in oriond_env.output()


def test_slow_clients_cost_nothing_and_are_cut_off(oriond_env):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Guest(oriond_env.server)) for _ in range(160)]
        for guest in slow[:100]:
            with contextlib.suppress(OSError):  # the oldest are cut off already
                guest.sock.sendall(b"ORION/1 HE")
        with Guest(oriond_env.server) as guest:
            assert greet(oriond_env, guest)[0] == "WELCOME"
        start = time.monotonic()
        assert b"REFUSED" not in slow[-1].sock.recv(4096)  # closed without a word when its time is up
        assert time.monotonic() - start < 8
    assert host.wait_for(lambda: oriond_env.status()["fds"] < 60)


def test_a_client_that_leaves_before_welcome(oriond_env):
    for _ in range(5):
        with Guest(oriond_env.server) as guest:
            guest.send("HELLO", transport="tcp", pid=1, ops="00", allocation=allocate(oriond_env))
            guest.receive()
            guest.send("AUTH", hmac="-")
    assert host.wait_for(oriond_env.idle)
