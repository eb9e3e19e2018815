# SPDX-License-Identifier: Apache-2.0
"""The private host leaves nothing behind and touches nothing of the system, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vm.harness.libvirtd import REPO
from vm.stage import Setup, eventually

pytestmark = [pytest.mark.vm, pytest.mark.root]

PROGRAM = """
import sys, time
from tests.vm.harness import PrivateHost, PrivateLibvirt
with PrivateHost(shm_mib=64, prefix="orion-endtest-") as host:
    libvirt = PrivateLibvirt(host)
    libvirt.start(network=False)
    host.popen(["sleep", "4711"])
    print(host.state, flush=True)
    time.sleep(60)
"""


def processes(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in text:
            found.append(text)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left(number: int, setup: Setup) -> None:
    argv = ["env", "--default-signal=INT", sys.executable, "-c", PROGRAM]  # it is ignored where we run in the background
    program = subprocess.Popen(argv, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert program.stdout
    with program, program.stdout:
        try:
            state = Path(program.stdout.readline().strip())
            assert state.is_dir()
            eventually(lambda: bool(processes("sleep 4711")), "the process does not start")  # it may be in exec just now
            program.send_signal(number)
            program.wait(20)
        finally:
            program.kill()
    deadline = time.monotonic() + 10
    while processes("sleep 4711") or processes(str(state)) or state.exists():
        assert time.monotonic() < deadline, processes("sleep 4711") + processes(str(state))
        time.sleep(0.1)


def test_the_system_is_untouched(setup: Setup) -> None:
    assert setup.libvirt.socket.exists()
    system = Path("/run/libvirt/libvirt-sock")
    assert not system.exists() or not system.samefile(setup.libvirt.socket)
    assert "orionbr0" in setup.host.run(["ls", "/sys/class/net"]).stdout
    assert "orionbr0" not in os.listdir("/sys/class/net")
    assert os.stat("/dev/shm").st_dev != os.stat(setup.shm).st_dev
    settings = Path("/etc/libvirt/hooks/orion-virt.env")
    assert not settings.exists() or str(setup.host.state) not in settings.read_text()
