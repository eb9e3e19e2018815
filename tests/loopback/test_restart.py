# SPDX-License-Identifier: Apache-2.0
"""oriond restarts, planned or killed, under programs of guests: they go on, and all that they have is known again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid as uuids
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

    def says(self, text: str) -> None:
        assert any(text in line for line in self.process.stderr), text

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
        return bool(wait_for(lambda: int(self.ask("count")) > before + 3))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def lost(self) -> str:
        """Its last words, once its channel has ended under it."""
        self.process.wait(60)
        out, err = self.process.communicate()
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
    host.process.wait(30)


WAYS = pytest.mark.parametrize("end", [planned, killed])
End = Callable[[Host], None]


def channels(host: Host) -> dict[int, dict[str, object]]:
    return {channel["pid"]: channel for channel in host.status()["channels"]}


def known(host: Host) -> dict[int, list[object]]:
    return {pid: [channel[name] for name in SAME] for pid, channel in channels(host).items()}


def logged(host: Host, text: str) -> bool:
    return bool(wait_for(lambda: text in (host.dir / "log" / "server.log").read_text()))


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
            late.says("Waiting up to 30 s for oriond")
            host.start()
            assert one.answer() == "0" and one.ask("check") == over_tcp.ask("check") == "True"
            assert known(host) | before == known(host)
            assert all(program.computes() for program in made)
            assert late.started().ask("alloc 1") == "0"
            late.kill()
        assert first.ask("alloc 300") == second.ask("alloc 300") == "2"  # the group's memory is still one
        assert wait_for(lambda: channels(host)[one.process.pid]["devices"][0]["used_bytes"] and
                        channels(host)[one.process.pid]["calls_per_second"])
        assert one.ask("unpin 2") == one.ask("unpin 4") == "0"
        second.kill()
        assert wait_for(lambda: first.ask("alloc 150") == "0")  # what it had is the group's again
        fresh = host.run([sys.executable, HERE / "client.py", "once"], ORION_RATIO=70)
        assert fresh.returncode == 1 and "30 % are asked" not in fresh.stderr and "% of its time left" in fresh.stderr, fresh.stderr


@WAYS
def test_what_processes_share(host: Host, end: End, request: pytest.FixtureRequest) -> None:
    """Memory by handle and by descriptor, and pages of a file: whoever is left has them, books them, and shows them on."""
    path = Path("/dev/shm") / f"orion-test-{os.getpid()}"
    request.addfinalizer(path.unlink)
    path.write_bytes(b"first".ljust(2 * MIB + 4096, b"\0"))
    with programs(*(Program(host.env, "quiet", ORION_GMEM=200) for _ in "abc")) as (maker, user, late):
        shown = maker.ask("show")
        free = int(user.ask("free"))
        assert user.ask(f"take {shown}") == "7 8"
        assert maker.ask(f"register {path}") == user.ask(f"register {path}") == "0"
        end(host)
        maker.kill()
        assert user.ask("put other") == "other" and user.ask("look") == "7 8"
        host.start()
        assert wait_for(lambda: int(user.ask("free")) <= free - 12)  # it books what the maker had
        assert late.ask(f"register {path}") == "0" and late.ask("get") == "other"
        assert late.ask(f"take - {_fd_of(user)}") == "8"
        assert user.ask("unregister") == late.ask("unregister") == "0"
        user.kill()
        assert late.ask("look") == "8"


def _fd_of(program: Program) -> str:
    """The descriptor in which it has the token."""
    folder = Path(f"/proc/{program.process.pid}/fd")
    return str(next(fd for fd in sorted(folder.iterdir()) if os.readlink(fd).startswith("/memfd:")))


@WAYS
def test_who_ends_while_no_oriond_is_there(host: Host, end: End) -> None:
    """A client, a worker, a region; what they had is free when the next oriond is ready, and only that."""
    region = host.command("region-create", uuid=str(uuids.uuid4()), size_mib=16)
    other = host.env | {"ORION_REGION": region["path"]}
    made = [Program(host.env, ORION_GMEM=200) for _ in range(3)] + [Program(other, ORION_GMEM=200)]
    with programs(*made) as (stays, dies, loses, removed):
        assert [program.ask("pin 4") for program in made] == ["0"] * 4
        worker = channels(host)[loses.process.pid]["worker"]
        end(host)
        dies.kill()
        os.kill(worker, signal.SIGKILL)
        assert "lost" in loses.lost()
        os.unlink(region["path"])
        host.start()
        assert list(channels(host)) == [stays.process.pid] and stays.computes()
        assert logged(host, "its region was removed or replaced meanwhile") and "lost" in removed.lost()
        assert host.status()["regions"][0]["extents_used"] == 3  # its block, and 4 MiB
        assert sorted(path.suffix for path in (host.dir / "run" / "workers").iterdir()) == [".json", ".sock"]
        again = host.run([sys.executable, HERE / "client.py", "once"], ORION_GMEM=7000)  # memory is back too
        assert again.returncode == 0, again.stderr


def test_another_configuration(host: Host) -> None:
    """What runs keeps what it was promised; what comes gets what is promised now."""
    with programs(*(Program(host.env, ORION_GMEM=100) for _ in range(3))) as made:
        planned(host)
        host._config = CONFIG.replace("vgpu_count = 8", "vgpu_count = 2").replace("= on", "= off") + "[server-shm]\nshm_budget = 2\n"
        host.start()
        assert len(channels(host)) == 3 and all(program.computes() and program.ask("pin 2") == "0" for program in made)
        refused = host.run([sys.executable, HERE / "client.py", "once"])
        assert refused.returncode == 1 and "0 of 2 vGPU" in refused.stderr, refused.stderr
        host._config = CONFIG
        planned(host)
        host.start()
        assert all(program.computes() for program in made)
        host.command("region-remove", uuid=host.uuid)
        assert all("lost" in program.lost() for program in made)
        host.command("region-create", uuid=host.uuid, size_mib=host.region_mib)


def test_nobody_comes_back(host: Host) -> None:
    """A worker waits as long as it is told to; stopped for good, oriond ends what there is at once."""
    planned(host)
    host._config = CONFIG.replace("= 60", "= 2")
    host.start()
    with programs(Program(host.env), Program(host.env, "quiet")) as (busy, asks):
        sid = host.process.pid
        killed(host)
        asks.send("pin 2")
        assert "oriond on the host was stopped" in busy.lost()
        assert asks.answer() == "46"
        assert wait_for(lambda: not hosts.processes_of_session(sid))
    host.start()
    with programs(Program(host.env)) as (busy,):
        host.process.send_signal(signal.SIGINT)
        assert host.process.wait(20) == 0 and "oriond on the host was stopped" in busy.lost()
    host.start()


def _changed(host: Host, program: Program, **fields: object) -> None:
    """Another record than the last oriond wrote."""
    path = host.dir / "run" / "workers" / f"{channels(host)[program.process.pid]['channel']}.json"
    killed(host)
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    host.start()


def test_records_that_are_not_of_this_version(host: Host) -> None:
    with programs(Program(host.env), Program(host.env)) as (old, other):
        _changed(host, old, protocol=0)
        assert logged(host, "cannot be taken up and was ended: it is of another version")
        assert "oriond on the host was stopped" in old.lost() and other.computes()
        _changed(host, other, hello=None)
        assert logged(host, "it is not readable") and "lost" in other.lost()
        assert not channels(host)


def test_claims_that_are_not_true(host: Host) -> None:
    """A record of a process that is no worker does it no harm; blocks and regions of others are not given away."""
    with programs(*(Program(host.env) for _ in "abc")) as (one, other, stranger):
        blocks = {pid: json.loads((host.dir / "run" / "workers" / f"{c['channel']}.json").read_text()) for pid, c in channels(host).items()}
        _changed(host, other, block=blocks[one.process.pid]["block"])
        assert logged(host, "it has not the block of its channel") and "lost" in other.lost()
        started = int(Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()[19])
        _changed(host, stranger, pid=os.getpid(), started=started)
        assert one.computes() and list(channels(host)) == [one.process.pid]
        os.kill(blocks[stranger.process.pid]["pid"], signal.SIGKILL)
