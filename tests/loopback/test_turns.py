# SPDX-License-Identifier: Apache-2.0
"""Compute limits with real workers on the simulated card: results stay right, turns alternate, nobody waits for ever."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import host as hosts
import pytest
from programs import compiled, run, without_vgpu

LIMITED = "[server]\ncompute_limits = on\n"
BODIES = [("graphs", "capture"), ("order", "waits"), ("order", "callbacks"), ("managed", "copies"), ("life", "exit_with_work")]


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hosts.Host]:
    with hosts.running(tmp_path_factory.mktemp("host"), config=LIMITED, region_mib=256) as running:
        yield running


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(compiled(tmp_path_factory.mktemp("load"), "load"))


def started(host: hosts.Host, load: str, *args: object, **variables: object) -> subprocess.Popen[str]:
    """A load that is ready and waits for its line."""
    env = host.env | {k: str(v) for k, v in variables.items()}
    process = subprocess.Popen([load, *map(str, args)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    assert process.stdout.readline() == "READY\n", process.communicate()[1]
    return process


def finished(process: subprocess.Popen[str]) -> dict[str, float]:
    out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    return json.loads(out)


def go(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()


@pytest.mark.parametrize("mode", ["launch", "graph"])
def test_both_compute_and_are_right(limited: hosts.Host, load: str, mode: str) -> None:
    loads = [started(limited, load, 2, 200, mode, ORION_RATIO=ratio) for ratio in (30, 70)]
    go(*loads)
    results = [finished(process) for process in loads]
    assert all(result["right"] and result["kernels"] > 8 for result in results)


def test_who_has_more_of_the_card_computes_more(limited: hosts.Host, load: str) -> None:
    """The simulated card runs what two processes bring at the same time; that 10 % get less than 90 % is the turns' doing."""
    loads = [started(limited, load, 4, 2000, ORION_RATIO=ratio) for ratio in (10, 90)]
    go(*loads)
    few, many = (finished(process)["kernels"] for process in loads)
    assert few < many


def test_what_a_dead_neighbour_had_is_free_again(limited: hosts.Host, load: str) -> None:
    doomed, other = (started(limited, load, 3, 200, ORION_RATIO=50) for _ in range(2))
    go(doomed, other)
    doomed.send_signal(signal.SIGKILL)
    assert finished(other)["right"]
    doomed.communicate()
    assert hosts.wait_for(limited.idle)


@pytest.mark.parametrize(("program", "body"), BODIES)
def test_programs_beside_a_load(limited: hosts.Host, load: str, tmp_path: Path, program: str, body: str) -> None:
    """What they print does not depend on whose turn it is."""
    made = compiled(tmp_path, program)
    native = run(made, body, without_vgpu() | {"LD_LIBRARY_PATH": str(hosts.LIB / "simgpu")})
    busy = started(limited, load, 20, 200)
    go(busy)
    try:
        ours = run(made, body, limited.env)
    finally:
        busy.kill()
        busy.communicate()
    assert (ours.stdout, ours.returncode) == (native.stdout, native.returncode), ours.stderr


def test_more_than_is_left_is_refused(limited: hosts.Host, load: str) -> None:
    first = started(limited, load, 1, 200, ORION_RATIO=60)
    refused = limited.run([load, "1", "200"], ORION_RATIO=50)
    first.kill()
    first.communicate()
    assert refused.returncode != 0
    assert "GPU 0 has 40 % of its time left, 50 % are asked" in refused.stderr and "Lower ORION_RATIO" in refused.stderr


def test_a_ratio_that_nobody_keeps_is_refused(make_oriond, load: str) -> None:
    with make_oriond() as host:
        done = host.run([load, "1", "200"], ORION_RATIO=50)
    assert done.returncode != 0
    assert "this server does not limit compute" in done.stderr and "compute_limits = on" in done.stderr


def test_the_domains_own_share_is_default_and_ceiling(tmp_path: Path, load: str) -> None:
    with hosts.running(tmp_path, config=LIMITED, compute=30) as host:
        refused = host.run([load, "1", "200"], ORION_RATIO=31)
        assert refused.returncode != 0 and "this domain's vGPUs may have 30 % each" in refused.stderr
        silent = started(host, load, 1, 200)
        last = host.run([load, "1", "200"], ORION_RATIO=30, ORION_VGPU=3)
        silent.kill()
        silent.communicate()
    assert "GPU 0 has 70 % of its time left, 90 % are asked" in last.stderr


@pytest.mark.parametrize("ratio", ["0", "101", "half"])
def test_a_bad_ratio_is_named(limited: hosts.Host, load: str, ratio: str) -> None:
    done = limited.run([load, "1", "200"], ORION_RATIO=ratio)
    assert done.returncode != 0
    assert "ORION_RATIO" in done.stderr
