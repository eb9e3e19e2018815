# SPDX-License-Identifier: Apache-2.0
"""Copies, pinned memory, pools, streams, host functions and graphs over the region, on the simulated GPU."""

import sys
from pathlib import Path

import host
import pytest

CLIENT = Path(__file__).with_name("memory_client.py")
CASES = ("copies pinned_copies registered full planes streams quota wrong pointers callbacks graph managed pools vmm "
         "threads").split()


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    """One host side for all cases; it fails at its end if anything leaked."""
    with host.running(tmp_path_factory.mktemp("memory")) as env:
        yield env


def run(side, case, env=None):
    done = side.run([sys.executable, str(CLIENT), case], timeout=180, env=env)
    assert done.returncode == 0 and done.stdout.endswith("OK\n"), f"{done.stdout}{done.stderr}\n{side.output()[-3000:]}"
    if "LACKING" in done.stdout:
        pytest.skip(f"the simulated driver lacks what {case} needs")


@pytest.mark.parametrize("case", CASES)
def test_memory(side, case):
    run(side, case)


def test_full_region_names_the_setting(side):
    done = side.run([sys.executable, str(CLIENT), "full"], timeout=180)
    assert "shm_buffer_size" in done.stderr, done.stderr


@pytest.mark.parametrize("case", ["copies", "planes", "quota", "wrong", "callbacks", "threads"])
def test_memory_over_tcp(side, case):
    run(side, case, side.tcp_env)
