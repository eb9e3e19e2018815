# SPDX-License-Identifier: Apache-2.0
"""The real guest library in the queue, at a controller that restarts, and beside others' allocations."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path

import pytest
from controllers import Client
from controllers import Process as Controller
from host import processes_of_session, wait_for

PROGRAM = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
context = ctypes.c_void_p()
for what in (cuda.cuInit(0), cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)):
    if what:
        sys.exit(what)
print("has", flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def process(host, env=None, **variables):
    """A guest program that takes a vGPU, says "has", and ends with its standard input."""
    full = (env or host.env) | {key: str(value) for key, value in variables.items()}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], env=full, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as made:
        try:
            yield made
        finally:
            made.kill()


def has(made) -> None:
    assert made.stdout.readline() == "has\n", made.stderr.read()


def orion_virt(host, *args):
    return subprocess.run([sys.executable, "-m", "orion_virt.cli.main", *args], env=host.server_env, capture_output=True, text=True,
                          timeout=180)


def test_waiting_for_a_vgpu(oriond_env):
    """It says once what it waits for, and goes on the moment another ends."""
    with process(oriond_env, ORION_GMEM=8000) as first:
        has(first)
        with process(oriond_env, ORION_GMEM=8000, ORION_WAIT=120) as second:
            line = second.stderr.readline()
            while "Waiting" not in line:
                assert line, "it ended without waiting"
                line = second.stderr.readline()
            assert re.search(r"\[INFO\] Waiting up to 1[12]\d s \(ORION_WAIT\) for 1 vGPU: 1 vGPU of 8000 MiB cannot be granted", line)
            assert wait_for(lambda: "1 processes wait" in orion_virt(oriond_env, "allocations").stdout)
            first.stdin.close()
            has(second)


def test_the_deadline_passes(oriond_env):
    with process(oriond_env, ORION_GMEM=8000) as first:
        has(first)
        with process(oriond_env, ORION_GMEM=8000, ORION_WAIT=1) as second:
            assert second.wait(60) == 100
            text = second.stderr.read()
        assert text.count("Waiting up to 1 s") == 1 and "refuses 1 vGPU" in text and "0 of 8192 MiB free" not in text
        assert "3 of 4 vGPU and 192 of 8192 MiB free" in text


@pytest.mark.parametrize("wish", [{"ORION_GMEM": 99999}, {"ORION_VGPU": 5}])
def test_nobody_waits_for_what_can_never_be(oriond_env, wish):
    with process(oriond_env, ORION_WAIT=3600, **wish) as made:
        assert made.wait(60) == 100
        text = made.stderr.read()
    assert "even when idle" in text and "Waiting" not in text


@pytest.mark.parametrize("value", ["x", "-1", "86401"])
def test_a_bad_time_to_wait_is_one_clear_error(oriond_env, value):
    with process(oriond_env, ORION_WAIT=value) as made:
        assert made.wait(60) == 1
        assert f"ORION_WAIT={value} is not valid; accepted: seconds to wait" in made.stderr.read()


def test_a_token_is_not_told(oriond_env):
    with process(oriond_env, ORION_TOKEN="two words") as made:
        assert made.wait(60) == 1
        text = made.stderr.read()
    assert "ORION_TOKEN=... is not valid" in text and "words" not in text


def test_a_controller_that_is_killed_forgets_nothing(oriond_env):
    """The process with a vGPU goes on; a new controller knows of it, and of its end."""
    with process(oriond_env, ORION_VGPU=3) as made:
        has(made)
        os.kill(controller_of(oriond_env), signal.SIGKILL)
        again = Controller(oriond_env.dir, port=oriond_env.controller_port)
        client = again.client()
        found = client.json("/allocations")["allocations"]
        assert [(a["pid"], len(a["vgpus"]), a["state"]) for a in found] == [(made.pid, 3, "confirmed")]
        assert client.json("/devices")["free"] == 1
        made.stdin.close()
        assert made.wait(60) == 0
        assert wait_for(lambda: client.json("/devices")["free"] == 4), client.json("/allocations")
        with process(oriond_env, ORION_VGPU=4) as another:
            has(another)
    again.kill()


def test_what_ends_while_the_controller_is_down_is_free_afterwards(oriond_env):
    with process(oriond_env, ORION_VGPU=3) as made:
        has(made)
        os.kill(controller_of(oriond_env), signal.SIGKILL)
        made.stdin.close()
        assert made.wait(60) == 0
    client = Client(oriond_env.controller_port)  # oriond starts its controller again

    def free() -> int:
        with contextlib.suppress(OSError):
            return client.json("/devices")["free"]
        return 0

    assert wait_for(lambda: free() == 4), client.json("/allocations")


def controller_of(host):
    """Pid of the controller that oriond started."""
    for pid in processes_of_session(host.process.pid):
        if b"orion_virt.cli.controller" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise AssertionError("there is no controller")


def test_allocations_are_shown_with_their_processes(oriond_env):
    with process(oriond_env, ORION_VGPU=2, ORION_GMEM=700) as made:
        has(made)
        found = json.loads(orion_virt(oriond_env, "allocations", "--json").stdout)["allocations"]
        assert [(a["domain"], a["pid"], len(a["vgpus"])) for a in found] == [(oriond_env.uuid, made.pid, 2)]
        shown = orion_virt(oriond_env, "allocations").stdout.splitlines()
        assert shown[0].split()[:3] == ["ALLOCATION", "DOMAIN", "PROCESS"] and "700+700 MiB" in shown[1]
        assert oriond_env.uuid in shown[1] and str(made.pid) in shown[1] and shown[2] == "2 of 4 vGPU are free."


def test_a_reservation_of_a_domain(oriond_env):
    """With a region a process is of its domain; the same process over TCP is nobody."""
    assert "there is no domain 'nobody'" in orion_virt(oriond_env, "reserve", "nobody", "1").stderr
    done = orion_virt(oriond_env, "reserve", oriond_env.uuid, "4")
    assert done.returncode == 0, done.stderr
    # the controller hears of a new region with the next heartbeat
    assert wait_for(lambda: "127.0.0.1" in orion_virt(oriond_env, "reservations").stdout)
    with process(oriond_env, oriond_env.tcp_env) as stranger:
        assert stranger.wait(60) == 100 and "4 vGPU are reserved for other domains" in stranger.stderr.read()
    with process(oriond_env) as ours:
        has(ours)
        assert re.search(r" 4 +share +1 +127.0.0.1$", orion_virt(oriond_env, "reservations").stdout.splitlines()[1])
    assert orion_virt(oriond_env, "reserve", oriond_env.uuid, "0").returncode == 0
    assert orion_virt(oriond_env, "reserve", oriond_env.uuid, "9").returncode == 5


def test_another_domains_allocation_is_refused(oriond_env):
    """Whoever learns an id that was granted to a domain cannot use it."""
    connection = HTTPConnection("127.0.0.1", oriond_env.controller_port, timeout=10)
    connection.request("GET", "/service?nvidia_vgpu=1&owner=" + "a" * 64)
    answer = connection.getresponse().read().decode()
    connection.close()
    relay = _Relay(answer)
    with relay, process(oriond_env, ORION_CONTROLLER=f"127.0.0.1:{relay.port}") as made:
        assert made.wait(60) == 800 & 255
        assert "was granted to another client" in made.stderr.read()


class _Relay:
    """Answers every question with an allocation that was somebody else's."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *args):
                pass

        self._server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
