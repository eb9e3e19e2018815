# SPDX-License-Identifier: Apache-2.0
"""[server] longest_kernel: what runs for longer ends its process alone, with CUDA's own word for it; nothing else does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import host as hosts
import pytest
from world import KERNELS, compiled

SAID = "a kernel ran for longer than the host allows ([server] longest_kernel of its server.conf)"


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Host]:
    with hosts.running(tmp_path_factory.mktemp("host"), config="[server]\nlongest_kernel = 1\n") as running:
        yield running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("client"))


def ran(host: hosts.Host, client: Path, mode: str, argument: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([client, mode, KERNELS, argument], env=env or host.env, input="go\n", capture_output=True, text=True,
                          timeout=180)


@pytest.mark.parametrize(("way", "how"), [("shared memory", "wait"), ("shared memory", "more"), ("tcp", "wait")])
def test_an_infinite_kernel_ends_as_cuda_says(limited: hosts.Host, client: Path, way: str, how: str) -> None:
    """Also one with so much work behind it that its queue is full."""
    done = ran(limited, client, "infinite", how, limited.tcp_env if way == "tcp" else limited.env)
    assert done.stdout == "ready\nrunning\nfault 702\nthen 702\n", done.stderr
    assert SAID in done.stderr
    assert ran(limited, client, "brief").stdout == "done\n"
    said = "a kernel ran for more than 1 s, the most that this host allows ([server] longest_kernel)"
    assert hosts.wait_for(lambda: said in limited.output())


def test_one_that_ended_with_its_context_is_forgotten(limited: hosts.Host, client: Path) -> None:
    """The simulated card ends it at a reset; the process then works on for longer than a kernel may run."""
    done = ran(limited, client, "infinite", "reset")
    assert done.stdout == "ready\nrunning\nreset 0\n" and done.returncode == 0, done.stderr


def test_many_short_ones_and_long_waits_are_none_of_its_business(limited: hosts.Host, client: Path) -> None:
    done = ran(limited, client, "patient")
    assert done.stdout == "ready\ncomputed\n" and done.returncode == 0, done.stderr


def test_streams_and_contexts_come_and_go(limited: hosts.Host, client: Path) -> None:
    """What is kept of a stream ends with its context, and addresses come again."""
    done = ran(limited, client, "free-twice")
    assert done.stdout == "ready\nrefused 6 of 6\n" and done.returncode == 0, done.stderr
