# SPDX-License-Identifier: Apache-2.0
"""oriond restarts, planned or killed, under programs of guests: they go on, and everything that they have is known again."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import host
import pytest

CLIENT = str(Path(__file__).with_name("client.py"))
KEEP = "[server]\nkeep_workers = 20\n"


@pytest.fixture
def kept(tmp_path):
    with host.running(tmp_path, config=KEEP) as made:
        yield made


def client(env, mode="loop", seconds=60, environment=None):
    process = subprocess.Popen([sys.executable, CLIENT, mode, str(seconds)], env=environment or env.env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "READY True\n"
    return process


def stop(env):
    assert env.stop() == 0


def kill(env):
    os.kill(env.process.pid, signal.SIGKILL)
    env.process.wait(5)


WAYS = pytest.mark.parametrize("end", [stop, kill], ids=["planned", "killed"])


@WAYS
@pytest.mark.parametrize("way", ["env", "tcp_env"], ids=["shm", "tcp"])
def test_a_running_program_goes_on(kept, end, way):
    process = client(kept, environment=getattr(kept, way))
    (before,) = kept.status()["channels"]
    for _ in range(2):
        end(kept)
        assert process.poll() is None
        kept.start()
        (now,) = kept.status()["channels"]
        same = ("channel", "domain", "transport", "pid", "peer", "allocation", "worker")
        assert [now[name] for name in same] == [before[name] for name in same]
        assert kept.command("ping")["ok"]
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
