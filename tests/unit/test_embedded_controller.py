# SPDX-License-Identifier: Apache-2.0
"""A controller that oriond started serves where it is told to, and ends with oriond."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from host import ROOT, free_port, wait_for

from orion_virt.server.embedded import EmbeddedController


def answers(ip: str, port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://{ip}:{port}/info", timeout=10) as reply:
            return b"api_version" in reply.read()
    except OSError:
        return False


def test_further_addresses_and_the_end(tmp_path: Path) -> None:
    port = free_port()
    argv = [sys.executable, "-m", "orion_virt.cli.controller", "--listen", f"127.0.0.1:{port}", "--also-at-stdin"]
    env = {f"ORION_{n}": str(tmp_path) for n in ("ETC", "RUN", "LOG", "STATE")} | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert wait_for(lambda: answers("127.0.0.1", port))
        assert not answers("127.0.0.2", port)
        process.stdin.write("+203.0.113.7\n+127.0.0.2\n")  # the first is not this machine's
        process.stdin.flush()
        assert process.stdout.readline().startswith("203.0.113.7 the controller cannot listen on 203.0.113.7")
        assert process.stdout.readline() == "127.0.0.2\n"
        assert answers("127.0.0.2", port)
        process.stdin.write("-127.0.0.2\n-127.0.0.9\n+127.0.0.3\n")
        process.stdin.flush()
        assert process.stdout.readline() == "127.0.0.3\n"
        assert not answers("127.0.0.2", port) and answers("127.0.0.3", port)
        process.stdin.close()
        assert process.wait(30) == 0


def test_one_that_is_killed_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It serves where the last one did, oriond is told, and at oriond's end no further one comes."""
    for name in ("ETC", "RUN", "LOG", "STATE"):
        monkeypatch.setenv(f"ORION_{name}", str(tmp_path))
    port = free_port()
    asyncio.run(_killed(EmbeddedController(f"127.0.0.1:{port}"), port))
    assert not answers("127.0.0.1", port)
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        "the controller ended (signal SIGKILL) and is started again; until then new programs get no vGPU"]


async def _killed(controller: EmbeddedController, port: int) -> None:
    renewed = asyncio.Event()
    controller._at.add("127.0.0.2")  # as of a gateway; `also_at` leaves loopback out
    controller.watch(lambda ip: None, renewed.set)
    try:
        assert await asyncio.to_thread(wait_for, lambda: answers("127.0.0.1", port), 60)
        os.kill(controller._process.pid, signal.SIGKILL)
        await asyncio.wait_for(renewed.wait(), 60)
        for ip in ("127.0.0.1", "127.0.0.2"):
            assert await asyncio.to_thread(wait_for, lambda ip=ip: answers(ip, port), 60)
    finally:
        controller.unwatch()
        controller.stop()
    await asyncio.sleep(0.5)
