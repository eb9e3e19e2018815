# SPDX-License-Identifier: Apache-2.0
"""`orion-virt install` against QEMU's own agent without a machine around it: on a copy of this one that forgets it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import host
import pytest
from click.testing import CliRunner
from packages.roots import Root

from orion_virt.cli import install
from orion_virt.cli.main import main
from orion_virt.domain.agent import Agent

pytestmark = [pytest.mark.root, pytest.mark.skipif(not shutil.which("qemu-ga", path="/usr/sbin:/usr/bin"),
                                                   reason="qemu-ga is not installed: apt-get install qemu-guest-agent")]
SOCKET = "/tmp/agent.sock"


@pytest.fixture
def connected(enter: Callable[[str], Root], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Root]]:
    """`connected(options)` starts the agent and makes `orion-virt install` talk to it."""
    root = enter("machine")
    stack = ExitStack()

    def start(*options: str) -> Root:
        root.must("qemu-ga", "--daemonize", "-m", "unix-listen", "-p", SOCKET, "-t", "/tmp", "-f", "/tmp/agent.pid", *options)
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        folder = os.open(root.path / "tmp", os.O_PATH)  # the whole path may be longer than a socket's may be
        stack.callback(os.close, folder)
        # It becomes a daemon before it listens.
        assert host.wait_for(lambda: sock.connect_ex(f"/proc/self/fd/{folder}/{Path(SOCKET).name}") == 0), "the agent does not listen"
        sock.settimeout(60)
        lines = stack.enter_context(sock.makefile("rb"))

        def raw(text: str, seconds: int) -> str:
            sock.sendall(text.encode() + b"\n")
            return lines.readline().decode()

        monkeypatch.setattr(install, "connect", lambda domain: (Agent(raw), domain))
        return root

    with stack:
        yield start


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["install", "vm1", "--force", *arguments])
    return done.exit_code, done.output


def test_a_real_agent(connected: Callable[..., Root], oriond_env: host.Host) -> None:
    root = connected()
    root.must("useradd", "ann")
    status, said = run("--user", "ann", "--controller", oriond_env.controller)
    assert status == 0 and "has been installed in vm1" in said, said
    assert (root.path / "usr/lib/orion/libcuda.so.1").read_bytes() == (host.LIB / "guest" / "libcuda.so.1").read_bytes()
    assert "ann" in root.must("getent", "group", "orion")
    assert "Installation summaries :" in said and "[Error] Shared memory device" in said
    env = {"ORION_CONTROLLER": oriond_env.controller, "ORION_SERVER": oriond_env.server}
    assert "PASSED" in root.must("/usr/lib/orion/demo/orion-demo", "/usr/lib/orion/demo/kernels.ptx", "32", **env)
    assert not list((root.path / "tmp").glob("orion.*"))
    status, said = run("--user", "nobody-at-all")
    assert status == 1 and "cannot add nobody-at-all to the group orion" in said, said
    assert run("--uninstall")[0] == 0 and not (root.path / "usr/lib/orion/libcuda.so.1").exists()
    assert not list((root.path / "tmp").glob("orion.*"))


def test_a_forbidding_one(connected: Callable[..., Root]) -> None:
    root = connected("-b", "guest-exec")
    status, said = run()
    assert status == 7 and "forbids what is needed: guest-exec" in said, said
    assert not list((root.path / "tmp").glob("orion.*"))
