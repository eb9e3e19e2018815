# SPDX-License-Identifier: Apache-2.0
"""Starts worker processes, keeps one warm, and hands a connection to one."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import logging
import os
import signal
import site
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orion_virt import layout, paths
from orion_virt.errors import Unavailable

ARGV0 = "/usr/bin/oriond"  # as ps and nvidia-smi show daemon and workers
WORKER = ("-m", "orion_virt.server.worker")
_WARM_RETRY_SECONDS = 10.0
_NO_CACHE = (("CUDA_CACHE_DISABLE", "1"),)  # of compiled kernels: it would be one tenant's word in another's worker

_log = logging.getLogger("orion.workers")


@dataclass
class Worker:
    """A worker process: warm until a start message is sent. ``process`` None: an earlier daemon began it."""

    pid: int
    pidfd: int
    control: socket.socket
    process: subprocess.Popen[bytes] | None = None

    def start_channel(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        """Sends the start message with its descriptors. Raises Unavailable when the worker is gone."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        try:
            self.control.sendmsg([json.dumps(message).encode()], rights)
        except OSError as error:
            raise Unavailable(f"the worker cannot be started: {error.strerror}", hint="See server.log") from error

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> int | None:
        """Reaps an ended process; returns its status (negative: signal), None where it was not our child."""
        status = None if self.process is None else self.process.wait(timeout=5)
        self.let_go()
        return status

    def let_go(self) -> None:
        """It lives on, and is another daemon's."""
        self.control.close()
        os.close(self.pidfd)
        if self.process is not None:
            self.process.returncode = 0  # nobody waits for it


def _environment(extra: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Nothing of the daemon's CUDA settings; argv[0] is not Python's, so Python is told where it lives."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "PYTHON")) and k != "LD_PRELOAD"}
    packages = [str(Path(__file__).resolve().parents[2]), *site.getsitepackages()]
    return keep | {
        "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
        "PYTHONPATH": os.pathsep.join(packages),
        "PYTHONNOUSERSITE": "1",
        **dict(extra),
    }


def spawn(driver_path: str, env: Sequence[tuple[str, str]], confined: bool = False) -> Worker:
    """Starts one. Raises Unavailable."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        process = subprocess.Popen(
            [ARGV0, *WORKER, "--control-fd", str(theirs.fileno()), "--driver", driver_path, *(["--confine"] if confined else [])],
            executable=sys.executable,
            env=_environment([*_NO_CACHE, *env] if confined else env),
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            cwd="/",
        )
        pidfd = os.pidfd_open(process.pid)
    except OSError as error:
        ours.close()
        raise Unavailable(f"no worker can be started: {error.strerror}", hint="Check memory and TasksMax=") from error
    finally:
        theirs.close()
    ours.setblocking(False)
    return Worker(process.pid, pidfd, ours, process)


def _executor_identity() -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        info = (paths.lib() / "libexecutor.so").stat()
        return info.st_ino, info.st_mtime_ns
    return None


class Pool:
    """One warm worker; a client with other driver variables gets a cold one."""

    def __init__(self, driver_path: str, confined: bool = False) -> None:
        self._driver_path = driver_path
        self.confined = confined
        self._warm: Worker | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._stopped = False
        self._said = ""
        self._files = _executor_identity()

    def _notice_an_upgrade(self) -> None:
        """Workers start from the files of now, which may be newer than we are: once a line in the log."""
        found = _executor_identity()
        if found is not None and found != self._files:
            self._files = found
            _log.warning("orion-virt was upgraded since this oriond started: new programs get workers of the new version. "
                         "`systemctl restart oriond` renews the rest; programs that run go on")

    @property
    def nr_warm(self) -> int:
        return 0 if self._warm is None else 1

    def warm_up(self) -> None:
        """Starts the warm worker if there is none."""
        self._retry = None
        if self._warm is not None or self._stopped:
            return
        self._notice_an_upgrade()
        try:
            self._warm = spawn(self._driver_path, (), self.confined)
        except Unavailable as error:
            _log.error("%s", error)
            self._later()
            return
        asyncio.get_running_loop().add_reader(self._warm.pidfd, self._warm_ended)

    def _later(self) -> None:
        if self._retry is None and not self._stopped:
            self._retry = asyncio.get_running_loop().call_later(_WARM_RETRY_SECONDS, self.warm_up)

    def _warm_ended(self) -> None:
        worker, self._warm = self._warm, None
        if worker is None:
            return
        asyncio.get_running_loop().remove_reader(worker.pidfd)
        why = last_words(worker.control)
        status = words(worker.close())
        if why != self._said:  # once, not at every try
            self._said = why
            _log.error("no worker can be kept ready, the next try is in %.0f s: %s (%s)", _WARM_RETRY_SECONDS, why, status)
        self._later()

    def take(self, env: Sequence[tuple[str, str]], on_end: Callable[[], None]) -> Worker:
        """A worker for a channel; `on_end` is called once when its process has ended. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        worker = None if env else self._warm
        if worker is None:
            worker = spawn(self._driver_path, env, self.confined)
        else:
            self._warm = None
            loop.remove_reader(worker.pidfd)
        loop.add_reader(worker.pidfd, on_end)
        loop.call_soon(self.warm_up)
        return worker

    async def stop(self) -> None:
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
        worker, self._warm = self._warm, None
        if worker is not None:
            asyncio.get_running_loop().remove_reader(worker.pidfd)
            worker.kill()
            await asyncio.to_thread(worker.close)


def last_words(control: socket.socket) -> str:
    """Why a worker says it ended; it may have been unable to."""
    with contextlib.suppress(OSError, ValueError):
        raw = control.recv(layout.ctypes.sizeof(layout.Control))
        message = layout.Control.from_buffer_copy(raw)
        return "".join(c for c in message.text.decode("utf-8", "replace") if c.isprintable())
    return "it said nothing"


def words(status: int | None) -> str:
    """An exit status for people."""
    if status is None:
        return "how is not known: it began under an earlier oriond"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"
