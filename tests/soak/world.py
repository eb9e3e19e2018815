# SPDX-License-Identifier: Apache-2.0
"""What the soak runs in: daemon and controller, domains, neighbours that compute and check, and what all of it holds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import host as hosts
from controllers import Client
from figures import Progress

from orion_virt.config import ServerConfig
from orion_virt.errors import OrionError

# What oriond's clients see of its death: False, they end with error 46; True, they go on with the next one.
CLIENTS_OUTLIVE_ORIOND = hasattr(ServerConfig, "keep_workers")

FOLDER = Path(__file__).parent
KERNELS = hosts.ROOT / "tests" / "gpu" / "programs" / "kernels.ptx"
REGION_MIB = 256
START_SECONDS, STEP = 60, 0.01
_SLACK_MIB = 20  # by which a card's use may differ while others' contexts come and go


class Failed(Exception):
    """The soak found something."""


def compiled(folder: Path) -> Path:
    made = folder / "client"
    subprocess.run(
        ["cc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o", made, FOLDER / "client.c",
         f"-I{KERNELS.parent}", f"-I{hosts.ROOT / 'guest-agent' / 'libcuda' / 'gen'}",
         hosts.LIB / "guest" / "libcuda.so.1", "-lpthread"],
        check=True,
    )  # fmt: skip
    return made


def until(true: Any, seconds: float) -> Any:
    return hosts.wait_for(true, seconds, STEP)


@dataclass
class Options:
    """What differs from seed to seed."""

    own_controller: bool = True  # oriond's own, else one that stands alone
    compute_limits: str = "off"
    worker_user: str = ""
    confine: bool = False
    kernel_seconds: int = 0
    third: str = "tcp"  # how the third neighbour reaches the host: tcp, mailbox
    driver: str = "simulated"

    def config(self, shm: Path) -> str:
        user = f"worker_user = {self.worker_user}\n" if self.worker_user else ""
        limit = f"longest_kernel = {self.kernel_seconds}\n" if self.kernel_seconds else ""
        return (f"[server]\nvgpu_count = 12\ncompute_limits = {self.compute_limits}\nconfine = {self.confine}\n{user}{limit}"
                f"[server-shm]\nshm_path_base = {shm}\n")


class Neighbour:
    """A process that computes and checks for as long as it is let."""

    def __init__(self, world: World, name: str, env: dict[str, str]) -> None:
        self.world, self.name, self.env = world, name, env
        self.generation = 0

    def start(self) -> None:
        self.generation += 1
        told = self.world.dir / f"{self.name}.{self.generation}"
        self.err = self.world.dir / f"{self.name}.{self.generation}.err"
        with open(self.err, "wb") as err:
            self.process = subprocess.Popen([self.world.program, "neighbour", KERNELS, told], env=self.env, text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err)
        assert self.process.stdin and self.process.stdout
        if (line := self.process.stdout.readline()) != "ready\n":
            raise Failed(f"neighbour {self.name} does not start: {line}{self.err.read_text()}")
        self.progress = Progress(told)
        print("go", file=self.process.stdin, flush=True)

    def check(self) -> None:
        if self.process.poll() is not None or self.progress.wrong:
            raise Failed(f"neighbour {self.name} ended with {self.process.poll()}: {self.said()}")

    def ends(self, seconds: float) -> bool:
        """Whether it ends within so long."""
        return bool(until(lambda: self.process.poll() is not None, seconds))

    def goes_on(self, rounds: int, seconds: float) -> bool:
        """Whether it has done more than `rounds` within so long."""
        return bool(until(lambda: self.progress.rounds > rounds, seconds))

    def said(self) -> str:
        """Of one that has ended; once."""
        return rest(self.process) + self.err.read_text()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        rest(self.process)


class World:
    """Everything that lives as long as the soak."""

    def __init__(self, directory: Path, options: Options) -> None:
        self.dir, self.options = directory, options
        self.shm = Path("/dev/shm") / f"soak-{uuid.uuid4().hex[:8]}"
        self.shm.mkdir(mode=0o755)
        self.host = hosts.Host(directory / "host", options.config(self.shm), simulated=options.driver == "simulated")
        self.program = compiled(directory)
        self.controller: subprocess.Popen[bytes] | None = None
        self.domains = {name: str(uuid.uuid4()) for name in ("F", "V", "M", "N")}
        self.sessions: list[int] = []
        self.neighbours = [Neighbour(self, "own domain", self.env("N")), Neighbour(self, "same domain", self.env("F")),
                           Neighbour(self, options.third, self.env("M" if options.third == "mailbox" else "tcp"))]

    def env(self, way: str) -> dict[str, str]:
        """Of a client that reaches the host so: a domain's name, or "tcp"."""
        env = (self.host.tcp_env if way == "tcp" else self.host.env) | {"ORION_GMEM": "256" if self.options.driver == "simulated" else "2048"}
        if way == "M":
            env.pop("ORION_CONTROLLER", None)
        return env if way == "tcp" else env | {"ORION_REGION": str(self.region(way))}

    def region(self, domain: str) -> Path:
        return self.shm / f"orion-{self.domains[domain]}"

    # ---- daemons ----

    def start_controller(self) -> None:
        argv = [sys.executable, "-m", "orion_virt.cli.controller", "--listen", self.host.controller]
        with open(self.dir / "controller.out", "ab") as out:
            self.controller = subprocess.Popen(argv, env=self.host.server_env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def start_oriond(self) -> None:
        try:
            self.host.start(with_controller=self.options.own_controller)
        finally:
            if self.host.process is not None:
                self.sessions.append(self.host.process.pid)

    def add_domain(self, name: str) -> None:
        made = self.host.command("region-create", uuid=self.domains[name], size_mib=REGION_MIB, network=name != "M")
        if not made["ok"]:
            raise Failed(f"no region for {name}: {made}")

    def processes(self) -> list[int]:
        """Of this oriond and of those before it."""
        return [pid for session in self.sessions for pid in hosts.processes_of_session(session)]

    def controller_pid(self) -> int:
        if self.controller is not None:
            return self.controller.pid
        found = [pid for pid in hosts.processes_of_session(self.host.process.pid) if "--also-at-stdin" in _command(pid)]
        return found[0] if found else 0

    def allocations(self) -> list[dict[str, Any]]:
        secret = (self.host.dir / "state" / "server.credential").read_text().strip()
        return list(Client(self.host.controller_port, secret).json("/allocations")["allocations"])

    # ---- what is held ----

    def held(self) -> dict[str, Any]:
        """Everything that must be back after a fault. Raises OSError while a daemon is away."""
        status = self.host.status()
        ours = {n.process.pid for n in self.neighbours if n.process.poll() is None}
        session = self.processes()
        controller = self.controller_pid()
        return {
            "others' channels": [c["comm"] for c in status["channels"] if c["pid"] not in ours],
            "neighbours' channels": len([c for c in status["channels"] if c["pid"] in ours]),
            "allocations": len(self.allocations()),
            "extents": {name: next((r["extents_used"] for r in status["regions"] if r["uuid"] == uid), None)
                        for name, uid in self.domains.items()},
            "files of shared memory": sorted(p.name for p in self.shm.iterdir()),
            "daemon and workers": sorted(kind for pid in session if (kind := _kind(pid))),
            "passing processes": [_command(pid) for pid in session if pid != controller and not _kind(pid)],
            "warm workers": status["warm_workers"],
            "registered": status["registered"],
            "oriond's descriptors": status["fds"],
            "controller's descriptors": _fds(controller),
            "neighbours' workers' descriptors": sorted(_fds(c["worker"]) for c in status["channels"] if c["pid"] in ours),
            "MiB of the card": self.card_mib(),
        }

    def card_mib(self) -> int:
        if self.options.driver == "simulated":
            return 0  # a worker's simulated memory is its own and ends with it
        import pynvml  # only here: without a card there is no NVML

        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used) >> 20
        finally:
            pynvml.nvmlShutdown()

    def daemons_mib(self) -> dict[str, float]:
        """Memory of oriond and of the controller."""
        return {"oriond": _mib(self.host.process.pid), "controller": _mib(self.controller_pid())}

    def excess(self, before: dict[str, Any]) -> dict[str, Any]:
        """What is not as `before`: name -> (then, now). Empty: everything is back."""
        try:
            now = self.held()
        except (OSError, OrionError, AssertionError, ValueError) as error:
            return {"a daemon": ("there", repr(error))}
        found = {}
        for name, then in before.items():
            same = then == now[name]
            if "descriptors" in name:
                same = now[name] <= then
            elif name == "MiB of the card":
                same = now[name] <= then + _SLACK_MIB
            if not same:
                found[name] = (then, now[name])
        return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def _kind(pid: int) -> str:
    command = _command(pid)
    return next((kind for kind in ("server.worker", "cli.oriond", "gpu.monitor") if kind in command), "")


def _fds(pid: int) -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def _mib(pid: int) -> float:
    """That a process has for itself."""
    with contextlib.suppress(OSError):
        return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
                    if line.startswith("RssAnon:")) / 1024
    return 0.0


@contextlib.contextmanager
def running(directory: Path, options: Options) -> Iterator[World]:
    """Daemons, domains and neighbours; ended in any case."""
    world = World(directory, options)
    try:
        if not options.own_controller:
            world.start_controller()
        world.start_oriond()
        for name in world.domains:
            world.add_domain(name)
        for neighbour in world.neighbours:
            neighbour.start()
        yield world
    finally:
        for neighbour in world.neighbours:
            if hasattr(neighbour, "process"):
                neighbour.end()
        for pid in world.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if world.host.process is not None:
            world.host.process.wait()
        if world.controller is not None:
            world.controller.kill()
            world.controller.wait()
        for path in world.shm.iterdir():
            path.unlink()
        world.shm.rmdir()


def rest(process: subprocess.Popen[str]) -> str:
    """What an ended process had still to say; "" the second time."""
    assert process.stdin and process.stdout
    said = "" if process.stdout.closed else process.stdout.read()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.stdout.close()
    return said


def alive(pid: int) -> bool:
    """False for a zombie too."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def pause(seconds: float) -> None:
    time.sleep(max(seconds, 0))
