# SPDX-License-Identifier: Apache-2.0
"""What is done to the host's side: daemons killed, a domain ended, more clients than it serves, connections without manners."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import Callable

from cases import END_SECONDS, GONE_SECONDS, LOST, crowd
from figures import Figures
from sequence import Event
from world import CLIENTS_OUTLIVE_ORIOND, World, alive, until

import host as hosts

ENDED_DOMAIN = "V"  # has no neighbour in it


def _oriond(world: World, event: Event, figures: Figures) -> list[str]:
    """Killed; started again as systemd would."""
    for case in event.cases:
        (case.disturb_start if CLIENTS_OUTLIVE_ORIOND else case.disturb)()
    old = world.host.process
    controller = world.controller_pid() if world.options.own_controller else 0
    os.kill(old.pid, signal.SIGKILL)
    old.wait()
    killed = time.monotonic()
    wrong = []
    if not CLIENTS_OUTLIVE_ORIOND:
        if not until(lambda: not hosts.processes_of_session(old.pid), GONE_SECONDS):
            wrong.append(f"processes outlive oriond: {hosts.processes_of_session(old.pid)}")
        figures.add("after oriond's death its workers are gone", time.monotonic() - killed)
        wrong += _neighbours_lost(world)
    elif controller and not until(lambda: not alive(controller), GONE_SECONDS):
        wrong.append("the controller outlives its oriond")
    world.start_oriond()
    figures.add("oriond is back after its death", time.monotonic() - killed)
    for neighbour in [] if CLIENTS_OUTLIVE_ORIOND else world.neighbours:
        neighbour.start()
    time.sleep(2)  # of throughput, for the next fault to compare with
    return wrong


def _neighbours_lost(world: World) -> list[str]:
    wrong = []
    for neighbour in world.neighbours:
        if not neighbour.ends(END_SECONDS):
            wrong.append(f"neighbour {neighbour.name} hangs after oriond's death")
            neighbour.end()
            continue
        said = neighbour.said()
        if neighbour.process.returncode != 1 or not re.search(rf" {LOST}$", said, re.M):
            wrong.append(f"neighbour {neighbour.name} ended with {neighbour.process.returncode} at oriond's death: {said}")
    return wrong


def _controller(world: World, event: Event, figures: Figures) -> list[str]:
    """Killed; oriond starts its own again, one that stands alone is started as systemd would."""
    pid = world.controller_pid()
    if not pid:
        return ["there is no controller to kill"]
    for case in event.cases:
        case.disturb_start()
    os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    if world.controller is not None:
        world.controller.wait()
        world.start_controller()
    if not until(lambda: _serves(world), END_SECONDS):
        return ["60 s after the controller's death there is none"]
    figures.add("a controller is back after its death", time.monotonic() - killed)
    return []


def _serves(world: World) -> bool:
    with contextlib.suppress(OSError, ValueError, AssertionError):
        world.allocations()
        return bool(world.host.status()["registered"])
    return False


def _end_domain(world: World, event: Event, with_guest: bool) -> list[str]:
    for case in event.cases:
        if case.way == ENDED_DOMAIN:
            case.disturb()
            if with_guest:
                case.kill_now()
    removed = world.host.command("region-remove", uuid=world.domains[ENDED_DOMAIN])
    if not removed["ok"]:
        return [f"the region is not removed: {removed}"]
    for case in event.cases:
        if case.way == ENDED_DOMAIN:
            case.join()
    world.add_domain(ENDED_DOMAIN)
    return []


def _domain(world: World, event: Event, figures: Figures) -> list[str]:
    return _end_domain(world, event, False)


def _domain_with_guest(world: World, event: Event, figures: Figures) -> list[str]:
    return _end_domain(world, event, True)


def _crowd(world: World, event: Event, figures: Figures) -> list[str]:
    for case in event.cases:
        case.disturb_start()  # all vGPUs may be taken
    return crowd(world, event.number, "F")


def _rude(world: World, event: Event, figures: Figures) -> list[str]:
    """Connections that say nothing, half a word, nonsense, or leave."""
    words = (b"", b"ORION/1 HEL", b"\x00" * 4096, b"GET / HTTP/1.1\r\n\r\n", b"ORION/1 HELLO\ntransport: shm\n\n", b"ORION/1 INFO\n\n")
    for port in (world.host.port, world.host.controller_port):
        held = []
        for i in range(event.number):
            with contextlib.suppress(OSError):
                sock = socket.create_connection(("127.0.0.1", port), timeout=5)
                held.append(sock)
                sock.sendall(words[i % len(words)])
        for sock in held:
            sock.close()
    return []


def _stopped(world: World, event: Event, figures: Figures) -> list[str]:
    """Running programs do not need it, unless it gives turns; what begins meanwhile waits."""
    pid = world.host.process.pid
    need_no_turns = world.options.compute_limits == "off"
    rounds = [n.progress.rounds for n in world.neighbours]
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(0.5)
        wrong = [f"neighbour {n.name} stands still with oriond" for n, before in zip(world.neighbours, rounds)
                 if need_no_turns and not n.goes_on(before, 10)]
    finally:
        os.kill(pid, signal.SIGCONT)
    return wrong


PULL: dict[str, Callable[[World, Event, Figures], list[str]]] = {
    "oriond killed": _oriond, "controller killed": _controller, "domain ended": _domain,
    "domain ended with its guest": _domain_with_guest, "crowd": _crowd, "rude connections": _rude, "oriond stopped for a while": _stopped,
}
