# SPDX-License-Identifier: Apache-2.0
"""Starts controller and oriond in directories and on ports of their own, and counts what they leave behind."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIB = ROOT / "orion_virt" / "_lib"
START_SECONDS = 180
PATIENCE = 25  # for what the other side does by itself: longer than a loaded machine takes, shorter than a grant that nobody shows is held
NEEDED = ("simgpu/libcuda.so.1", "libexecutor.so")


def free_port():
    """Below the range from which the kernel takes ports itself: no connection that begins meanwhile gets it."""
    while True:
        port = random.randrange(10000, 32000)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port


def wait_for(what, seconds=PATIENCE, every=0.05):
    """The first true value of what(), or the last one when time is up."""
    end = time.monotonic() + seconds
    while not (value := what()) and time.monotonic() < end:
        time.sleep(every)
    return value


def let_others_reach(path):
    """pytest's own directories are closed to other users."""
    for parent in path.parents:
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o755)


def processes_of_session(sid):
    """Pids of all processes in a session, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == sid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


class Host:
    """One set of daemons. `uuid` is the domain whose region clients use; `env` is what a client's process needs."""

    def __init__(self, directory, config="", region_mib=128, simulated=True, network=None, **limits):
        """`network=False`, or ORION_TEST_NETWORK=no: clients reach the host through their region alone. `limits`: vgpus,
        memory, total, the ceilings of the region."""
        self.dir = Path(directory)
        self.uuid = str(uuid.uuid4())
        self.port, self.controller_port = free_port(), free_port()
        self.controller = f"127.0.0.1:{self.controller_port}"
        self.server = f"127.0.0.1:{self.port}"
        self.region = Path(f"/dev/shm/orion-{self.uuid}")
        self.region_mib = region_mib
        self.limits = limits
        self.network = os.environ.get("ORION_TEST_NETWORK") != "no" if network is None else network
        self._config = config
        self._driver = "simulated" if simulated else "nvidia"
        self.process = None
        for name in ("etc", "run", "log", "state", "home"):
            (self.dir / name).mkdir(parents=True, exist_ok=True)

    # ---- environments ----

    def _dirs(self):
        return {f"ORION_{name.upper()}": str(self.dir / name) for name in ("etc", "run", "log", "state")}

    @property
    def server_env(self):
        """Environment of oriond, orion-virt and orion-check."""
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("ORION_", "CUDA_")) or k == "ORION_STATS"}
        return keep | self._dirs() | {"PYTHONPATH": str(ROOT)}

    @property
    def env(self):
        """Environment of a CUDA process, as in a guest: nothing but region, library and controller."""
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("ORION_", "CUDA_"))}
        return keep | ({"ORION_CONTROLLER": self.controller} if self.network else {}) | {
            "ORION_REGION": str(self.region),
            "ORION_ETC": str(self.dir / "etc"),
            "LD_LIBRARY_PATH": str(LIB / "guest"),
            "HOME": str(self.dir / "home"),
        }

    @property
    def tcp_env(self):
        """As `env`, for a client without a region."""
        env = self.env | {"ORION_SERVER": self.server, "ORION_CONTROLLER": self.controller}
        del env["ORION_REGION"]
        return env

    # ---- life ----

    def write_config(self):
        path = self.dir / "etc" / "server.conf"
        path.write_text(
            f"[server]\nlisten_port = {self.port}\nbind_addr = 127.0.0.1\ndriver = {self._driver}\n"
            f"[controller]\ncontroller_addr = {self.controller}\n[libvirt]\nattach = off\n{self._config}\n"
        )
        return path

    def start(self, with_controller=True):
        """Starts oriond, with its controller unless another serves; returns when it is registered and has a warm worker."""
        argv = [sys.executable, "-m", "orion_virt.cli.oriond", "--config", str(self.write_config())]
        with open(self.dir / "oriond.out", "ab") as out:
            self.process = subprocess.Popen(
                [*argv, "--foreground", *(["--with-controller"] if with_controller else [])],
                env=self.server_env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.dir,
                start_new_session=True,
            )
        wait_for(lambda: self.process.poll() is not None or self._is_ready(), START_SECONDS)
        assert self.process.poll() is None and self._is_ready(), f"oriond did not start:\n{self.output()}"

    def _is_ready(self):
        try:
            status = self.status()
        except OSError:
            return False
        return status["registered"] and status["warm_workers"] == 1

    def stop(self):
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"oriond did not stop within 20 s:\n{self.output()}")

    def kill(self):
        """Ends every process of ours at once."""
        for pid in processes_of_session(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def output(self):
        """What oriond, controller and workers printed."""
        return (self.dir / "oriond.out").read_text(errors="replace")

    # ---- questions and commands ----

    def command(self, cmd, **fields):
        """One command over control.sock; the answer's object."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(15)
            sock.connect(str(self.dir / "run" / "control.sock"))
            sock.sendall(json.dumps({"cmd": cmd, **fields}).encode() + b"\n")
            with sock.makefile() as answer:
                return json.loads(answer.readline())

    def status(self):
        return self.command("status")

    def run(self, argv, timeout=180, env=None, **variables):
        """Runs a client to its end; returns the completed process with its output as text."""
        full = (self.env if env is None else env) | {k: str(v) for k, v in variables.items()}
        return subprocess.run(argv, env=full, capture_output=True, text=True, timeout=timeout)

    def idle(self):
        """True when no channel is left and all extents are back."""
        status = self.status()
        return not status["channels"] and not any(r["extents_used"] for r in status["regions"])

    def settle(self, fds):
        """Waits until everything is given back; fails with what is not."""
        wait_for(self.idle)
        status = self.status()
        assert not status["channels"], f"channels are left: {status['channels']}"
        assert not any(r["extents_used"] for r in status["regions"]), f"extents are left: {status['regions']}"
        now = wait_for(lambda: (s := self.status())["fds"] <= fds and s["warm_workers"] == 1)
        assert now, f"descriptors leaked: {fds} before, {self.status()['fds']} after"


@contextlib.contextmanager
def running(directory, **options):
    """A started host with one region; at the end asserts that nothing is left."""
    for name in NEEDED:
        if not (LIB / name).exists():
            pytest.skip(f"{name} is not built: run `make build`")
    host = Host(directory, **options)
    host.start()
    failed = True
    try:
        made = host.command("region-create", uuid=host.uuid, size_mib=host.region_mib, network=host.network, **host.limits)
        assert made["ok"], made
        fds = host.status()["fds"]
        yield host
        failed = False
    finally:
        if failed:
            print(host.output())
        _end(host, None if failed else fds)


def _end(host, fds):
    sid = host.process.pid
    try:
        if host.process.poll() is None:
            if fds is not None:
                host.settle(fds)
            host.command("region-remove", uuid=host.uuid)
            status = host.stop()
            assert status == 0 or fds is None, f"oriond ended with {status}:\n{host.output()}"
            left = wait_for(lambda: not processes_of_session(sid))
            assert left or fds is None, f"processes are left: {processes_of_session(sid)}"
        assert fds is None or not host.region.exists(), f"{host.region} is left"
    finally:
        host.kill()
        host.region.unlink(missing_ok=True)
