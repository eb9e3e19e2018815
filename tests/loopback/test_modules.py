# SPDX-License-Identifier: Apache-2.0
"""Devices, contexts, modules, libraries and launches through region, worker and simulated GPU, and over TCP."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("modules.py")
WHAT = "devices module attributes library errors contexts reset threads large fault quota".split()


@pytest.mark.parametrize("what", WHAT)
def test_shared_memory(oriond_env, what: str) -> None:
    done = oriond_env.run([sys.executable, PROGRAM, what])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", ["module", "large"])
def test_tcp(oriond_env, what: str) -> None:
    done = oriond_env.run([sys.executable, PROGRAM, what], env=oriond_env.tcp_env)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_vgpus_of_one_card(oriond_env) -> None:
    done = oriond_env.run([sys.executable, PROGRAM, "peers"], ORION_VGPU=2)
    assert done.returncode == 0, done.stdout + done.stderr
