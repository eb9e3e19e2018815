# SPDX-License-Identifier: Apache-2.0
"""Several ways to the host in a region's header: the client takes the one that leads there, to the controller too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from host import Host
from orion_virt import layout
from orion_virt.region import header

CLIENT = str(Path(__file__).with_name("client.py"))


def say(env: Host, servers: list[str], controller: str, mailbox: bool = True) -> dict[str, str]:
    """The header names these; returns the environment of a client that goes by it. Without the mailbox there is no other way."""
    fd = os.open(env.region, os.O_RDWR)
    header.write_addrs(fd, servers, controller)
    if not mailbox:
        os.pwrite(fd, bytes(8), layout.Header.features.offset)
    os.close(fd)
    return {name: value for name, value in env.env.items() if name != "ORION_CONTROLLER"}


@pytest.mark.parametrize("dead", ["127.0.0.9", "[::1]"])
def test_the_first_address_leads_nowhere(oriond_env: Host, dead: str) -> None:
    env = say(oriond_env, [f"{dead}:{oriond_env.port}", oriond_env.server], f"{dead}:{oriond_env.controller_port}")
    done = oriond_env.run([sys.executable, CLIENT, "once"], env=env)
    assert done.stdout == "READY True\nDONE\n", (done.stdout, done.stderr)


def test_a_controller_elsewhere_is_only_where_it_is_said_to_be(oriond_env: Host) -> None:
    env = say(oriond_env, [oriond_env.server, f"127.0.0.9:{oriond_env.port}"], f"127.0.0.8:{oriond_env.controller_port}", mailbox=False)
    done = oriond_env.run([sys.executable, CLIENT, "once"], env=env)
    assert done.returncode == 1 and done.stderr.count("refused") == 1, done.stderr
    assert f"the controller cannot be reached (127.0.0.8:{oriond_env.controller_port}: " in done.stderr


def test_where_no_address_leads_anywhere_the_region_does(oriond_env: Host) -> None:
    env = say(oriond_env, [f"127.0.0.9:{oriond_env.port}"], f"127.0.0.8:{oriond_env.controller_port}")
    done = oriond_env.run([sys.executable, CLIENT, "once"], env=env)
    assert done.stdout == "READY True\nDONE\n", (done.stdout, done.stderr)


def test_none_leads_anywhere(oriond_env: Host) -> None:
    env = say(oriond_env, [f"127.0.0.9:{oriond_env.port}", f"127.0.0.8:{oriond_env.port}"], oriond_env.controller, mailbox=False)
    done = oriond_env.run([sys.executable, CLIENT, "once"], env=env)
    assert done.returncode == 1 and "127.0.0.9" in done.stderr and "127.0.0.8" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
