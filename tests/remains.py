# SPDX-License-Identifier: Apache-2.0
"""Plants a pattern in device memory as one process and looks for it as the next."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import host as hosts
from programs import compiled

OTHER = "5eed1e57-0000-4000-8000-000000000001"
SECONDS = 90


@contextlib.contextmanager
def planted(command: list[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the pattern, or has freed it; it ends with the block."""
    process = subprocess.Popen(command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "planted\n", line + (process.communicate(timeout=SECONDS)[1] if not line else "")
        yield process
        print(process.communicate(timeout=SECONDS)[1])
    finally:
        process.kill()
        process.wait()


def empty(looked: subprocess.CompletedProcess[str]) -> None:
    print(looked.stdout, looked.stderr)
    assert looked.stdout.startswith("0 words of the pattern, "), looked.stderr


def check(host: hosts.Host, folder: Path, mib: int, killed: bool = False) -> None:
    """`mib` of a vGPU; the second process belongs to another domain. `killed`: the first one's worker dies with the memory."""
    program = str(compiled(folder, "remains"))
    with planted([program, "plant", str(mib)], host.env | {"ORION_GMEM": str(mib + 64)}):
        if killed:
            os.kill(host.status()["channels"][0]["worker"], signal.SIGKILL)
            assert hosts.wait_for(lambda: not host.status()["channels"])
    other = host.command("region-create", uuid=OTHER, size_mib=16)
    assert other["ok"], other
    try:
        empty(host.run([program, "look", str(mib)], timeout=SECONDS, ORION_GMEM=mib + 64, ORION_REGION=other["path"]))
    finally:
        host.command("region-remove", uuid=OTHER)


def check_freed(folder: Path, mib: int, env: Mapping[str, str]) -> None:
    """Of one driver without us: what a process frees while it goes on, and another one gets."""
    program = str(compiled(folder, "remains"))
    with planted([program, "free", str(mib)], env):
        empty(subprocess.run([program, "look", str(mib)], env=dict(env), capture_output=True, text=True, timeout=SECONDS))
