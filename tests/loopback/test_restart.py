# SPDX-License-Identifier: Apache-2.0
"""oriond restarts, planned or killed, under programs of guests: they go on, and all that they have is known again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import host as hosts
import pytest
from host import Host, wait_for

MIB = 1 << 20
HERE = Path(__file__).parent
CONFIG = "[server]\nkeep_workers = 60\nvgpu_count = 8\ncompute_limits = on\n"
SAME = ("channel", "domain", "transport", "mailbox", "pid", "comm", "peer", "allocation", "worker")


class Program:
    """A running restart_client.py. `ask` answers what it printed; `send` and `answer` are its halves."""

    def __init__(self, env: dict[str, str], *args: str, **variables: object) -> None:
        argv = [sys.executable, str(HERE / "restart_client.py"), *args]
        self.process = subprocess.Popen(argv, env=env | {k: str(v) for k, v in variables.items()}, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def started(self) -> Program:
        assert self.answer() == "READY", self.process.communicate()[1]
        return self

    def send(self, order: str) -> None:
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self.process.stdout.readline().strip()

    def ask(self, order: str) -> str:
        self.send(order)
        return self.answer()

    def computes(self) -> bool:
        before = int(self.ask("count"))
        return bool(wait_for(lambda: int(self.ask("count")) > before + 3, 20))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def lost(self) -> str:
        """Its last words, once its channel has ended under it."""
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 1 and out.split()[-1] == "46", out + err
        return err


@contextlib.contextmanager
def programs(*made: Program) -> Iterator[list[Program]]:
    try:
        yield [program.started() for program in made]
    finally:
        for program in made:
            program.kill()


def planned(host: Host) -> None:
    assert host.stop() == 0, host.output()


def killed(host: Host) -> None:
    os.kill(host.process.pid, signal.SIGKILL)
    host.process.wait(5)


WAYS = pytest.mark.parametrize("end", [planned, killed])
End = Callable[[Host], None]


def channels(host: Host) -> dict[int, dict[str, object]]:
    return {channel["pid"]: channel for channel in host.status()["channels"]}


def known(host: Host) -> dict[int, list[object]]:
    return {pid: [channel[name] for name in SAME] for pid, channel in channels(host).items()}


def logged(host: Host, text: str) -> bool:
    return bool(wait_for(lambda: text in (host.dir / "log" / "server.log").read_text(), 10))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with hosts.running(tmp_path, config=CONFIG) as running:
        yield running


@WAYS
def test_programs_go_on(host: Host, end: End) -> None:
    """Over shared memory, over TCP, in a group, with a share of the card; over two restarts in a row."""
    made = [Program(host.env, ORION_RATIO=30), Program(host.tcp_env), *(Program(host.env, ORION_GROUP="job", ORION_GMEM=500) for _ in "ab")]
    with programs(*made) as (one, over_tcp, first, second):
        before = known(host)
        assert one.ask("pin 4") == first.ask("alloc 300") == second.ask("alloc 100") == "0"
        for size in ("2", "6"):
            end(host)
            assert all(program.computes() for program in made)
            assert over_tcp.ask("pin 2") == "0"  # private memory needs nobody
            one.send(f"pin {size}")  # waits for the next oriond
            late = Program(host.env, "quiet")
            host.start()
            assert one.answer() == "0" and one.ask("check") == over_tcp.ask("check") == "True"
            assert known(host) | before == known(host)
            assert all(program.computes() for program in made)
            assert late.started().ask("alloc 1") == "0"
            late.kill()
        assert first.ask("alloc 300") == second.ask("alloc 300") == "2"  # the group's memory is still one
        assert wait_for(lambda: channels(host)[one.process.pid]["devices"][0]["used_bytes"] and
                        channels(host)[one.process.pid]["calls_per_second"], 10)
        assert one.ask("unpin 2") == one.ask("unpin 4") == "0"
        second.kill()
        assert wait_for(lambda: first.ask("alloc 150") == "0", 10)  # what it had is the group's again
        fresh = host.run([sys.executable, HERE / "client.py", "once"], ORION_RATIO=70)
        assert fresh.returncode == 1 and "30 % are asked" not in fresh.stderr and "% of its time left" in fresh.stderr, fresh.stderr
