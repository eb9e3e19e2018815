# SPDX-License-Identifier: Apache-2.0
"""Plugs pulled while a real client computes through a real worker on the simulated GPU."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from host import LIB, Host, wait_for

from orion_virt import layout

CLIENT = str(Path(__file__).with_name("client.py"))
pytestmark = pytest.mark.skipif(not (LIB / "guest" / "libcuda.so.1").exists(), reason="run `make build` first")


def start(host: Host, mode: str = "loop", seconds: int = 30) -> subprocess.Popen:
    """A client that has a working context."""
    process = subprocess.Popen([sys.executable, CLIENT, mode, str(seconds)], env=host.env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert line == "READY True\n", (line, process.stderr.read() if process.poll() is not None else "", host.output())
    return process


def finish(process: subprocess.Popen, timeout: float = 15) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def worker_pid(host: Host) -> int:
    channels = host.status()["channels"]
    assert len(channels) == 1, channels
    return channels[0]["worker"]


def once(host: Host) -> subprocess.CompletedProcess:
    """A new process must work at once."""
    done = host.run([sys.executable, CLIENT, "once"])
    assert done.returncode == 0, (done.stdout, done.stderr, host.output())
    return done


def test_a_process_runs_and_its_allocation_is_released(oriond_env: Host) -> None:
    done = once(oriond_env)
    assert done.stdout == "READY True\nDONE\n"
    said = re.search(r"\[INFO\] Client exits with allocation ID ([0-9a-f-]{36})", done.stderr)
    assert said, done.stderr
    assert re.search(r"Orion vGPU\. Build-cuda-[0-9a-f]{7}-\d{8}_\d{6}", done.stderr)
    assert said[1] in oriond_env.output() or any(said[1] in p.read_text() for p in (oriond_env.dir / "log").rglob("*") if p.is_file())


def test_release_is_synchronous(make_oriond) -> None:
    """With one slot, processes that follow each other at once all find it free."""
    with make_oriond(config="[server]\nvgpu_count = 1\n") as host:
        for _ in range(4):
            once(host)


def test_client_killed(oriond_env: Host) -> None:
    process = start(oriond_env)
    worker = worker_pid(oriond_env)
    process.kill()
    process.communicate()
    assert wait_for(lambda: not Path(f"/proc/{worker}").exists() or None), "the worker lives on"
    once(oriond_env)


def test_worker_killed(oriond_env: Host) -> None:
    process = start(oriond_env)
    os.kill(worker_pid(oriond_env), signal.SIGKILL)
    status, out, err = finish(process)
    assert status == 1
    assert re.search(r"^cu\w+ \d+$", out, re.M), out
    assert len([line for line in err.splitlines() if "worker" in line or "channel" in line]) >= 1, err
    assert "Traceback" not in err
    once(oriond_env)


def test_region_truncated_under_load(oriond_env: Host) -> None:
    """SIGBUS ends the worker (and a client that has the region mapped), never the daemon."""
    process = start(oriond_env)
    size = oriond_env.region.stat().st_size
    worker = worker_pid(oriond_env)
    os.truncate(oriond_env.region, 65536)
    assert wait_for(lambda: not Path(f"/proc/{worker}").exists() or None)
    finish(process)
    assert oriond_env.process.poll() is None
    os.truncate(oriond_env.region, size)
    assert oriond_env.status()["ok"]


def test_daemon_killed(oriond_env: Host) -> None:
    """The client gets one sticky error; a new process works as soon as the daemon is back."""
    process = start(oriond_env)
    oriond_env.kill()
    status, out, err = finish(process)
    assert status == 1 and re.search(r"^cu\w+ \d+$", out, re.M), (out, err)
    oriond_env.region.unlink(missing_ok=True)
    oriond_env.start()
    made = oriond_env.command("region-create", uuid=oriond_env.uuid, size_mib=128)
    assert made["ok"], made
    once(oriond_env)


def test_daemon_down_is_one_line(oriond_env: Host) -> None:
    env = oriond_env.env
    oriond_env.stop()
    with open(oriond_env.region, "r+b") as region:  # as after a minute: of one that was just there more is expected
        os.pwrite(region.fileno(), bytes(8), layout.Header.heartbeat.offset)
    done = oriond_env.run([sys.executable, CLIENT, "once"], env=env)
    assert done.returncode == 1
    assert done.stdout == "cuInit 100\n", done.stdout
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len([line for line in lines if "oriond" in line]) == 1, done.stderr
    oriond_env.start()


def test_more_vgpus_than_there_are(oriond_env: Host) -> None:
    done = oriond_env.run([sys.executable, CLIENT, "once"], ORION_VGPU=9)
    assert done.returncode == 1
    assert "refuses 9 vGPU (ORION_VGPU)" in done.stderr and "Traceback" not in done.stderr


def test_memory_limit_is_cudas_own_error(oriond_env: Host) -> None:
    code = ("import ctypes; import client; p = client.setup(); q = ctypes.c_uint64(); free = ctypes.c_size_t(); total = ctypes.c_size_t()\n"
            "client.check('cuMemGetInfo_v2', ctypes.byref(free), ctypes.byref(total))\n"
            "print(total.value >> 20, client.cu.cuMemAlloc_v2(ctypes.byref(q), ctypes.c_size_t(65 << 20)))\n"
            "print(client.cu.cuMemAlloc_v2(ctypes.byref(q), ctypes.c_size_t(32 << 20)), client.turn(p, 9))")
    done = oriond_env.run([sys.executable, "-c", code], ORION_GMEM=64, PYTHONPATH=str(Path(CLIENT).parent))
    assert done.stdout == "64 2\n0 True\n", (done.stdout, done.stderr)


def test_tcp_transport_gives_the_same(oriond_env: Host) -> None:
    done = oriond_env.run([sys.executable, CLIENT, "once"], env=oriond_env.tcp_env)
    assert done.stdout == "READY True\nDONE\n", (done.stdout, done.stderr, oriond_env.output())
