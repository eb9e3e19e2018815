# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of addresses and neighbours: made-up messages, and a real address where we may make one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from host import ROOT
from orion_virt.domain import netlink

NDMSG = bytes(12)


def attribute(kind: int, data: bytes) -> bytes:
    raw = (4 + len(data)).to_bytes(2, "little") + kind.to_bytes(2, "little") + data
    return raw + bytes(-len(raw) % 4)


def message(kind: int, body: bytes) -> bytes:
    return (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little") + bytes(10) + body + bytes(-len(body) % 4)


def test_messages() -> None:
    data = message(20, b"abc") + message(28, b"d" * 8)
    assert list(netlink.messages(data)) == [(20, b"abc"), (28, b"d" * 8)]
    assert list(netlink.messages(data[:10])) == [] and list(netlink.messages(bytes(32))) == []


def test_a_neighbours_mac() -> None:
    mac = attribute(2, bytes.fromhex("525400000007"))
    assert netlink.neighbour_mac(NDMSG + attribute(1, bytes(4)) + mac) == "52:54:00:00:00:07"
    assert netlink.neighbour_mac(NDMSG + attribute(1, bytes(4))) == ""
    assert netlink.neighbour_mac(NDMSG + attribute(2, bytes(20))) == "" and netlink.neighbour_mac(NDMSG + bytes(4)) == ""


PROGRAM = """
import asyncio, subprocess, sys
from orion_virt.domain.netlink import Watch

async def main():
    heard = []
    watch = Watch(lambda: heard.append("address"), lambda: heard.append("link"), heard.append)
    watch.start()
    for line in sys.argv[1:]:
        subprocess.run(["ip", *line.split()], check=True)
        await asyncio.sleep(0.5)
        print(line.split()[0], sorted(set(heard)))
        heard.clear()
    watch.stop()

asyncio.run(main())
"""
LINES = ("link add br9 type bridge", "addr add 10.9.0.1/24 dev br9", "addr del 10.9.0.1/24 dev br9",
         "neigh add 10.9.0.9 lladdr 52:54:00:00:00:07 dev br9 nud reachable")


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_a_real_kernel_says_so() -> None:
    argv = ["unshare", "--net", sys.executable, "-c", PROGRAM, *LINES]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    heard = done.stdout.splitlines()
    assert [line.split()[0] for line in heard] == ["link", "addr", "addr", "neigh"]
    for line, what in zip(heard, ("'link'", "'address'", "'address'", "'52:54:00:00:00:07'")):
        assert what in line, heard
