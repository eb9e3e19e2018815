# SPDX-License-Identifier: Apache-2.0
"""Processes of one domain share memory, events and pools; those of two domains, or without a region, do not."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import host as hosts
import pytest
from host import Host
from programs import nvcc

PROGRAM = str(Path(__file__).with_name("ipc_client.py"))
CASES = ["memory", "events", "vmm", "pool", "opener_dies", "context_ends", "pages", "late"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("ipc"), region_mib=256) as running:
        yield running


@pytest.mark.parametrize("case", CASES)
def test_shared(host: Host, case: str) -> None:
    done = host.run([sys.executable, PROGRAM, case])
    assert done.returncode == 0 and done.stdout == "OK\n", done.stdout + done.stderr + host.output()


def test_who_shows_dies(host: Host) -> None:
    done = host.run([sys.executable, PROGRAM, "shower_dies"])
    assert done.returncode == -9 and done.stdout == "OK\n", done.stdout + done.stderr + host.output()


def test_on_two_vgpus_of_one_card(host: Host) -> None:
    done = host.run([sys.executable, PROGRAM, "two"], ORION_VGPU=2, ORION_GMEM=1000)
    assert done.returncode == 0 and done.stdout == "OK\n", done.stdout + done.stderr + host.output()


def test_tcp_shares_nothing(host: Host) -> None:
    done = host.run([sys.executable, PROGRAM, "tcp"], env=host.tcp_env)
    assert done.returncode == 0 and done.stdout == "OK\n", done.stdout + done.stderr


def test_token_of_another_domain(host: Host) -> None:
    """It is as good as any other bytes."""
    other = str(uuid.uuid4())
    assert host.command("region-create", uuid=other, size_mib=64)["ok"]
    argv = [sys.executable, PROGRAM, "show"]
    shower = subprocess.Popen(argv, env=host.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert shower.stdin and shower.stdout
    try:
        token = shower.stdout.readline()
        assert len(bytes.fromhex(token)) == 64
        env = host.env | {"ORION_REGION": f"/dev/shm/orion-{other}"}
        argv = [sys.executable, PROGRAM, "steal"]
        done = subprocess.run(argv, env=env, input=token, capture_output=True, text=True, timeout=180, check=False)
    finally:
        shower.stdin.close()
        assert shower.wait(20) == 0
        shower.stdout.close()
        host.command("region-remove", uuid=other)
    assert done.returncode == 0 and done.stdout == "OK\n", done.stdout + done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvcc(tmp_path_factory.mktemp("shared"), "shared.cu")


@pytest.mark.parametrize("body", ["simple", "vmm", "pool", "pages", "wrong"])
def test_programs_as_on_a_card(host: Host, program: Path, body: str) -> None:
    """Through NVIDIA's runtime, with kernels on both sides."""
    done = host.run([str(program), body], timeout=120)
    assert done.returncode == 0 and "WRONG" not in done.stdout, done.stdout + done.stderr
    assert done.stdout.endswith("the other: 0\n")


def test_nothing_is_left(host: Host) -> None:
    """The daemon closes every descriptor that was shared, though its processes only ended."""
    fds = host.status()["fds"]
    for case in ("vmm", "shower_dies", "opener_dies"):
        host.run([sys.executable, PROGRAM, case])
    host.settle(fds)
