# SPDX-License-Identifier: Apache-2.0
"""One client that goes wrong, from its start until nothing is left of its worker, and what it must have seen."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures import Figures
from world import CLIENTS_OUTLIVE_ORIOND, KERNELS, STEP, Failed, World, alive, rest, until

LOST = "(46|CUDA_ERROR_DEVICE_UNAVAILABLE)"
ILLEGAL_ADDRESS, TIMEOUT, ASSERT, LAUNCH_FAILED = 700, 702, 710, 719
END_SECONDS = 60      # for a client to end, on a machine with much else to do
GONE_SECONDS = 30     # for its worker; 1 is promised on one that has not
_NO_DEVICE = "(100|CUDA_ERROR_NO_DEVICE)"


@dataclass(frozen=True)
class Kind:
    """What a client does, what is done to it once it does that, and what it must say then."""

    mode: str
    argument: str = ""
    kill: str = ""       # "app", "worker", "frozen worker", "frozen app"
    says: str = ""       # all of its output, as a regular expression
    status: int = 0
    env: tuple[tuple[str, str], ...] = ()
    ways: tuple[str, ...] = ("F", "F", "V", "V", "tcp", "M")  # how it may reach the host


def _sticky(code: int) -> str:
    return rf"fault {code}\n"


KINDS = {
    "illegal address": Kind("illegal", says=_sticky(ILLEGAL_ADDRESS)),
    "assert": Kind("assertion", says=_sticky(ASSERT)),
    "trap": Kind("trapped", says=_sticky(LAUNCH_FAILED)),
    "everything freed twice": Kind("free-twice", says=r"refused 6 of 6\n"),
    "everything leaked, exit": Kind("leak", "exit"),
    "everything leaked, _exit": Kind("leak", "_exit"),
    "everything leaked, abort": Kind("leak", "abort", status=-signal.SIGABRT),
    "everything leaked, SIGSEGV": Kind("leak", "segv", status=-signal.SIGSEGV),
    "children that end": Kind("forks", says=r"children 0\n"),
    "infinite kernel, exit": Kind("infinite", "exit", says=r"running\n"),
    "infinite kernel, killed": Kind("infinite", "wait", kill="app", says=r"running\n", status=-signal.SIGKILL),
    "infinite kernel with work behind it, killed": Kind("infinite", "more", kill="app", says=r"running\n", status=-signal.SIGKILL),
    "infinite kernel, worker killed": Kind("infinite", "wait", kill="worker", says=rf"running\nfault {LOST}\nthen {LOST}\n"),
    "infinite kernel, left to the host": Kind("infinite", "wait", says=rf"running\nfault {TIMEOUT}\nthen {TIMEOUT}\n"),
    "infinite kernel with work behind it, left to the host":
        Kind("infinite", "more", says=rf"running\nfault {TIMEOUT}\nthen {TIMEOUT}\n"),
    "killed at work": Kind("busy", kill="app", status=-signal.SIGKILL),
    "killed at work of many threads": Kind("threads", kill="app", status=-signal.SIGKILL),
    "killed with two vGPUs": Kind("threads", kill="app", status=-signal.SIGKILL, env=(("ORION_VGPU", "2"),)),
    "killed in a group": Kind("busy", kill="app", status=-signal.SIGKILL, env=(("ORION_GROUP", "soak"),), ways=("F",)),
    "worker killed in a group": Kind("busy", kill="worker", says=rf"\w.* {LOST}\n", status=1, env=(("ORION_GROUP", "soak"),), ways=("F",)),
    "owner of shared memory killed": Kind("widow", says=r"closed\n", ways=("F", "V")),
    "killed while stopped": Kind("busy", kill="frozen app", status=-signal.SIGKILL),
    "worker killed": Kind("busy", kill="worker", says=rf"\w.* {LOST}\n", status=1),
    "worker of many threads killed": Kind("threads", kill="worker", says=rf"\w.* {LOST}\n", status=1),
    "worker stopped, then its client killed": Kind("busy", kill="frozen worker", status=-signal.SIGKILL),
}


@dataclass
class Case:
    """Times are seconds from the moment before."""

    kind: str
    way: str             # a domain's name, or "tcp"
    start: float         # from the event's begin
    go: float            # from when it is ready
    kill: float          # from when it misbehaves
    disturbed: bool = False  # the host's side was hit while it ran: it may have ended by that
    murdered: bool = False   # its guest ended with it
    beside: str = ""     # what was done to the host's side meanwhile
    died: float = 0.0    # when, monotonic
    failure: str = ""
    _thread: threading.Thread = field(init=False)
    _process: subprocess.Popen[str] | None = None
    _worker: int = 0
    _ready: bool = False
    _out: str = ""

    def __str__(self) -> str:
        return f"{self.kind} [{self.way}, {self.start:.2f}, {self.go:.2f}, {self.kill:.2f}]"

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def begin(self, world: World, figures: Figures) -> None:
        self._thread = threading.Thread(target=self._guarded, args=(world, figures), name=self.kind)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def disturb(self) -> None:
        """The host's side is about to be hit, so that it may end by that."""
        self.disturbed = True

    def disturb_start(self) -> None:
        """The same for one that only has to be served yet."""
        self.disturbed = self.disturbed or not self._ready

    def kill_now(self) -> None:
        """Its guest is no more."""
        self.murdered = True
        if self._process is not None:
            _signal(self._process.pid, signal.SIGKILL)

    # ---- its life, in a thread ----

    def _guarded(self, world: World, figures: Figures) -> None:
        err = world.dir / f"case-{id(self)}.err"
        try:
            self._run(world, figures, err)
        except (Failed, OSError, ValueError, subprocess.SubprocessError) as error:
            self.failure = f"{self}: {type(error).__name__}: {error}"
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                rest(self._process)
            self.died = self.died or time.monotonic()
            if not self.failure:
                err.unlink(missing_ok=True)

    def _run(self, world: World, figures: Figures, err: Path) -> None:
        kind = KINDS[self.kind]
        time.sleep(self.start)
        with open(err, "wb") as file:
            self._process = subprocess.Popen([world.program, kind.mode, KERNELS, kind.argument],
                                             env=world.env(self.way) | dict(kind.env),
                                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True)
        assert self._process.stdin and self._process.stdout
        line = self._line()
        if line == "ready\n":
            self._misbehave(world, kind)
        self._ended(figures)
        said = err.read_text(errors="replace")
        if line != "ready\n":
            self._out = line + self._out
            self._must_be_refused(said)
        else:
            self._must_be_right(kind, said)

    def _misbehave(self, world: World, kind: Kind) -> None:
        process = self._process
        assert process is not None and process.stdin
        self._ready = True
        self._worker = self._find_worker(world)
        time.sleep(self.go)
        with contextlib.suppress(BrokenPipeError):
            print("go", file=process.stdin, flush=True)
        if kind.mode == "infinite":
            self._out = self._line()
        if not kind.kill:
            return
        time.sleep(self.kill)
        if kind.kill.startswith("frozen"):
            _signal(self._worker if kind.kill == "frozen worker" else process.pid, signal.SIGSTOP)
            time.sleep(0.2)
        _signal(self._worker if kind.kill == "worker" else process.pid, signal.SIGKILL)

    def _line(self) -> str:
        """The next of its output, which it flushes; "" at the end. Raises Failed."""
        assert self._process is not None and self._process.stdout
        if not select.select([self._process.stdout], [], [], END_SECONDS)[0]:
            raise Failed(f"it says nothing for {END_SECONDS} s; its worker is {self._worker}")
        return self._process.stdout.readline()

    def _find_worker(self, world: World) -> int:
        """0 where the host's side has been hit and nobody can tell."""
        process = self._process
        assert process is not None
        seconds = END_SECONDS if CLIENTS_OUTLIVE_ORIOND else STEP  # an oriond that is away comes back
        found: int | None = None

        def look() -> bool:
            nonlocal found
            found = _worker_of(world, process.pid)
            return bool(found) or process.poll() is not None

        until(look, seconds)
        if found is None:
            self.disturbed = True
        elif not found and not self.disturbed:
            raise Failed("it is ready and has no channel")
        return found or 0

    def _ended(self, figures: Figures) -> None:
        process = self._process
        assert process is not None and process.stdout
        if not until(lambda: process.poll() is not None, END_SECONDS):
            raise Failed(f"it has not ended {END_SECONDS} s later; its worker {self._worker} is {alive(self._worker)}")
        self.died = time.monotonic()
        if self._worker:
            if not until(lambda: not alive(self._worker), GONE_SECONDS):
                raise Failed(f"its worker {self._worker} is there {GONE_SECONDS} s after its end")
            how = "killed" if process.returncode < 0 else "ended"
            beside = f" ({self.beside})" if "oriond" in self.beside else ""  # it looks at mailboxes: without it nobody sees such an end
            figures.add(f"a client was {how}, its worker is gone{beside}", time.monotonic() - self.died)
        self._out += rest(process)

    # ---- what it must have seen ----

    def _must_be_refused(self, said: str) -> None:
        """It ended before it was ready, which only a hit host excuses."""
        assert self._process is not None
        if self.murdered and self._process.returncode == -signal.SIGKILL:
            return
        words = re.fullmatch(rf"(\w.* ({LOST}|{_NO_DEVICE})\n)+", self._out)  # of the processes that it has
        if not self.disturbed or self._process.returncode != 1 or not words:
            raise Failed(f"it did not start: status {self._process.returncode}, {self._out}{said}")

    def _must_be_right(self, kind: Kind, said: str) -> None:
        assert self._process is not None
        status = self._process.returncode
        if "Traceback" in said:
            raise Failed(f"a traceback: {said}")
        if status == kind.status and re.fullmatch(kind.says, self._out):
            return
        by_the_host = re.search(rf" {LOST}\n\Z", self._out) and status in (0, 1)
        by_us = self.murdered and status == -signal.SIGKILL
        if not self.disturbed or not (by_the_host or by_us or status == kind.status):
            raise Failed(f"status {status}, not {kind.status}; it said {self._out!r}, not {kind.says!r}; {said}")


def _worker_of(world: World, pid: int) -> int | None:
    """0: it has no channel. None: oriond does not answer."""
    with contextlib.suppress(OSError, ValueError):
        return next((int(c["worker"]) for c in world.host.status()["channels"] if c["pid"] == pid), 0)
    return None


def _signal(pid: int, number: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def crowd(world: World, nr: int, way: str) -> list[str]:
    """`nr` brief clients at once, more than there are vGPUs: each works or is refused. What was wrong."""
    with open(world.dir / "crowd.err", "ab") as err:
        processes: list[Any] = [subprocess.Popen([world.program, "brief", KERNELS], env=world.env(way), stdout=subprocess.PIPE,
                                                 stderr=err, text=True) for _ in range(nr)]
    wrong, worked = [], 0
    for process in processes:
        try:
            out, _ = process.communicate(timeout=END_SECONDS * 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            wrong.append("one of a crowd did not end")
            continue
        worked += out == "done\n"
        if out != "done\n" and not re.fullmatch(rf"\w.* ({LOST}|{_NO_DEVICE}|2)\n", out):
            wrong.append(f"one of a crowd: status {process.returncode}, {out!r}")
    if not worked:
        wrong.append(f"of a crowd of {nr} nobody worked")
    return wrong
