# SPDX-License-Identifier: Apache-2.0
"""A process with two vGPUs: on one card, which is the normal case, and where they do not fit on one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import host as hosts
import pytest
from host import Host

PROGRAM = str(Path(__file__).with_name("two.py"))
WHAT = ["identity", "limits", "one_thread", "two_threads", "peers", "reset", "states", "arrays", "fault"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    with hosts.running(tmp_path_factory.mktemp("two"), region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory):
    """A host with two cards of 16 GiB."""
    with pytest.MonkeyPatch.context() as patch:
        variables = {"ORION_SIM_GPUS": "2", "ORION_SIM_MEMORY": "16384"}
        patch.setattr(Host, "server_env", property(lambda self, kept=Host.server_env.fget: kept(self) | variables))
        with hosts.running(tmp_path_factory.mktemp("cards"), region_mib=256) as running:
            yield running


def run(host: Host, what: str, mib: int = 512, **variables: object) -> subprocess.CompletedProcess:
    return host.run([sys.executable, PROGRAM, what], **({"ORION_VGPU": 2, "ORION_GMEM": mib} | variables))


def right(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("what", WHAT)
def test_two_on_one_card(host: Host, what: str) -> None:
    right(run(host, what))


@pytest.mark.parametrize("what", [name for name in WHAT if name != "fault"])
def test_two_on_two_cards(cards: Host, what: str) -> None:
    right(run(cards, what, mib=12000))


def test_over_tcp(host: Host) -> None:
    for what in ("identity", "limits", "peers"):
        env = host.tcp_env | {"ORION_VGPU": "2", "ORION_GMEM": "512"}
        right(host.run([sys.executable, PROGRAM, what], env=env))


def test_visible_devices(host: Host) -> None:
    """Bus ids and UUIDs stay with their vGPU whatever is visible and whoever looks."""
    both = right(run(host, "show")).splitlines()
    assert [line.split()[0] for line in both] == ["0000:A0:00.0", "0000:A1:00.0"]
    for chosen, wanted in (("1", both[1:]), ("1,0", both[::-1]), ("0", both[:1]), ("0,7,1", both[:1])):
        assert right(run(host, "show", CUDA_VISIBLE_DEVICES=chosen)).splitlines() == wanted, chosen
    uuid = both[1].split()[1]
    assert right(run(host, "show", CUDA_VISIBLE_DEVICES=f"GPU-{uuid[:6]}")).splitlines() == both[1:]
    none = run(host, "show", CUDA_VISIBLE_DEVICES="")
    assert "cuInit: 100" in none.stderr


def placed(host: Host, count: int, mib: int, **variables: object) -> list[int]:
    """The cards of the vGPUs of a process that holds them."""
    env = host.env | {"ORION_VGPU": str(count), "ORION_GMEM": str(mib)} | {k: str(v) for k, v in variables.items()}
    with subprocess.Popen([sys.executable, PROGRAM, "hold"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        line = process.stdout.readline()
        channels = host.status()["channels"]
        process.stdin.close()
        assert line == "READY\n", process.stderr.read() if process.stderr else ""
    assert len(channels) == 1, channels
    return [int(device["gpu"]) for device in channels[0]["devices"]]


def test_only_what_is_visible_is_allocated(host: Host) -> None:
    assert placed(host, 2, 512, CUDA_VISIBLE_DEVICES=1) == [0]


def test_placement_fills_the_first_card(cards: Host) -> None:
    assert placed(cards, 1, 4096) == [0]
    assert placed(cards, 2, 7000) == [0, 0]
    assert placed(cards, 2, 12000) == [0, 1]
    assert placed(cards, 6, 2048) == [0, 0, 0, 0, 1, 1]
    assert placed(cards, 3, 8192) == [0, 0, 1]


def test_a_request_is_granted_whole_or_refused_whole(cards: Host) -> None:
    done = run(cards, "hold", mib=12000, ORION_VGPU=3)
    assert done.returncode == 1 and "cuDevicePrimaryCtxRetain: 100" in done.stderr
    assert re.search(r"3 vGPU of 12000 MiB cannot be granted", done.stderr), done.stderr
    assert not cards.status()["channels"]
