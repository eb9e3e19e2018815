# SPDX-License-Identifier: Apache-2.0
"""Processes that share an allocation (ORION_GROUP), with the real guest library."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from host import wait_for

MEMBER = str(Path(__file__).with_name("group_member.py"))
MIB = 1 << 20


class Member:
    """A CUDA process that does what it is told, line by line, and tells the result."""

    def __init__(self, env: dict[str, str]) -> None:
        self.process = subprocess.Popen([sys.executable, MEMBER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.result = int(self.process.stdout.readline() or -1)

    def __call__(self, *words: object) -> int:
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(60) == 0, self.process.stderr.read()
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def start(oriond_env):
    """`start(name=..., ...)`: a member; whoever is left is ended."""
    made = []

    def one(group="job", env=None, **variables):
        full = (env or oriond_env.env) | {"ORION_GROUP": group} | {key: str(value) for key, value in variables.items()}
        made.append(Member(full))
        return made[-1]

    yield one
    for member in made:
        member.close()


def free_slots(host):
    done = subprocess.run([sys.executable, "-m", "orion_virt.cli.main", "allocations", "--json"], env=host.server_env,
                          capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return 4 - sum(len(a["vgpus"]) for a in json.loads(done.stdout)["allocations"])


def test_they_have_one_allocation_and_its_memory_together(oriond_env, start):
    first, second = start(ORION_GMEM=1000), start(ORION_GMEM=1000)
    assert first.result == second.result == 0 and free_slots(oriond_env) == 3
    assert len({c["allocation"] for c in oriond_env.status()["channels"]}) == 1
    assert first("alloc", 700) == 0 and second("alloc", 400) == 2 and second("alloc", 200) == 0
    assert first("alloc", 200) == 2 and first("free") == second("free") == 100
    first.end()
    assert wait_for(lambda: second("free") == 800) and free_slots(oriond_env) == 3
    assert second("alloc", 700) == 0
    second.end()
    assert wait_for(lambda: free_slots(oriond_env) == 4)


def test_a_killed_member_leaves_its_memory_to_the_others(oriond_env, start):
    first, second = start(ORION_GMEM=1000), start(ORION_GMEM=1000)
    assert first("alloc", 900) == 0 and second("alloc", 200) == 2
    first.process.send_signal(signal.SIGKILL)
    assert wait_for(lambda: second("alloc", 900) == 0)


def test_other_names_are_other_groups(oriond_env, start):
    assert start("a").result == start("b").result == start("").result == 0 and free_slots(oriond_env) == 1


def test_who_asks_for_something_else_is_told(oriond_env, start):
    assert start(ORION_VGPU=2, ORION_GMEM=100).result == 0
    other = start(ORION_VGPU=1, ORION_GMEM=100)
    assert other.result == 100
    assert "group job shares 2 vGPU of 100 MiB" in other.process.stderr.read()


def test_another_client_with_that_name_is_another_group(oriond_env, start):
    """Over TCP it is known by its address alone, with a region by that: they are not the same."""
    assert start().result == start(env=oriond_env.tcp_env).result == 0 and free_slots(oriond_env) == 2


def test_they_share_over_tcp_too(oriond_env, start):
    members = [start(env=oriond_env.tcp_env, ORION_GMEM=1000) for _ in range(3)]
    assert [m.result for m in members] == [0] * 3 and free_slots(oriond_env) == 3
    assert members[0]("alloc", 600) == 0 and members[1]("alloc", 600) == 2


def test_members_follow_each_other_without_a_gap(oriond_env, start):
    """One that comes as the last one goes gets the allocation, or a new one; never an error."""
    held = start("held", ORION_VGPU=3)
    for _ in range(8):
        leaving, coming = start(), None
        leaving.process.stdin.close()
        coming = start()
        assert coming.result == 0, coming.process.stderr.read()
        coming.end()
        assert leaving.process.wait(60) == 0
    held.end()


@pytest.mark.parametrize("name", ["a b", "a/b", "x" * 65])
def test_a_bad_name_is_one_clear_error(oriond_env, start, name):
    member = start(name)
    assert member.result == 1 and f"ORION_GROUP={name} is not valid; accepted: letters" in member.process.stderr.read()
