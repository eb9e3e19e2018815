# SPDX-License-Identifier: Apache-2.0
"""NCCL between two processes on two vGPUs of one card: it finds a transport, and every connection is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import host as hosts
import pytest
import wheels

pytestmark = pytest.mark.compat
RANK = Path(__file__).with_name("nccl_rank.py")
RELEASES = ["nvidia-nccl-cu12==2.18.1", "nvidia-nccl-cu12==2.27.7", "nvidia-nccl-cu13==2.27.7", "nvidia-nccl-cu13"]


def settings() -> dict[str, str]:
    """What install-client writes into /etc/nccl.conf; not every release reads another file."""
    lines = (hosts.ROOT / "guest-agent" / "installer" / "nccl.conf").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def ranks(host: hosts.Host, library: Path, folder: Path, **variables: str) -> list[str]:
    """The output of both."""
    env = host.env | {"ORION_VGPU": "2", "ORION_GMEM": "3000", "NCCL_DEBUG": "INFO", "NCCL_SOCKET_IFNAME": "lo"}
    env |= {"NCCL_RUNTIME_CONNECT": "0", **variables}
    both = [
        subprocess.Popen([sys.executable, RANK, library, str(rank), folder / "id"], env=env, errors="replace",
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in (0, 1)
    ]  # fmt: skip
    try:
        return [rank.communicate(timeout=120)[0] for rank in both]
    finally:
        for rank in both:
            rank.kill()
            rank.wait()


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("transport", ["P2P", "SHM"])
def test_ranks_connect(host: hosts.Host, tmp_path: Path, release: str, transport: str) -> None:
    library = next(wheels.unpacked(release).glob("**/libnccl.so.2"))
    variables = settings() if transport == "P2P" else {"NCCL_P2P_DISABLE": "1"}
    for said in ranks(host, library, tmp_path, **variables):
        assert "done" in said and f" via {transport}/" in said, said[-4000:]
