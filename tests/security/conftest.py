# SPDX-License-Identifier: Apache-2.0
"""One host side for all hostile guests of a file, neighbours that must not notice them, and a count of what is left."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import host as hosts
import pytest
from host import Host, wait_for

CONFIG = "[server]\nvgpu_count = 16\n"


def _neighbour(host: Host, **env: str) -> subprocess.Popen[str]:
    argv = [sys.executable, str(Path(__file__).with_name("neighbour.py"))]
    full = host.env | {"ORION_GMEM": "64"} | env
    process = subprocess.Popen(argv, env=full, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "READY\n", host.output()
    return process


@pytest.fixture(scope="module")
def busy_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a neighbour in the hostile guests' own region and one in another domain's; both compute throughout."""
    with hosts.running(tmp_path_factory.mktemp("host"), config=CONFIG, region_mib=64) as host:
        other = str(uuid.uuid4())
        made = host.command("region-create", uuid=other, size_mib=32)
        assert made["ok"], made
        beside = [_neighbour(host), _neighbour(host, ORION_REGION=f"/dev/shm/orion-{other}")]
        host.neighbours = beside  # type: ignore[attr-defined]
        try:
            yield host
            for process in beside:
                out, _ = process.communicate(timeout=20)
                assert (process.returncode, out) == (0, "DONE\n"), host.output()
        finally:
            for process in beside:
                process.kill()
                process.wait()
            assert wait_for(host.idle)
            host.command("region-remove", uuid=other)


def _count(host: Host) -> dict[str, Any]:
    status = host.status()
    return {"channels": sorted(c["channel"] for c in status["channels"]), "fds": status["fds"],
            "extents": sorted((r["uuid"], r["extents_used"]) for r in status["regions"]),
            "warm": status["warm_workers"], "shm": sorted(p.name for r in status["regions"] for p in Path("/dev/shm").glob(f"orion-{r['uuid']}*")),
            "processes": len(hosts.processes_of_session(host.process.pid))}  # fmt: skip


def _is_back(host: Host, before: dict[str, Any]) -> bool:
    """Nothing is left. A descriptor less is no fault: for some milliseconds of every heartbeat oriond has one more, and `before`
    may have seen that one."""
    now = _count(host)
    return now["fds"] <= before["fds"] and now | {"fds": 0} == before | {"fds": 0}


@pytest.fixture
def victim(busy_host: Host) -> Iterator[Host]:
    """The host; afterwards neither a descriptor, an extent, a worker nor a file is left, and the neighbours go on."""
    before = _count(busy_host)
    yield busy_host
    assert wait_for(lambda: _is_back(busy_host, before)), f"{before}\n{_count(busy_host)}\n{busy_host.output()[-3000:]}"
    assert all(p.poll() is None for p in busy_host.neighbours), busy_host.output()  # type: ignore[attr-defined]
    assert "Traceback" not in busy_host.output()
