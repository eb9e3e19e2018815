# SPDX-License-Identifier: Apache-2.0
"""ORION_GMEM is a ceiling of all that a process causes on the card, on a simulated one whose driver takes memory for itself too."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import host as hosts
import pytest
from programs import compiled

MIB = 1 << 20
CONTEXT_MIB, SLACK_MIB = 64, 20
LIMIT_MIB = 500
STEPS = 400 # of the program: things made or ended


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Host]:
    with pytest.MonkeyPatch.context() as patch:
        kept = hosts.Host.server_env.fget
        patch.setattr(hosts.Host, "server_env", property(lambda self: kept(self) | {"ORION_SIM_CONTEXT": str(CONTEXT_MIB)}))
        with hosts.running(tmp_path_factory.mktemp("host"), region_mib=256) as running:
            yield running


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compiled(tmp_path_factory.mktemp("ceiling"), "ceiling"))


def figures(worker: int) -> int | None:
    """The simulated driver's own figures of a worker, which outlive it; None: it has none."""
    found = [entry for entry in Path(f"/proc/{worker}/fd").iterdir() if "memfd:orion-sim-used" in os.readlink(entry)]
    return os.open(found[0], os.O_RDONLY) if found else None


def used(fd: int) -> tuple[int, int]:
    """MiB of the first card that are taken, and the most that they have been."""
    now, most = struct.unpack("<2Q", os.pread(fd, 16, 0))
    return now >> 20, most >> 20


def press(host: hosts.Host, program: str, many: int, seeds: list[int], **variables: object) -> tuple[int, list[dict[str, list[int]]]]:
    """Programs at once, to their end. The most that they took of the card together, when looked at, and what they printed."""
    env = host.env | {"ORION_GMEM": str(LIMIT_MIB), "CEILING_WAITS": "1"} | {key: str(value) for key, value in variables.items()}
    assert hosts.wait_for(host.idle)
    running = [subprocess.Popen([program, str(STEPS), str(seed)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for seed in seeds]
    hosts.wait_for(lambda: len(host.status()["channels"]) == len(seeds))
    workers = [channel["worker"] for channel in host.status()["channels"]]
    seen = [hosts.wait_for(lambda pid=pid: figures(pid)) for pid in workers]  # a worker that is new has no driver yet
    assert len(seen) == len(seeds) and None not in seen
    for process in running:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    most = 0
    while any(process.poll() is None for process in running):
        most = max(most, sum(used(fd)[0] for pid, fd in zip(workers, seen) if Path(f"/proc/{pid}").exists()))
        time.sleep(0.005)
    if len(seeds) == 1:
        most = max(most, used(seen[0])[1])
    for fd in seen:
        os.close(fd)
    told = [process.communicate()[0] for process in running]
    print(most, *told)
    assert all(process.returncode == 0 for process in running), told
    assert most <= many * (LIMIT_MIB + CONTEXT_MIB) + SLACK_MIB
    return most, [json.loads(line) for line in told]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_kind_of_memory(host: hosts.Host, program: str, seed: int) -> None:
    most, (told,) = press(host, program, 1, [seed])
    assert most > 0.9 * LIMIT_MIB, "it was not pressed"
    assert sum(told[kind][1] for kind in ("linear", "module", "context", "local", "array")) > 0
    assert all(told[kind][0] for kind in ("linear", "pooled", "module", "stream", "local")), "the process did not go on"


def test_a_group_has_one(host: hosts.Host, program: str) -> None:
    press(host, program, 1, [1, 2], ORION_GROUP="pressed")


def test_two_vgpus_of_a_card_have_one_each(host: hosts.Host, program: str) -> None:
    most, (told,) = press(host, program, 2, [1], ORION_VGPU=2)
    assert most > LIMIT_MIB + 2 * CONTEXT_MIB, "only one was used"


def test_what_a_pool_keeps_is_no_loss(host: hosts.Host) -> None:
    """It gives way to the process's own other allocations, and not both fit."""
    done = host.run([sys.executable, Path(__file__).with_name("pool_keeper.py"), "320"], ORION_GMEM=LIMIT_MIB)
    assert done.stdout == "320 0 2\n" * 2, done.stdout + done.stderr


def test_a_full_group_has_no_room_for_another_context(host: hosts.Host) -> None:
    env = host.env | {"ORION_GMEM": str(LIMIT_MIB), "ORION_GROUP": "full"}

    def member() -> subprocess.Popen[str]:
        argv = [sys.executable, str(Path(__file__).with_name("group_member.py"))]
        return subprocess.Popen(argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def order(process: subprocess.Popen[str], words: str) -> str:
        assert process.stdin and process.stdout
        process.stdin.write(words + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    first = member()
    assert first.stdout and first.stdout.readline() == "0\n"
    assert order(first, f"alloc {LIMIT_MIB - CONTEXT_MIB // 2}") == "0\n"
    assert member().communicate()[0] == "2\n"  # CUDA_ERROR_OUT_OF_MEMORY
    first.communicate()
    assert member().communicate()[0] == "0\n"
