# SPDX-License-Identifier: Apache-2.0
"""One worker: brings the driver up, waits for the start message, runs the executor until the channel ends."""

from __future__ import annotations

import argparse
import array  # noqa: F401  socket.recv_fds imports it when no file can be opened any more
import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from orion_virt import layout, paths
from orion_virt.errors import OrionError, ProtocolError
from orion_virt.server import addresses, confine, identity
from orion_virt.server.executor import Config, Executor

_MESSAGE_BYTES = 64 << 10
_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15

_libc = ctypes.CDLL(None, use_errno=True)


def _hide() -> None:
    """Other processes of our user may not read us; a crash leaves no image of a client's data (core(5): of one byte, no program
    that the kernel would pipe it to gets it either)."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    one = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
    resource.setrlimit(resource.RLIMIT_CORE, (one, one))


def _own_proc() -> None:
    """Under a user that only workers of one domain have, /proc/self may be its own: the driver names its threads there."""
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def _receive(control: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The start message and its descriptors; None when the daemon went away first."""
    raw, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 6)
    if not raw and not fds:
        return None
    try:
        message = json.loads(raw)
    except ValueError as error:
        raise ProtocolError(f"the start message is no JSON: {error}") from None
    shm = message.get("transport") != "tcp"
    wanted = 1 + shm + (shm and bool(message.get("doorbell"))) + ("group_row" in message) + bool(message.get("keep")) + bool(message.get("log"))
    if len(fds) != wanted:
        raise ProtocolError(f"{len(fds)} descriptors came with the start message, {wanted} belong to it")
    return message, fds


def _config(message: dict[str, Any], fds: list[int], control_fd: int) -> Config:
    """The executor's configuration. Raises ProtocolError for a key that is missing or no number."""
    config = Config()
    try:
        devices = message["devices"]
        if not 1 <= len(devices) <= layout.MAX_DEVICES:
            raise ProtocolError(f"{len(devices)} devices in the start message, 1 to {layout.MAX_DEVICES} are possible")
        config.channel_id = int(message["channel"])
        config.base, config.block_off = int(message["base"]), int(message["block"])
        config.region_bytes = int(message["region_bytes"])
        config.group_row = int(message.get("group_row", 0))
        config.nr_devices = len(devices)
        config.turns = int(message.get("turns", 0))
        config.kernel_seconds = int(message.get("kernel_seconds", 0))
        for i, device in enumerate(devices):
            config.ordinals[i], config.limits[i] = int(device["ordinal"]), int(device["memory"])
            config.context_bytes[i] = int(device.get("context", 0))
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"the start message is not complete: {error!r}") from None
    config.socket_fd, config.control_fd = fds[0], control_fd
    shm = message.get("transport") != "tcp"
    doorbell = shm and bool(message.get("doorbell"))
    config.region_fd = fds[1] if shm else -1
    config.doorbell_fd = fds[2] if doorbell else -1
    config.group_fd = fds[1 + shm + doorbell] if "group_row" in message else -1
    config.keep_seconds = int(message.get("keep", 0))
    config.listen_fd = fds[1 + shm + doorbell + ("group_row" in message)] if config.keep_seconds else -1
    config.polled = int(message.get("polled") is True)
    return config


def _log_to(fd: int) -> None:
    """Standard output and error, which the driver writes to as well, become the channel's log."""
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _folder_of(driver: str) -> list[Path]:
    """Where the driver's library lies, and with it those that it loads late. Loads it, which starts nothing."""
    with contextlib.suppress(OSError):
        ctypes.CDLL(driver)
    name = Path(driver).name.partition(".so")[0]
    with open("/proc/self/maps") as maps:
        found = {Path(line.split(maxsplit=5)[5].strip()) for line in maps if f"/{name}.so" in line}
    return sorted({path.parent for path in found})


def _confine(driver: str) -> None:
    """Raises OSError: a worker that should be confined and is not serves nobody."""
    package = Path(__file__).resolve().parents[2]
    group = identity.group_for(identity.STARTING, identity.STARTING)
    drops = os.geteuid() == 0 and not identity.closed_nodes(identity.STARTING, group)
    for lacking in confine.enter([package, paths.lib(), *_folder_of(driver)], shares=drops):
        print(f"oriond: worker {os.getpid()}: {lacking}", file=sys.stderr, flush=True)
    if drops:
        identity.become(identity.STARTING, group, again=True)
        _own_proc()
    confine.refuse_calls()


def _drop(uid: int, gid: int) -> None:
    """Becomes `uid` for good; stays root, and says so, where that user could not use the cards."""
    if os.geteuid() == uid:
        return
    if uid == 0:
        print("worker_user = root is for workers with confine = false; this one is nobody's", file=sys.stderr, flush=True)
        uid = gid = identity.STARTING
    gid = identity.group_for(uid, gid)
    closed = identity.closed_nodes(uid, gid)
    if closed:
        print(
            f"the worker stays root: user {uid} may not open {', '.join(closed)}; "
            "set NVreg_DeviceFileMode=0666, or worker_user = to a user of the nodes' group",
            file=sys.stderr,
            flush=True,
        )
        return
    identity.become(uid, gid)
    if uid >= identity.STARTING:
        _own_proc()
    else:
        _hide()  # a change of uid sets it back


def _tell_closed(control: socket.socket, why: int, text: str) -> None:
    message = layout.Control(kind=layout.CLOSED, a=why, text=text.encode("utf-8", "replace")[:231])
    try:
        control.send(bytes(message), socket.MSG_DONTWAIT)
    except OSError:
        pass  # the daemon is gone: our exit status is all there is


def _serve(control: socket.socket, args: argparse.Namespace) -> tuple[int, str]:
    """Runs one channel; returns why it ended (enum oc_close) and in words. Raises OrionError."""
    executor = Executor(args.executor)
    executor.start_driver(args.driver)
    received = _receive(control)
    if received is None:
        return layout.CLOSED_SERVER, "the daemon went away before the channel began"
    message, fds = received
    config = _config(message, fds, control.fileno())
    if message.get("log"):
        _log_to(fds[-1])
    missing = {k: v for k, v in dict(message.get("env") or {}).items() if os.environ.get(k) != v}
    if missing:
        print(f"driver variables came too late to have an effect: {' '.join(missing)}", file=sys.stderr, flush=True)
    _drop(int(message.get("uid", 0)), int(message.get("gid", 0)))
    if args.confine:
        confine.refuse_more()
    return executor.run(config)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="orion_virt.server.worker", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True, help="SOCK_SEQPACKET to the daemon")
    parser.add_argument("--driver", required=True, help="driver library: libcuda.so.1 or the simulated one's path")
    parser.add_argument("--confine", action="store_true", help="no network, files, programs or processes but its own")
    parser.add_argument("--executor", type=Path, default=paths.lib() / "libexecutor.so", help="default: %(default)s")
    return parser.parse_args()


def main() -> NoReturn:
    """Never returns: threads may be stuck in the driver, so the process ends without waiting for them."""
    args = _parse()
    addresses.keep_below()
    _hide()
    _libc.prctl(_PR_SET_NAME, b"oriond", 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, whose end ends us
    control = socket.socket(fileno=args.control_fd)
    try:
        if args.confine:
            _confine(args.driver)
        why, text = _serve(control, args)
    except (OrionError, OSError) as error:
        why, text = layout.CLOSED_WORKER, str(error)
        print(f"oriond: worker {os.getpid()}: {text}", file=sys.stderr, flush=True)
    _tell_closed(control, why, text)
    os._exit(0 if why == layout.CLOSED_BY_GUEST else why)


if __name__ == "__main__":
    main()
